"""Enrolment tokens: what a new VM's agent shows the gateway once, before its own key is bound to the VM's row.

A JWT signed with Ed25519. The key is made from the 32 bytes of the signing key file, and Ed25519 signs
deterministically: the same VM, time and lifetime give the same token, so a repeated order renders the same user-data.
"""

from __future__ import annotations

from datetime import UTC, datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ENROLMENT_TTL_S = 30 * 60.0  # From the VM's creation on: enough for the slowest boot, too short to be worth stealing.
ISSUER = "stagely"
AUDIENCE = "stagely-agent"
KIND = "enrolment"
LEEWAY_S = 30  # Clocks of our own machines may differ by this much.
_ALGORITHM = "EdDSA"


class TokenRefused(Exception):
    """A token that opens nothing. `code`: token_expired or token_invalid."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class EnrolmentTokens:
    """Signs and checks tokens with one installation's key."""

    def __init__(self, key_hex: str) -> None:
        """`key_hex`: 32 random bytes as hex. Raises ValueError that does not show them."""
        try:
            seed = bytes.fromhex(key_hex)
            self._key = Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError:
            raise ValueError(
                f"the signing key must be 64 hex digits (32 bytes), got {len(key_hex)} characters. "
                "Make one with `openssl rand -hex 32`."
            ) from None
        self._public = self._key.public_key()

    def mint(self, vm_id: str, issued_at: float, ttl_s: float = ENROLMENT_TTL_S) -> str:
        """The token of one VM. `issued_at` in Unix seconds, cut to whole ones. Same arguments, same token."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": vm_id,
            "kind": KIND,
            "iat": int(issued_at),
            "exp": int(issued_at + ttl_s),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def verify(self, token: str, now: float) -> str:
        """The vm_id that `token` was minted for. Raises TokenRefused."""
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # The time is checked below against the given clock, not against this machine's.
                options={"require": ["exp", "iat", "sub"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise TokenRefused("token_invalid", f"the enrolment token is not ours ({error})") from error
        if claims.get("kind") != KIND:
            raise TokenRefused("token_invalid", "the token is not an enrolment token")
        if now > claims["exp"] + LEEWAY_S:
            expired = datetime.fromtimestamp(claims["exp"], UTC).isoformat()
            raise TokenRefused("token_expired", f"the enrolment token expired at {expired}")
        return str(claims["sub"])
