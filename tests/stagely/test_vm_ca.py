"""The internal CA of preview VMs."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.routes import vm_name
from stagely.vm_ca import CERTIFICATE_LIFE, VmCa, VmCaInvalid, new_ca, write_ca

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    (tmp_path / "ca.crt").write_text(write_ca(path))
    return path


def public_key() -> str:
    raw = Ed25519PrivateKey.generate().public_key()
    return raw.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def openssl_says(folder: Path, certificate: str, name: str, *arguments: str) -> str:
    """What OpenSSL's own verification says of this certificate, as a server's."""
    (folder / "leaf.crt").write_text(certificate)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", name, *arguments]
    done = subprocess.run(
        [*command, "-CAfile", str(folder / "ca.crt"), str(folder / "leaf.crt")], capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_certificate_is_the_named_environments_for_a_day(ca_file: Path) -> None:
    made = VmCa(ca_file).certify(public_key(), "env-1", NOW)

    assert made.ends_at == NOW + CERTIFICATE_LIFE
    assert openssl_says(ca_file.parent, made.certificate, vm_name("env-1")).endswith(": OK\n")


def test_a_certificate_is_no_other_environments(ca_file: Path) -> None:
    made = VmCa(ca_file).certify(public_key(), "env-1", NOW)

    assert "hostname mismatch" in openssl_says(ca_file.parent, made.certificate, vm_name("env-2"))


def test_a_certificate_is_worth_nothing_a_day_later(ca_file: Path) -> None:
    made = VmCa(ca_file).certify(public_key(), "env-1", NOW)
    later = str(int((NOW + timedelta(hours=24, seconds=1)).timestamp()))

    said = openssl_says(ca_file.parent, made.certificate, vm_name("env-1"), "-attime", later)

    assert "certificate has expired" in said


def test_what_the_ca_signs_for_another_domain_is_refused(ca_file: Path) -> None:
    content = ca_file.read_bytes()
    ca = x509.load_pem_x509_certificate(content)
    key = Ed25519PrivateKey.generate()
    foreign = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example")]), critical=True)
        .sign(serialization.load_pem_private_key(content, None), hashes.SHA256())  # type: ignore[arg-type]
    )

    said = openssl_says(ca_file.parent, foreign.public_bytes(serialization.Encoding.PEM).decode(), "shop.example")

    assert "permitted subtree violation" in said


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    content, _ = new_ca(NOW - timedelta(days=364, hours=20))
    path = tmp_path / "old.pem"
    path.touch(0o600)
    path.write_text(content)

    made = VmCa(path).certify(public_key(), "env-1", NOW)

    assert made.ends_at == NOW + timedelta(hours=4)


def test_a_ca_that_has_ended_certifies_nobody(tmp_path: Path) -> None:
    content, _ = new_ca(NOW - timedelta(days=365))
    path = tmp_path / "old.pem"
    path.touch(0o600)
    path.write_text(content)

    with pytest.raises(VmCaInvalid, match="this CA ended at"):
        VmCa(path).certify(public_key(), "env-1", NOW)


def test_a_ca_that_took_the_others_place_signs_the_next_certificate(ca_file: Path) -> None:
    ca = VmCa(ca_file)
    write_ca(ca_file.with_name("next.pem"))
    next_one = x509.load_pem_x509_certificate(ca_file.with_name("next.pem").read_bytes())

    ca_file.with_name("next.pem").replace(ca_file)
    made = x509.load_pem_x509_certificate(ca.certify(public_key(), "env-1", NOW).certificate.encode())

    made.verify_directly_issued_by(next_one)


def test_a_file_that_others_can_read_is_refused(ca_file: Path) -> None:
    ca_file.chmod(0o640)

    with pytest.raises(VmCaInvalid, match="has mode 0640"):
        VmCa(ca_file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VmCaInvalid, match=r"STAGELY_VM_CA_FILE=.*/none cannot be read: No such file"):
        VmCa(tmp_path / "none")


def test_a_key_beside_another_ones_certificate_is_refused(ca_file: Path) -> None:
    key = ca_file.read_text().partition("-----BEGIN CERTIFICATE")[0]
    ca_file.write_text(key + new_ca(NOW)[1])

    with pytest.raises(VmCaInvalid, match="not that of the key beside it"):
        VmCa(ca_file)


def test_a_file_that_is_no_ca_is_refused_without_showing_it(ca_file: Path) -> None:
    ca_file.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")

    with pytest.raises(VmCaInvalid, match="must hold a private key") as refused:
        VmCa(ca_file)

    assert "c2VjcmV0" not in str(refused.value)


def test_the_command_makes_a_ca_for_its_owner_alone_and_prints_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"

    done = subprocess.run(
        [sys.executable, "-m", "stagely.vm_ca", str(path)], capture_output=True, text=True, timeout=60, check=True
    )

    assert os.stat(path).st_mode & 0o777 == 0o600
    assert path.read_text().endswith(done.stdout)
    assert ssl.PEM_cert_to_DER_cert(done.stdout)


def test_the_command_never_replaces_a_ca(ca_file: Path) -> None:
    before = ca_file.read_text()

    done = subprocess.run(
        [sys.executable, "-m", "stagely.vm_ca", str(ca_file)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, ca_file.read_text()) == (2, before)
    assert "File exists" in done.stderr
