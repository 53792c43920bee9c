"""The folder of the installation's certificate: its keys, what the edge reads of it, and what of us is in the DNS.

`certificate.pem`     the newest certificate: its key, itself, its chain; for STAGELY_TLS_CERT and STAGELY_TLS_KEY alike
`account.pem`         the key of our account at the certificate authority
`next-key.pem`        the key of a certificate that is being ordered
`challenges.json`     TXT values that are in the DNS now, or may be

All are for their owner only, and each is replaced in one step: key and certificate are one file so that nobody ever
reads a pair that does not fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from stagely.txt import TxtRecord

RENEWAL_SHARE = 1 / 3  # Of a certificate's life. Let's Encrypt: letsencrypt.org/docs/integration-guide, 90 and 6 days.


@dataclass(frozen=True, slots=True)
class Validity:
    """Of a certificate, in Unix seconds, and the DNS names that it is for."""

    begins_at: float
    ends_at: float
    names: frozenset[str]

    @property
    def renew_at(self) -> float:
        return self.ends_at - (self.ends_at - self.begins_at) * RENEWAL_SHARE


def names_of(domain: str) -> tuple[str, str]:
    """What the certificate of an installation is for: the domain, and every preview below it."""
    return domain, f"*.{domain}"


class CertificateFolder:
    """Made when it is first written to. Several processes of one machine may have it, one of them writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def certificate(self) -> Path:
        return self.path / "certificate.pem"

    def validity(self) -> Validity | None:
        """Of the certificate that is here; None when there is none that can be read."""
        try:
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            names = found.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
            return None
        assert isinstance(names, x509.SubjectAlternativeName)
        return Validity(
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
            frozenset(names.get_values_for_type(x509.DNSName)),
        )

    def account_key(self) -> bytes:
        """PEM. Made at first, and then kept: the authority knows us by it."""
        return self._key("account.pem")

    def next_key(self) -> bytes:
        """PEM. The same until a certificate for it is installed, so that an order can be finished after a crash."""
        return self._key("next-key.pem")

    def install(self, chain: str) -> Validity:
        """Make this chain and the next key what the edge reads, and be done with the order.

        Raises ValueError when the chain is not of that key: nothing is changed then. Again: nothing changes.
        """
        chain_bytes = chain.encode()
        leaf = x509.load_pem_x509_certificate(chain_bytes)
        if not self._is_installed(leaf):
            key = self.next_key()
            if _public(serialization.load_pem_private_key(key, None)) != _public(leaf):
                raise ValueError("the certificate is of another key than the one in next-key.pem")
            self._write("certificate.pem", key + chain_bytes)
        (self.path / "next-key.pem").unlink(missing_ok=True)
        found = self.validity()
        assert found is not None
        return found

    def challenges(self) -> tuple[TxtRecord, ...]:
        """What may be in the DNS."""
        try:
            listed = json.loads((self.path / "challenges.json").read_bytes())
        except FileNotFoundError:
            return ()
        return tuple(TxtRecord(one["name"], one["value"]) for one in listed)

    def note_challenges(self, records: Collection[TxtRecord]) -> None:
        """Before they are put there, and after they were removed."""
        self._write("challenges.json", json.dumps([asdict(record) for record in records]).encode())

    def _is_installed(self, leaf: x509.Certificate) -> bool:
        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes()) == leaf
        except (FileNotFoundError, ValueError):
            return False

    def _key(self, name: str) -> bytes:
        """P-256: every browser takes it, and signing with it costs an edge a tenth of what RSA costs."""
        path = self.path / name
        if not path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            self._write(name, made.private_bytes(*form))
        return path.read_bytes()

    def _write(self, name: str, content: bytes) -> None:
        """All or nothing, also when the power fails: a certificate is one of few per week."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path / f".{name}.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)
        _sync_folder(self.path)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _public(holder: object) -> bytes:
    assert isinstance(holder, x509.Certificate | ec.EllipticCurvePrivateKey)
    key = holder.public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
