"""vms: the agent's public key and its rotating session, instead of a bearer secret

Agents of before have neither: their VMs are refused from here on, and replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

ADDED = ('public_key', 'session_sha256', 'previous_session_sha256')


def upgrade() -> None:
    for name in ADDED:
        op.add_column('vms', sa.Column(name, sa.String(), nullable=False, server_default=''))
    op.drop_column('vms', 'proof_sha256')


def downgrade() -> None:
    op.add_column('vms', sa.Column('proof_sha256', sa.String(), nullable=False, server_default=''))
    for name in reversed(ADDED):
        op.drop_column('vms', name)
