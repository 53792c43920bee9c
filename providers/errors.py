"""What a cloud can answer, in one tree; each provider translates its own errors into these and nothing else.

ProviderError (a stagely.errors.StagelyError)
|- CredentialsRejected   401, 403, revoked key                      OPERATOR
|- QuotaExceeded         the account is full                        OPERATOR, retryable for a while: others leave
|- NoCapacity            this size is sold out here now             OPERATOR, try another size or zone
|- VmRejected            the order itself is wrong (size, region)   USER
`- ProviderUnavailable   5xx, time-out, rate limit                  OPERATOR, retryable
"""

from __future__ import annotations

from stagely.errors import Actor, StagelyError


class ProviderError(StagelyError):
    code = "provider_error"
    actor = Actor.OPERATOR


class CredentialsRejected(ProviderError):
    code = "credentials_rejected"


class QuotaExceeded(ProviderError):
    """The text names the quota. It is asked for again every minute while the order waits (`create_limit_s`)."""

    code = "quota_exceeded"
    retryable = True
    default_retry_s = 60.0


class NoCapacity(ProviderError):
    code = "no_capacity"


class VmRejected(ProviderError):
    code = "vm_rejected"
    actor = Actor.USER


class ProviderUnavailable(ProviderError):
    code = "provider_unavailable"
    retryable = True
