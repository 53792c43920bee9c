"""What this agent proves itself with: an Ed25519 key of its own, and a session that changes with every Welcome.

Both are files in the state folder, written whole and durably before anything is said that depends on them. The key is
made by /usr/bin/openssl, which every image has (3.0 or newer: `pkeyutl -rawin`), and never leaves this machine.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

from agent.files import read_text, write_private
from agent.protocol import Hello, signed_bytes
from agent.run import Program, TookTooLong, run
from agent.session import Credential

OPENSSL = "/usr/bin/openssl"
OPENSSL_TIMEOUT_S = 10.0  # It takes 5 ms; a machine that boots or builds takes its time.
SESSION_FILE = "session.json"
KEY_FILE = "agent.key"
SECRET_BYTES = 32
SIGNATURE_BYTES = 64
_PUBLIC_HEAD = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 section 4: what precedes the key's 32 bytes.
_PUBLIC_BYTES = 32
_SECRET = re.compile(r"[0-9a-f]{64}\Z")

log = logging.getLogger("stagely.agent.identity")


class IdentityError(Exception):
    """The agent cannot say who it is now; it is tried again with every dial. The text says what is in the way."""


class CredentialStore:
    """The key and the session of one machine. `open` comes first."""

    def __init__(self, state_dir: Path, run_dir: Path, openssl: str = OPENSSL) -> None:
        self._key = state_dir / KEY_FILE
        self._session = state_dir / SESSION_FILE
        self._message = run_dir / "hello.unsigned"
        self._openssl = openssl
        self._current: Credential | None = None

    @property
    def current(self) -> Credential:
        """What the next Hello shows."""
        assert self._current is not None
        return self._current

    async def open(self) -> None:
        """Read what there is and make what there is not; again: nothing. Raises IdentityError."""
        if self._current is not None:
            return
        try:
            public_key = await self._public_key()
            kept = kept_session(self._session.parent)
            self._current = Credential(public_key, *kept) if kept else self._begun(public_key)
        except OSError as error:
            raise IdentityError(
                f"{self._key.parent} cannot be used ({error}): the key and session are kept there"
            ) from error

    async def signed(self, hello: Hello, nonce: str) -> Hello:
        """The same Hello with its signature for the connection that was given `nonce`. Raises IdentityError."""
        # Ed25519 needs all of a message at once: openssl 3.0 takes it from a file only, never from a pipe.
        try:
            write_private(self._message, signed_bytes(hello, nonce).decode())
            signature = await self._ask(
                "pkeyutl", "-sign", "-inkey", str(self._key), "-rawin", "-in", str(self._message)
            )
        except OSError as error:
            raise IdentityError(f"{self._message} cannot be written ({error}): openssl signs files only") from error
        finally:
            self._message.unlink(missing_ok=True)
        if len(signature) != SIGNATURE_BYTES:
            raise IdentityError(
                f"{self._openssl} made a signature of {len(signature)} bytes, {self._key} is no Ed25519 key"
            )
        return replace(hello, signature=signature.hex())

    def rotate(self) -> None:
        """A Welcome came: the next Hello shows the session that the last one announced.

        On a full disk everything stays as it is: the core takes the last Hello's session again, any number of times.
        It blocks for as long as the disk takes, so that nothing can come between the file and what it says.
        """
        renewed = replace(self.current, session=self.current.next_session, next_session=_fresh())
        try:
            self._keep(renewed)
        except OSError as error:
            log.warning("the session is not renewed, %s cannot be written: %s", self._session, error)
            return
        self._current = renewed

    def _begun(self, public_key: str) -> Credential:
        first = Credential(public_key, "", _fresh())
        self._keep(first)
        return first

    def _keep(self, credential: Credential) -> None:
        kept = {"session": credential.session, "next_session": credential.next_session}
        write_private(self._session, json.dumps(kept), is_durable=True)

    async def _public_key(self) -> str:
        if not self._key.exists():
            made = await self._ask("genpkey", "-algorithm", "ed25519")
            write_private(self._key, made.decode(), is_durable=True)
        der = await self._ask("pkey", "-in", str(self._key), "-pubout", "-outform", "DER")
        if not der.startswith(_PUBLIC_HEAD) or len(der) != len(_PUBLIC_HEAD) + _PUBLIC_BYTES:
            raise IdentityError(f"{self._key} is no Ed25519 key: destroy this VM, it cannot speak again")
        return der.removeprefix(_PUBLIC_HEAD).hex()

    async def _ask(self, *arguments: str) -> bytes:
        """What openssl writes. Raises IdentityError."""
        out, err = bytearray(), bytearray()
        try:
            program = Program((self._openssl, *arguments), OPENSSL_TIMEOUT_S)
            exit_code = await run(program, out.extend, err.extend)
        except OSError as error:
            raise IdentityError(
                f"{self._openssl} cannot be run ({error.strerror}): install openssl 3.0 or newer"
            ) from error
        except TookTooLong as error:
            raise IdentityError(str(error)) from error
        if exit_code or not out:
            said = err.decode(errors="replace").strip().partition("\n")[0][:200]
            raise IdentityError(f"`{self._openssl} {arguments[0]}` ended with {exit_code}: {said or 'it said nothing'}")
        return bytes(out)


def kept_session(state_dir: Path) -> tuple[str, str] | None:
    """The session on disk and the one to follow it; the first is "" until the core has let this agent in.

    Raises IdentityError.
    """
    path = state_dir / SESSION_FILE
    try:
        text = read_text(path)
        if text is None:
            return None
        kept = json.loads(text)
        session, next_session = kept["session"], kept["next_session"]
        if not (_SECRET.match(next_session) and (session == "" or _SECRET.match(session))):
            raise ValueError("no 64 hex digits")
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{path} is damaged ({error}): destroy this VM, it cannot speak again") from error
    return session, next_session


def _fresh() -> str:
    return os.urandom(SECRET_BYTES).hex()
