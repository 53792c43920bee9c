"""How log text is kept: as it is, or compressed where that pays."""

from __future__ import annotations

import enum

import zstandard

PACK_FROM_BYTES = 1024  # Below it a frame's own header and dictionary cost more than they save.
LEVEL = 1  # reference/gateway.md section 3: level 3 saves no more of build logs, and costs twice.

_packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
_unpacker = zstandard.ZstdDecompressor()


class Codec(enum.IntEnum):
    """How a chunk's bytes are to be read; kept beside them, numbers are never reused."""

    PLAIN = 0
    ZSTD = 1


def pack(data: bytes) -> tuple[Codec, bytes]:
    """The bytes to keep. `unpack` gives back the same; what does not shrink stays plain."""
    if len(data) < PACK_FROM_BYTES:
        return Codec.PLAIN, data
    packed = _packer.compress(data)
    return (Codec.ZSTD, packed) if len(packed) < len(data) else (Codec.PLAIN, data)


def unpack(codec: int, data: bytes) -> bytes:
    """What was packed.

    Raises:
        ValueError: a codec that this version does not know.
        zstandard.ZstdError: bytes that `pack` did not make.
    """
    if Codec(codec) is Codec.PLAIN:
        return data
    return _unpacker.decompress(data)
