"""Domain errors of the control plane, and who can act on each.

StagelyError (code, retryable, actor)
|- SpecInvalid          stagely.yaml or a Compose file says something we cannot take       USER
|- NotFound             no such project, environment, repository or commit                 USER
|- Conflict             the thing is in a state that forbids this                          USER
|- Unauthorized         no token, or a token that is not valid                             USER
|- Unavailable          a part of the control plane did not answer: Postgres, Temporal  OPERATOR, retryable
|- GitHubUnavailable    GitHub did not answer, or answered 5xx or a rate limit             OPERATOR, retryable
|- GitHubRefused        GitHub answered 4xx: a missing permission, a revoked installation  OPERATOR
|- NoSlot               as many builds run as may; this one waits for its turn                US, retryable
|- RegistryUnavailable  the image registry did not answer                                  OPERATOR, retryable
|- RegistryRefused      the image registry answered 4xx                                    OPERATOR
`- ProviderError        see providers/errors.py

activities/failures.py turns them into Temporal failures; api/problems.py into problem JSON. Nobody else translates.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Actor(enum.StrEnum):
    """Who can do something about an error."""

    USER = "user"
    OPERATOR = "operator"
    US = "us"


class StagelyError(Exception):
    """Base: the text says what happened, with which value, and what to do."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    actor: ClassVar[Actor] = Actor.US
    default_retry_s: ClassVar[float | None] = None

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = self.default_retry_s if retry_after_s is None else retry_after_s


class SpecInvalid(StagelyError):
    code = "spec_invalid"
    actor = Actor.USER


class NotFound(StagelyError):
    code = "not_found"
    actor = Actor.USER


class Conflict(StagelyError):
    code = "conflict"
    actor = Actor.USER


class Unauthorized(StagelyError):
    code = "unauthorized"
    actor = Actor.USER


class Unavailable(StagelyError):
    code = "unavailable"
    retryable = True
    actor = Actor.OPERATOR


class GitHubUnavailable(StagelyError):
    code = "github_unavailable"
    retryable = True
    actor = Actor.OPERATOR


class GitHubRefused(StagelyError):
    code = "github_refused"
    actor = Actor.OPERATOR


class NoSlot(StagelyError):
    code = "no_slot"
    retryable = True


class RegistryUnavailable(StagelyError):
    code = "registry_unavailable"
    retryable = True
    actor = Actor.OPERATOR


class RegistryRefused(StagelyError):
    code = "registry_refused"
    actor = Actor.OPERATOR
