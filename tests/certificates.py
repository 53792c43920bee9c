"""Identities of preview VMs for tests: a CA of the test's own, and machines it certified."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.certificate import Certificate
from agent.protocol import Certify, Outcome
from stagely.vm_ca import VmCa, write_ca


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA and the file of certificates that an edge would trust."""

    folder: Path
    name: str = "ca"

    @property
    def key_file(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @property
    def trusted(self) -> Path:
        return self.folder / f"{self.name}.crt"

    def certify(self, public_key: str, environment: str, now: datetime | None = None) -> str:
        return VmCa(self.key_file).certify(public_key, environment, now or datetime.now(UTC)).certificate

    def client(self) -> ssl.SSLContext:
        """What an edge would connect with."""
        return ssl.create_default_context(cafile=str(self.trusted))


def new_authority(folder: Path, name: str = "ca") -> Authority:
    made = Authority(folder, name)
    made.trusted.write_text(write_ca(made.key_file))
    return made


@dataclass(frozen=True, slots=True)
class Machine:
    """The state folder of an agent, with its key."""

    state_dir: Path
    certificate: Certificate

    def public_key(self) -> str:
        argv = ["openssl", "pkey", "-in", str(self.state_dir / "agent.key"), "-pubout", "-outform", "DER"]
        key = serialization.load_der_public_key(
            subprocess.run(argv, capture_output=True, timeout=20, check=True).stdout
        )
        assert isinstance(key, Ed25519PublicKey)
        return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()

    def is_certified(self, by: Authority, environment: str, now: datetime | None = None) -> bool:
        """Let the agent install a certificate for its key. Whether it did."""
        order = Certify("certify-1", by.certify(self.public_key(), environment, now))
        return self.certificate.install(order).outcome is Outcome.SUCCEEDED


def new_machine(state_dir: Path) -> Machine:
    """As an agent that has started once."""
    state_dir.mkdir(mode=0o700)
    argv = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(state_dir / "agent.key")]
    subprocess.run(argv, capture_output=True, timeout=20, check=True)
    return Machine(state_dir, Certificate(state_dir))


def certified_machine(state_dir: Path, by: Authority, environment: str, now: datetime | None = None) -> Machine:
    made = new_machine(state_dir)
    assert made.is_certified(by, environment, now)
    return made
