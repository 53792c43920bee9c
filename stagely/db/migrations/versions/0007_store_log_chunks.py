"""store_log_chunks: a batch of log chunks in one round trip, each chunk once, under the inbox's lock"""

from __future__ import annotations

from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

# The lock is a statement of its own: what follows it sees everything that was stored before.
STORE_LOG_CHUNKS = """
CREATE FUNCTION store_log_chunks(
    vm_ids text[], boot_ids text[], first_seqs integer[], seqs integer[], environment_ids text[], run_ids text[],
    streams text[], codecs smallint[], datas bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    kept bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(4705001);
    INSERT INTO log_chunks (vm_id, boot_id, seq, environment_id, run_id, stream, at, codec, data)
    SELECT g.vm_id, g.boot_id, g.seq, g.environment_id, g.run_id, g.stream, now(), g.codec, g.data
    FROM unnest(vm_ids, boot_ids, first_seqs, seqs, environment_ids, run_ids, streams, codecs, datas)
         WITH ORDINALITY AS g(vm_id, boot_id, first_seq, seq, environment_id, run_id, stream, codec, data, n)
    WHERE NOT EXISTS (
        SELECT FROM log_chunks c WHERE c.vm_id = g.vm_id AND c.boot_id = g.boot_id AND c.seq >= g.first_seq)
    ORDER BY g.n;
    GET DIAGNOSTICS kept = ROW_COUNT;
    IF kept <> cardinality(vm_ids) THEN
        RAISE EXCEPTION 'a chunk holds messages that are stored already' USING ERRCODE = 'SG001';
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute(STORE_LOG_CHUNKS)


def downgrade() -> None:
    op.execute(
        'DROP FUNCTION store_log_chunks('
        'text[], text[], integer[], integer[], text[], text[], text[], smallint[], bytea[])'
    )
