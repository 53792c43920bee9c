"""vms: when to look after a preview VM's certificate next"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('vms', sa.Column('certify_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index('vms_to_certify', 'vms', ['certify_at'], unique=False,
                    postgresql_where=sa.text("state = 'running' AND role = 'preview'"))


def downgrade() -> None:
    op.drop_index('vms_to_certify', 'vms')
    op.drop_column('vms', 'certify_at')
