from __future__ import annotations

import random

import pytest

from stagely.packing import PACK_FROM_BYTES, Codec, pack, unpack

LINE = "#12 3.456 Get:{} http://deb.example.org/debian bookworm/main amd64 package all 1.2-3 [45.6 kB]\n"


def test_a_build_log_takes_less_than_a_third_and_comes_back_the_same() -> None:
    log = "".join(LINE.format(i) for i in range(100)).encode()

    codec, kept = pack(log)

    assert codec is Codec.ZSTD
    assert len(kept) * 3 < len(log)
    assert unpack(codec, kept) == log


def test_a_few_lines_stay_as_they_are() -> None:
    assert pack(b"done\n") == (Codec.PLAIN, b"done\n")


def test_what_does_not_shrink_stays_as_it_is() -> None:
    noise = random.Random(1).randbytes(4 * PACK_FROM_BYTES)

    assert pack(noise) == (Codec.PLAIN, noise)


@pytest.mark.parametrize("size", [0, 1, PACK_FROM_BYTES - 1, PACK_FROM_BYTES, PACK_FROM_BYTES + 1, 1 << 18])
def test_every_size_comes_back_the_same(size: int) -> None:
    data = b"a" * size

    assert unpack(*pack(data)) == data


def test_a_codec_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match="7"):
        unpack(7, b"")
