"""The internal CA: certificates by which the edge knows an environment's VM, whatever address it has.

The worker alone holds the CA's key, in one file of mode 0600: the private key and its certificate, PEM. The edge gets
certificates only. No certificate request is needed: a VM's key is bound to its row, and every HELLO proves it.

    python -m stagely.vm_ca FILE      make a new CA in FILE, and print its certificate

A CA lives for a year. The next one is made in another file; the edges trust both while one takes the other's place.
docs/edge-routing.md has the steps.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.routes import VM_DOMAIN, vm_name

SETTING = "STAGELY_VM_CA_FILE"
CERTIFICATE_LIFE = timedelta(hours=24)  # Security notes, 5.1: what a VM's disk gives away ends with the day.
CA_LIFE = timedelta(days=365)
CA_ENDS_SOON = timedelta(days=30)  # From then on whoever looks says so, or makes the next one.
BACKDATE = timedelta(minutes=5)  # Clocks of our own machines may differ.


class VmCaInvalid(RuntimeError):
    """The CA's file is missing, open to others, over, or not as it must be. An operator must act."""


@dataclass(frozen=True, slots=True)
class Certified:
    """`certificate`: PEM, one. `ends_at`: after that no edge takes it."""

    certificate: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class _Pair:
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


class VmCa:
    """The CA of one file, as it was when it was last read. A file that changed is read again."""

    def __init__(self, path: Path) -> None:
        """Raises VmCaInvalid."""
        self._path = path
        self._version = _version(path)
        self._pair = _read(path)

    def ends_at(self) -> datetime:
        return self._pair.certificate.not_valid_after_utc

    def certify(self, public_key: str, environment: str, now: datetime) -> Certified:
        """That the machine with this Ed25519 key (32 bytes in hex) is the environment's VM, for a day from `now`.

        Raises:
            VmCaInvalid: the file changed and is not valid any more, or the CA has ended.
            ValueError: that is no key.
        """
        self._refresh()
        ca = self._pair.certificate
        if now >= ca.not_valid_after_utc:
            raise VmCaInvalid(
                f"{SETTING}={self._path}: this CA ended at {ca.not_valid_after_utc.isoformat()}. "
                "Make the next one: docs/edge-routing.md, The hop to the VM"
            )
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        ends_at = min(now + CERTIFICATE_LIFE, ca.not_valid_after_utc).replace(microsecond=0)
        leaf = (
            _begun(_name("Stagely preview VM"), ca.subject, now, ends_at)
            .public_key(key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(vm_name(environment))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._pair.key.public_key()), critical=False
            )
            .sign(self._pair.key, hashes.SHA256())
        )
        return Certified(_pem(leaf), ends_at)

    def _refresh(self) -> None:
        version = _version(self._path)
        if version != self._version:
            self._pair, self._version = _read(self._path), version


def new_ca(now: datetime) -> tuple[str, str]:
    """A new CA: the content of its file, and its certificate alone, both PEM.

    Whatever it signs for a name outside VM_DOMAIN is worth nothing: the certificate itself says so.
    """
    key = generate_private_key(SECP256R1())
    name = _name(f"Stagely preview VMs, {now:%Y-%m-%d}")
    made = (
        _begun(name, name, now, now + CA_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(VM_DOMAIN)], None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode() + _pem(made), _pem(made)


def write_ca(path: Path) -> str:
    """Make a new CA in this file, which must not be there yet. Its certificate, PEM. Raises OSError."""
    content, certificate = new_ca(datetime.now(UTC))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    return certificate


def _begun(subject: x509.Name, issuer: x509.Name, now: datetime, ends_at: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(ends_at)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _version(path: Path) -> tuple[int, int, int]:
    """What changes whenever the file is replaced or written. Raises VmCaInvalid."""
    found = _stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise VmCaInvalid(f"{SETTING}={path} cannot be read: {error.strerror}") from error


def _read(path: Path) -> _Pair:
    mode = stat.S_IMODE(_stat(path).st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise VmCaInvalid(
            f"{SETTING}={path} has mode {mode:04o}: others than its owner get at it. Run: chmod 600 {path}"
        )
    try:
        content = path.read_bytes()
        key = serialization.load_pem_private_key(content, None)
        certificate = x509.load_pem_x509_certificate(content)
    except (OSError, ValueError, TypeError) as error:
        # The library's own words may show what stands in the file.
        raise VmCaInvalid(
            f"{SETTING}={path} must hold a private key and its CA certificate, PEM ({type(error).__name__}). "
            f"Make one: python -m stagely.vm_ca FILE"
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise VmCaInvalid(f"{SETTING}={path}: the certificate is not that of the key beside it")
    return _Pair(key, certificate)


def main() -> int:
    """Exit code 2 when the file is there already or cannot be written."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("python -m stagely.vm_ca FILE: make a new CA in FILE (mode 0600) and print its certificate")
        return 2
    try:
        print(write_ca(Path(sys.argv[1])), end="")
    except OSError as error:
        print(f"{sys.argv[1]} cannot be made: {error.strerror}. Name a new file.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
