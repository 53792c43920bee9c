"""The state folder of one installation: what is where, who may read it, and that only one `stagely dev` uses it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stagely.dev.ports import DEFAULT_BASE
from stagely.dev.refusal import Refused
from stagely.ids import ALPHABET
from stagely.keyring import new_line

FORMAT = 1  # Raised when an older `stagely dev` could not use what a newer one wrote, or the other way round.
NEEDED_BYTES = 2 * 1024**3  # Images of a few builds and the write-ahead log; a full disk stops Postgres mid-way.
INSTALLATION_LENGTH = 8


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths below one state folder. Nothing is made or read before `open`."""

    root: Path

    @property
    def dev_json(self) -> Path:
        return self.root / "dev.json"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def github_token(self) -> Path:
        return self.root / "github-token"

    @property
    def webhook_secret(self) -> Path:
        return self.root / "webhook-secret"

    @property
    def signing_key(self) -> Path:
        return self.root / "signing-key"

    @property
    def encryption_key(self) -> Path:
        """Keys of what Temporal stores: see `stagely.keyring`."""
        return self.root / "encryption-key"

    @property
    def codec_token(self) -> Path:
        """The part of the codec server's path that nobody can guess."""
        return self.root / "codec-token"

    @property
    def app_key(self) -> Path:
        """Private key of the GitHub App that the local forge knows; `app_public_key` is its other half."""
        return self.root / "github-app-key.pem"

    @property
    def app_public_key(self) -> Path:
        return self.root / "github-app-key.pub.pem"

    @property
    def vm_ca(self) -> Path:
        """Key and certificate of the CA of preview VMs; `vm_ca_trusted` has the certificates that the edge trusts."""
        return self.root / "vm-ca.pem"

    @property
    def vm_ca_trusted(self) -> Path:
        return self.root / "vm-ca.crt"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def vms(self) -> Path:
        return self.root / "vms"

    @property
    def network(self) -> Path:
        """Subnet and gateway of the VM network, so that it gets the same address again."""
        return self.root / "network.json"

    def port_base(self, asked: int | None) -> int:
        """The first port: what is asked for now, or what was used the last time, or the usual one."""
        remembered = self.root / "port-base"
        if asked is None:
            return int(remembered.read_text()) if remembered.exists() else DEFAULT_BASE
        return asked

    def remember_port_base(self, base: int) -> None:
        """Agents of running previews dial these ports: the next start should listen there again."""
        (self.root / "port-base").write_text(f"{base}\n")

    def installation(self) -> str:
        """The id on everything this installation makes. Raises OSError when the folder was never opened."""
        return (self.root / "installation").read_text().strip()

    def open(self) -> str:
        """Make what is missing and return the installation's id. Again: everything stays as it is.

        Raises:
            Refused: the folder cannot be written, is of another version, or its disk is full.
        """
        try:
            return self._open()
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> Refused:
        return Refused(
            f"The state folder {self.root} cannot be used: {error.strerror}. "
            "Choose another one: stagely dev --state DIR"
        )

    def _open(self) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        self._refuse_full_disk()
        self._refuse_other_format()
        for folder in (self.logs, self.vms):
            folder.mkdir(exist_ok=True)
        self.vms.chmod(0o700)  # The user-data of VMs holds their enrolment tokens.
        for path in (self.token, self.github_token, self.webhook_secret, self.signing_key, self.codec_token):
            _write_once(path, lambda: secrets.token_hex(32))
        _write_once(self.encryption_key, lambda: new_line("k1"))
        _write_once(self.root / "installation", _new_installation, mode=0o644)
        return self.installation()

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.root).free
        if free < NEEDED_BYTES:
            raise Refused(
                f"The disk of {self.root.resolve()} has {free / 1024**3:.1f} GB free and Stagely needs "
                f"{NEEDED_BYTES // 1024**3}. Free some (make clean removes what setup made), "
                "or choose a folder on another disk: --state DIR"
            )

    def _refuse_other_format(self) -> None:
        marker = self.root / "format"
        if not marker.exists():
            marker.write_text(f"{FORMAT}\n")
        found = marker.read_text().strip()
        if found != str(FORMAT):
            raise Refused(
                f"The state in {self.root} was written by another version of Stagely (format {found}, this one reads "
                f"{FORMAT}). Use that version, remove it with stagely clean --state {self.root}, "
                "or choose another folder: --state DIR"
            )

    def holder(self) -> int | None:
        """Process id of the `stagely dev` that holds this folder, or None."""
        try:
            with (self.root / "lock").open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return int((self.root / "lock").read_text() or 0) or None
        return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder until the block ends or this process dies. Raises Refused when another one holds it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / "lock").open("a+")
        except OSError as error:
            raise self._unusable(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Refused(
                    f"Another stagely dev (process {file.read().strip() or 'unknown'}) runs on {self.root}. "
                    "Use that one, stop it, or choose another folder and ports: "
                    "stagely dev --state DIR --port-base 9000"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)


def make_app_key(folder: StateFolder) -> None:
    """Write the RSA key pair of the local GitHub App. There already: nothing happens.

    RSA because GitHub signs Apps' tokens with RS256 only.
    """
    if folder.app_key.exists() and folder.app_public_key.exists():
        return
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    write_private(folder.app_key, private.decode())
    write_private(folder.app_public_key, public.decode(), mode=0o644)


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace `path` at once with `text`, never readable by others in between and never half written."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    draft.replace(path)


def write_json(path: Path, value: object) -> None:
    """`value` as JSON, in one step, for its owner only."""
    write_private(path, json.dumps(value, indent=2) + "\n")


def _write_once(path: Path, make: Callable[[], str], mode: int = 0o600) -> None:
    if not path.exists():
        write_private(path, make() + "\n", mode)


def _new_installation() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(INSTALLATION_LENGTH))
