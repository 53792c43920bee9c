"""The CA of one installation's preview VMs: made at the first start, and followed by the next one before it ends."""

from __future__ import annotations

from datetime import UTC, datetime

from stagely.dev.folder import StateFolder, write_private
from stagely.dev.refusal import StartFailed


def ensure_vm_ca(folder: StateFolder, now: datetime | None = None) -> None:
    """Make what is missing or ends soon; VMs that an older CA certified stay trusted as long as that one lasts.

    Raises StartFailed when there is one that cannot be read.
    """
    from stagely.vm_ca import CA_ENDS_SOON, VmCa, VmCaInvalid, new_ca  # Imports for 0.1 s, beside the other starts.

    now = now or datetime.now(UTC)
    try:
        is_there = folder.vm_ca.exists() and folder.vm_ca_trusted.exists()
        if is_there and VmCa(folder.vm_ca).ends_at() - now > CA_ENDS_SOON:
            return
    except VmCaInvalid as error:
        raise StartFailed(f"the CA of preview VMs cannot be used: {error}") from error
    content, certificate = new_ca(now)
    # First what the edge reads: it must know the CA by the time that one signs.
    write_private(folder.vm_ca_trusted, certificate + _living(folder, now), mode=0o644)
    write_private(folder.vm_ca, content)


def _living(folder: StateFolder, now: datetime) -> str:
    """The certificates that were trusted so far and have not ended, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if not folder.vm_ca_trusted.exists():
        return ""
    try:
        known = x509.load_pem_x509_certificates(folder.vm_ca_trusted.read_bytes())
    except ValueError as error:
        remedy = "remove it, and previews come back with their next certificates"
        raise StartFailed(f"{folder.vm_ca_trusted} must hold certificates, PEM ({error}); {remedy}") from error
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in known if one.not_valid_after_utc > now)
