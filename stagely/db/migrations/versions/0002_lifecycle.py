"""the durable lifecycle: time to live, build slots, the comment's outbox"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
TEXT = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.add_column('environments', sa.Column('expires_at', TIME, nullable=True))
    op.add_column('environments', sa.Column('is_pinned', sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column('environments', sa.Column('warning', TEXT(), nullable=False, server_default=''))
    op.add_column('vms', sa.Column('running_at', TIME, nullable=True))
    op.execute("UPDATE vms SET running_at = created_at WHERE state IN ('running', 'destroying')")
    # That an agent is online is told to no workflow any more.
    op.execute("UPDATE agent_events SET forwarded_at = now() WHERE kind = 'online' AND forwarded_at IS NULL")
    op.create_table('build_slots',
    sa.Column('build_id', TEXT(), nullable=False),
    sa.Column('team_id', TEXT(), nullable=False),
    sa.Column('environment_id', TEXT(), nullable=False),
    sa.Column('run_id', TEXT(), nullable=False),
    sa.Column('number', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('queued_at', TIME, nullable=False),
    sa.Column('granted_at', TIME, nullable=True),
    sa.ForeignKeyConstraint(['environment_id'], ['environments.id']),
    sa.PrimaryKeyConstraint('build_id'),
    sa.UniqueConstraint('number')
    )
    op.create_index(op.f('ix_build_slots_environment_id'), 'build_slots', ['environment_id'])
    op.create_index(op.f('ix_build_slots_run_id'), 'build_slots', ['run_id'])
    op.create_index(op.f('ix_build_slots_team_id'), 'build_slots', ['team_id'])
    op.create_table('pull_request_comments',
    sa.Column('project_id', TEXT(), nullable=False),
    sa.Column('pr_number', sa.Integer(), nullable=False),
    sa.Column('team_id', TEXT(), nullable=False),
    sa.Column('comment_id', sa.BigInteger(), nullable=True),
    sa.Column('wanted', sa.Integer(), nullable=False),
    sa.Column('done', sa.Integer(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('last_error', TEXT(), nullable=False),
    sa.Column('due_at', TIME, nullable=False),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id']),
    sa.PrimaryKeyConstraint('project_id', 'pr_number')
    )
    op.create_index(op.f('ix_pull_request_comments_team_id'), 'pull_request_comments', ['team_id'])
    op.create_index(
        'pull_request_comments_due', 'pull_request_comments', ['due_at'], postgresql_where=sa.text('wanted > done')
    )
    op.execute("""
        INSERT INTO pull_request_comments
               (project_id, pr_number, team_id, comment_id, wanted, done, attempts, last_error, due_at)
        SELECT DISTINCT ON (project_id, pr_number) project_id, pr_number, team_id, comment_id, 0, 0, 0, '', now()
        FROM environments WHERE comment_id IS NOT NULL ORDER BY project_id, pr_number, created_at DESC
    """)
    op.drop_column('environments', 'comment_id')


def downgrade() -> None:
    op.add_column('environments', sa.Column('comment_id', sa.Integer(), nullable=True))
    op.execute("""
        UPDATE environments e SET comment_id = c.comment_id
        FROM pull_request_comments c WHERE c.project_id = e.project_id AND c.pr_number = e.pr_number
    """)
    op.drop_table('pull_request_comments')
    op.drop_table('build_slots')
    op.drop_column('vms', 'running_at')
    op.drop_column('environments', 'warning')
    op.drop_column('environments', 'is_pinned')
    op.drop_column('environments', 'expires_at')
