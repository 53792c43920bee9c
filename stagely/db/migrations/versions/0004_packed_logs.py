"""logs: compressed chunks, which Postgres need not try to compress again; heartbeats find environments by their VM"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('log_chunks', sa.Column('codec', sa.SmallInteger(), nullable=False, server_default='0'))
    op.execute('ALTER TABLE log_chunks ALTER COLUMN data SET STORAGE EXTERNAL')
    op.create_index(op.f('ix_environments_vm_id'), 'environments', ['vm_id'], unique=False)


def downgrade() -> None:
    """Only while no chunk is compressed: SQL cannot read those."""
    packed = op.get_bind().execute(sa.text('SELECT count(*) FROM log_chunks WHERE codec <> 0')).scalar()
    if packed:
        raise RuntimeError(f'{packed} log chunks are compressed; delete them first, nothing before 0004 can read them')
    op.drop_index(op.f('ix_environments_vm_id'), table_name='environments')
    op.execute('ALTER TABLE log_chunks ALTER COLUMN data SET STORAGE EXTENDED')
    op.drop_column('log_chunks', 'codec')
