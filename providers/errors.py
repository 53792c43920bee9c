"""What clouds, DNS providers and certificate authorities can answer, in one tree.

Each adapter translates its own errors into these and raises nothing else.

ProviderError (a stagely.errors.StagelyError)
|- CredentialsRejected   401, 403, revoked key                      OPERATOR
|- QuotaExceeded         the account is full                        OPERATOR, retryable for a while: others leave
|- NoCapacity            this size is sold out here now             OPERATOR, try another size or zone
|- VmRejected            the order itself is wrong (size, region)   USER
|- DnsRejected           no such zone, or a name outside of it      OPERATOR
|- AuthorityRefused      the certificate authority says no          OPERATOR
|- AuthorityBusy         it says: later                             OPERATOR, retryable
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


class DnsRejected(ProviderError):
    code = "dns_rejected"


class AuthorityRefused(ProviderError):
    """This order will not become a certificate: a check failed, or a policy forbids it. A new one may."""

    code = "authority_refused"


class AuthorityBusy(ProviderError):
    """A rate limit or an outage of the certificate authority; `retry_after_s` is what it asked for."""

    code = "authority_busy"
    retryable = True


class ProviderUnavailable(ProviderError):
    code = "provider_unavailable"
    retryable = True
