"""This machine's certificate: what its ingress shows, so that the edge knows it whatever address it has.

It is for the agent's own key and comes from the core, anew several times a day. On disk it outlives the agent: after a
restart the ports speak TLS before the core has said a word.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from agent.files import read_text, write_private
from agent.identity import KEY_FILE
from agent.protocol import Certify, Failure, Outcome, Result

STEP = "certify"
FILE = "ingress.crt"

log = logging.getLogger("stagely.agent.certificate")


class Certificate:
    """The newest certificate of one machine. `context` is for new connections; None until there is one."""

    def __init__(self, state_dir: Path) -> None:
        self._key = state_dir / KEY_FILE
        self._path = state_dir / FILE
        self._draft = state_dir / f"{FILE}.draft"
        self.context: ssl.SSLContext | None = None

    def restore(self) -> None:
        """Serve with what was served with before the agent restarted, if there was anything."""
        if read_text(self._path) is None:
            return
        try:
            self.context = _context(self._path, self._key)
        except (OSError, ssl.SSLError) as error:
            log.warning("the ingress has no certificate until the core sends the next one: %s", error)

    def install(self, order: Certify) -> Result:
        """Serve with this one from now on, also after a restart. What cannot be used or kept changes nothing."""
        try:
            write_private(self._draft, order.certificate)
            context = _context(self._draft, self._key)
            write_private(self._path, order.certificate, is_durable=True)
            self._draft.unlink()
        except (OSError, ssl.SSLError) as error:
            log.warning("a certificate was not installed: %s", error)
            failure = Failure(STEP, f"the certificate cannot be served with on this VM: {error}")
            return Result(0, order.command_id, Outcome.FAILED, failure=failure)
        self.context = context
        log.info("the ingress has a new certificate")
        return Result(0, order.command_id, Outcome.SUCCEEDED)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # The edge keeps connections, not sessions; a ticket would be bytes that nobody asked for.
    # Without this OpenSSL would ask on the terminal.
    context.load_cert_chain(certificate, key, password=lambda: b"")
    return context
