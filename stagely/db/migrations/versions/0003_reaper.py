"""the reaper: what sweeps saw, and since when gateways listen"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
TEXT = sqlmodel.sql.sqltypes.AutoString


def upgrade() -> None:
    op.create_table('reaper_sightings',
    sa.Column('kind', TEXT(), nullable=False),
    sa.Column('scope', TEXT(), nullable=False),
    sa.Column('subject', TEXT(), nullable=False),
    sa.Column('sweep_id', TEXT(), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('first_seen_at', TIME, nullable=False),
    sa.PrimaryKeyConstraint('kind', 'scope', 'subject')
    )
    op.create_table('gateway_beats',
    sa.Column('instance', TEXT(), nullable=False),
    sa.Column('since', TIME, nullable=False),
    sa.Column('beat_at', TIME, nullable=False),
    sa.PrimaryKeyConstraint('instance')
    )


def downgrade() -> None:
    op.drop_table('gateway_beats')
    op.drop_table('reaper_sightings')
