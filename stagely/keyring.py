"""The installation's own keys: one file, one key per line, the first one encrypts and every one decrypts.

    k2026-11:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    k2026-02:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

Rotation is a new line on top; an old line goes when nothing that it encrypted is left. docs/temporal.md has the steps.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

SETTING = "STAGELY_ENCRYPTION_KEY_FILE"
KEY_BYTES = 32  # AES-256.
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")


class KeyFileInvalid(RuntimeError):
    """The key file is missing, open to others, or not as it must be. An operator must act; nothing was encrypted."""


class KeyUnknown(LookupError):
    """Something was encrypted with a key that the file does not hold (any more). An operator must act."""


@dataclass(frozen=True, slots=True)
class Key:
    """`id` is public and travels with what the key encrypted; `secret` is 32 bytes and never printed."""

    id: str
    secret: bytes = field(repr=False)


class KeyRing:
    """The keys of one file, as they were when it was last read."""

    def __init__(self, path: Path) -> None:
        """Raises KeyFileInvalid."""
        self._path = path
        self._version = _version(path)
        self._keys = _read(path)

    def newest(self) -> Key:
        """The key that encrypts."""
        return next(iter(self._keys.values()))

    def find(self, key_id: str) -> Key:
        """The key of this id. An unknown one makes a changed file be read again, so that a rotation needs no order.

        Raises:
            KeyUnknown: the file has no such key.
            KeyFileInvalid: the file has changed and is not valid any more.
        """
        if key_id not in self._keys and (version := _version(self._path)) != self._version:
            self._keys, self._version = _read(self._path), version
        if key_id not in self._keys:
            raise KeyUnknown(
                f"no key {key_id[:64]!r} in {self._path} (it holds {', '.join(self._keys)}). "
                "Put the line of that key back below the others."
            )
        return self._keys[key_id]


def open_keyring(path: Path | None) -> KeyRing:
    """The key ring that the setting names. Raises KeyFileInvalid, also when it names none."""
    if path is None:
        raise KeyFileInvalid(
            f"{SETTING} is not set: it must be the path of a file of mode 0600 with a line KEY_ID:64_HEX_DIGITS. "
            f"Make one: (umask 077; echo k1:$(openssl rand -hex {KEY_BYTES}) > FILE)"
        )
    return KeyRing(path)


def new_line(key_id: str) -> str:
    """A line with a new random key, without its newline."""
    return f"{key_id}:{secrets.token_hex(KEY_BYTES)}"


def _version(path: Path) -> tuple[int, int, int]:
    """What changes whenever the file is replaced or written. Raises KeyFileInvalid."""
    found = _stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise KeyFileInvalid(f"{SETTING}={path} cannot be read: {error.strerror}") from error


def _read(path: Path) -> dict[str, Key]:
    mode = stat.S_IMODE(_stat(path).st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileInvalid(
            f"{SETTING}={path} has mode {mode:04o}: others than its owner get at it. Run: chmod 600 {path}"
        )
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileInvalid(f"{SETTING}={path} cannot be read: {type(error).__name__}") from error
    return _parse(path, lines)


def _parse(path: Path, lines: list[str]) -> dict[str, Key]:
    """Never says what stands in a line: it may be the key."""
    found: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key_id, _, digits = line.strip().partition(":")
        if not (_KEY_ID.fullmatch(key_id) and _KEY_HEX.fullmatch(digits)):
            raise KeyFileInvalid(
                f"{SETTING}={path}: line {number} must be KEY_ID:64_HEX_DIGITS "
                "(key id: letters, digits and . _ -, at most 64). Correct the line, or take it from a copy."
            )
        if key_id in found:
            raise KeyFileInvalid(f"{SETTING}={path}: line {number} repeats key id {key_id}. Give each key its own id.")
        found[key_id] = Key(key_id, bytes.fromhex(digits))
    if not found:
        raise KeyFileInvalid(f"{SETTING}={path} holds no key. It needs at least one line KEY_ID:64_HEX_DIGITS.")
    return found
