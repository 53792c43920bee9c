"""Which machines the edge believes: those that prove by TLS 1.3 to be an environment's, to a CA of the operator's file.

The proof comes before the first byte of HTTP. Until then a machine that has a VM's former address sees a ClientHello,
whose server name is a digest that only our own certificates bear (`edge.routes.vm_name`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.config import Limits
from edge.log import Log
from edge.pool import Pool
from edge.tls import stamp

if TYPE_CHECKING:
    from edge.upstream import Upstream


class Unproven(Exception):
    """The machine did not prove to be the route's, or nobody could have proved it. The text is for people."""


class VmTrust:
    """The CAs of one PEM file, looked at every second or so."""

    def __init__(self, file: Path, log: Log) -> None:
        """Raises OSError or ssl.SSLError when the file cannot be used now."""
        self._files = (file,)
        self._log = log
        self._stamp = stamp(self._files)
        self._context = _context(file)

    def refresh(self) -> bool:
        """Take the file anew if it changed; whether it did, and is trusted from now on.

        What cannot be used is logged, once, and what was trusted before stays.
        """
        found = stamp(self._files)
        if found == self._stamp:
            return False
        self._stamp = found  # Taken before reading: a file that changes meanwhile is read again the next time.
        try:
            self._context = _context(*self._files)
        except (OSError, ssl.SSLError) as error:
            self._log.error(
                "vm ca refused",
                error=f"{type(error).__name__}: {error}"[:300],
                error_code="bad_certificate",
                remedy="put the certificates of all CAs that sign for VMs where STAGELY_EDGE_VM_CA says",
            )
            return False
        self._log.info("vm ca loaded", path=str(self._files[0]))
        return True

    async def connect(self, pool: Pool, upstream: Callable[[], Upstream], limits: Limits) -> Upstream:
        """A connection to the pool's machine, which has proved to be the environment's.

        Raises:
            Unproven: another machine answers at its address, or one whose certificate has ended.
            OSError: none answers.
        """
        route = pool.route
        try:
            _, connected = await asyncio.get_running_loop().create_connection(
                upstream,
                route.ip,
                route.port,
                ssl=self._context,
                server_hostname=pool.vm_name,
                ssl_handshake_timeout=limits.connect_s,
                ssl_shutdown_timeout=limits.linger_s,
            )
        except ssl.SSLError as error:
            self._log.error(
                "vm identity refused",
                environment_id=route.environment,
                address=f"{route.ip}:{route.port}",
                expected=f"a certificate for {pool.vm_name} of a CA in {self._files[0]}",
                error=str(error)[:300],
                error_code="vm_identity",
            )
            raise Unproven("the machine at the preview's address did not prove that it is the preview's") from error
        return connected


def is_cut(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection whose reading side has just ended did so without TLS's own end, which nobody can forge."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return False
    try:
        return bool(tls.read(1))  # b"" behind a close_notify.
    except ssl.SSLZeroReturnError:
        return False
    except ssl.SSLError:
        return True  # It waits for more.


def _context(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Which checks chain and name.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_verify_locations(file)
    return context
