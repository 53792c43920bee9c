"""The edge's wildcard certificate: two files, watched, and replaced for new connections while old ones go on."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from edge.log import Log

Stamp = tuple[int, int, int]


class EdgeTls(ssl.SSLObject):
    """Our side of one TLS connection; `sni` is the host the visitor asked for in the handshake."""

    sni: str | None = None


class Certificate:
    """The newest certificate that could be read, with its key.

    `context` is what listeners use, for ever: with each handshake it hands over to the newest one. So a listener is
    never opened anew, a connection keeps what it began with, and two files that do not fit together are never used.
    """

    def __init__(self, certificate: Path, key: Path, log: Log) -> None:
        """Raises OSError or ssl.SSLError when the files cannot be used now."""
        self._files = (certificate, key)
        self._log = log
        self._stamp = stamp(self._files)
        self._newest = _context(*self._files)
        self.context = _context(*self._files)
        self.context.sslobject_class = EdgeTls
        self.context.sni_callback = self._choose

    def refresh(self) -> None:
        """Take the files anew if they changed; called every second or so. What cannot be used is logged, once."""
        found = stamp(self._files)
        if found == self._stamp:
            return
        self._stamp = found  # Taken before reading: files that change meanwhile are read again the next time.
        try:
            self._newest = _context(*self._files)
        except (OSError, ssl.SSLError) as error:
            self._log.error(
                "certificate refused",
                error=f"{type(error).__name__}: {error}"[:300],
                error_code="bad_certificate",
                remedy="put a certificate and its key where STAGELY_TLS_CERT and STAGELY_TLS_KEY say; the last good "
                "one is used until then",
            )
        else:
            self._log.info("certificate loaded", path=str(self._files[0]))

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        assert isinstance(connection, EdgeTls)
        connection.sni = name
        connection.context = self._newest


def stamp(files: tuple[Path, ...]) -> tuple[Stamp, ...]:
    """What changes when one of them does."""
    return tuple(map(_stamp_of, files))


def _stamp_of(file: Path) -> Stamp:
    """What changes when a file is written, removed, or gives its name to another."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # Without this OpenSSL would ask on the terminal.
    context.load_cert_chain(certificate, key, password=lambda: b"")
    return context
