"""Who asks, and what they may: the App by its JWT, an installation by its token, the person by the admin token."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import jwt

from stagely.dev.forge.config import ForgeConfig
from stagely.dev.forge.refusal import Refused, not_found
from stagely.dev.forge.rows import Grant, Repository
from stagely.dev.forge.store import Store

JWT_LIFE_S = 600.0  # GitHub docs: an App's JWT ends at most 10 minutes from now.
CLOCK_SKEW_S = 60.0
APP_PERMISSIONS = {"contents": "read", "metadata": "read", "pull_requests": "write", "statuses": "write"}


@dataclass(frozen=True, slots=True)
class Asker:
    """`is_person`: holds the admin token and may do everything; `is_app`: signed a JWT; else `grant` says."""

    is_person: bool = False
    is_app: bool = False
    grant: Grant | None = None

    @property
    def is_installation(self) -> bool:
        return self.grant is not None

    def require(self, repository: Repository, permission: str, level: str) -> None:
        """Raises Refused: 401 for an App without installation token, 404 for a foreign repository, else 403."""
        if self.is_person:
            return
        if self.grant is None:
            raise Refused(401, "Requires authentication")
        if self.grant.repository_ids is not None and repository.id not in self.grant.repository_ids:
            raise not_found()
        held = self.grant.permissions.get(permission, "")
        if held != "write" and held != level:
            raise Refused(403, "Resource not accessible by integration")


class Access:
    """Checks credentials and hands out installation tokens."""

    def __init__(self, config: ForgeConfig, store: Store, now: Callable[[], float]) -> None:
        self._config = config
        self._store = store
        self._now = now

    def identify(self, authorization: str | None) -> Asker:
        """Raises Refused 401 for none, an unknown or an ended credential."""
        scheme, _, value = (authorization or "").partition(" ")
        value = value.strip()
        match scheme.lower():
            case "bearer" if value.count(".") == 2:
                return self._app(value)
            case "bearer" | "token":
                return self._holder(value)
            case "basic":
                return self._holder(_password(value))
        raise Refused(401, "Requires authentication")

    def _app(self, signed: str) -> Asker:
        try:
            claims = jwt.decode(
                signed,
                self._config.app_public_key,
                algorithms=["RS256"],
                options={"require": ["iat", "exp", "iss"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise Refused(401, "A JSON web token could not be decoded") from error
        now = self._now()
        if str(claims["iss"]) != str(self._config.app_id):
            raise Refused(401, "'Issuer' claim ('iss') must be an Integer or this App's client ID")
        if claims["exp"] <= now:
            raise Refused(401, "'Expiration time' claim ('exp') must be a numeric value representing the future time")
        if claims["exp"] > now + JWT_LIFE_S + CLOCK_SKEW_S:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        if claims["iat"] > now + CLOCK_SKEW_S:
            raise Refused(401, "'Issued at' claim ('iat') must be an Integer representing the time in the past")
        return Asker(is_app=True)

    def _holder(self, token: str) -> Asker:
        if hmac.compare_digest(token.encode(), self._config.admin_token.encode()):
            return Asker(is_person=True)
        grant = self._store.grant(token)
        if grant is None:
            raise Refused(401, "Bad credentials")
        return Asker(grant=grant)

    def sell(self, permissions: dict[str, str] | None, repositories: list[Repository] | None) -> tuple[str, Grant]:
        """A new installation token; None asks for all that the App has. Raises Refused 422 for more than that."""
        wanted = dict(permissions) if permissions is not None else dict(APP_PERMISSIONS)
        for name, level in wanted.items():
            if level not in ("read", "write") or APP_PERMISSIONS.get(name, "") not in (level, "write"):
                raise Refused(422, "The permissions requested are not granted to this installation.")
        ids = None if repositories is None else tuple(r.id for r in repositories)
        # GitHub gives whole seconds, and always the right to read metadata.
        expires_at = float(int(self._now() + self._config.token_ttl_s))
        grant = Grant(expires_at, {"metadata": "read", **wanted}, ids)
        token = "ghs_" + secrets.token_hex(18)
        self._store.add_token(token, grant)
        return token, grant


def _password(encoded: str) -> str:
    """The password of HTTP basic authentication; GitHub ignores the user name beside a token."""
    try:
        return base64.b64decode(encoded).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refused(401, "Bad credentials") from error
