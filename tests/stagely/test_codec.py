"""The payload codec: what it hides, what it still reads, and what it says about what it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from stagely.codec import ENCODING, KEY_ID, EncryptionCodec, PayloadUnreadable
from stagely.keyring import KeyRing, KeyUnknown
from tests.encryption import key_file

OLD, NEW = "old:" + "aa" * 32, "new:" + "bb" * 32
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"a value that nobody should read"')


def codec(folder: Path, *lines: str) -> EncryptionCodec:
    return EncryptionCodec(KeyRing(key_file(folder, *lines)))


async def test_a_payload_comes_back_as_it_was(tmp_path: Path) -> None:
    made: PayloadCodec = codec(tmp_path, NEW)

    sealed = await made.encode([PLAIN, Payload()])

    assert await made.decode(sealed) == [PLAIN, Payload()]


def test_a_sealed_payload_shows_only_its_key_id(tmp_path: Path) -> None:
    sealed = codec(tmp_path, NEW).encode_one(PLAIN)

    assert dict(sealed.metadata) == {"encoding": ENCODING, KEY_ID: b"new"}
    assert b"nobody" not in sealed.data
    assert b"json/plain" not in sealed.SerializeToString()


def test_the_same_payload_twice_is_sealed_differently(tmp_path: Path) -> None:
    made = codec(tmp_path, NEW)

    assert made.encode_one(PLAIN).data != made.encode_one(PLAIN).data


def test_a_sealed_payload_is_not_sealed_again(tmp_path: Path) -> None:
    made = codec(tmp_path, NEW)
    sealed = made.encode_one(PLAIN)

    assert made.encode_one(sealed) == sealed


def test_an_old_key_still_reads_and_no_longer_writes(tmp_path: Path) -> None:
    before = codec(tmp_path, OLD).encode_one(PLAIN)
    after = codec(tmp_path, NEW, OLD)

    assert after.decode_one(before) == PLAIN
    assert after.encode_one(PLAIN).metadata[KEY_ID] == b"new"


def test_a_payload_from_before_encryption_is_read_as_it_is(tmp_path: Path) -> None:
    assert codec(tmp_path, NEW).decode_one(PLAIN) == PLAIN


def test_a_key_that_is_gone_is_named(tmp_path: Path) -> None:
    sealed = codec(tmp_path, OLD).encode_one(PLAIN)
    after = codec(tmp_path, NEW)

    with pytest.raises(KeyUnknown, match="no key 'old'"):
        after.decode_one(sealed)


def test_a_payload_moved_to_another_key_id_is_refused(tmp_path: Path) -> None:
    made = codec(tmp_path, NEW, "other:" + "bb" * 32)
    sealed = made.encode_one(PLAIN)
    sealed.metadata[KEY_ID] = b"other"

    with pytest.raises(PayloadUnreadable, match="a payload of key other cannot be decrypted"):
        made.decode_one(sealed)


@pytest.mark.parametrize("data", [b"", b"short", b"\0" * 12, b"\0" * 40])
def test_damaged_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    sealed = Payload(metadata={"encoding": ENCODING, KEY_ID: b"new"}, data=data)

    with pytest.raises(PayloadUnreadable, match="damaged"):
        codec(tmp_path, NEW).decode_one(sealed)
