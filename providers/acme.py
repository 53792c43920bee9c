"""A certificate authority that speaks ACME, by certbot's own library, which is synchronous: each call is a thread's.

Source: RFC 8555; RFC 8738 and DNS names alone. Let's Encrypt's limits: letsencrypt.org/docs/rate-limits.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from providers.authority import PlacedOrder
from providers.errors import AuthorityBusy, AuthorityRefused, ProviderError
from stagely.retry_after import seconds_of
from stagely.txt import TxtRecord

CALL_LIMIT_S = 30
FINISH_LIMIT_S = 180.0  # Checks from several places, and the signing. The order goes on without us.
RATE_LIMIT_WAIT_S = 3600.0  # Of an authority that says "too often" and not for how long.
_PASSING = ("rateLimited", "serverInternal", "badNonce", "orderNotReady")
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

T = TypeVar("T")


class AcmeAuthority:
    """One account, made at the first order; ordering means that its user agrees to the authority's terms.

    `account_key` gives the account's EC P-256 key as PEM. `profile` is the authority's name for a kind of certificate
    ("shortlived"), "" for its default. Trusted roots of the authority's own TLS: REQUESTS_CA_BUNDLE, else certifi's.
    """

    def __init__(self, directory: str, email: str, profile: str, account_key: Callable[[], bytes]) -> None:
        self._directory = directory
        self._email = email
        self._profile = profile
        self._account_key = account_key

    async def place(self, names: Sequence[str], key: bytes) -> PlacedOrder:
        def work(line: _Line) -> PlacedOrder:
            order = line.client.new_order(crypto_util.make_csr(key, list(names)), self._profile or None)
            return PlacedOrder(order.uri, tuple(line.record(one) for one in order.authorizations if _is_pending(one)))

        return await asyncio.to_thread(self._answered, work)

    async def finish(self, url: str, names: Sequence[str], key: bytes) -> str:
        def work(line: _Line) -> str:
            deadline = datetime.datetime.now() + datetime.timedelta(seconds=FINISH_LIMIT_S)
            order = line.order(url, crypto_util.make_csr(key, list(names)))
            for authorization in order.authorizations:
                line.answer(authorization)
            order = line.client.poll_authorizations(order, deadline)
            return str(line.client.finalize_order(order, deadline).fullchain_pem)

        return await asyncio.to_thread(self._answered, work)

    def _answered(self, work: Callable[[_Line], T]) -> T:
        line = _Line(self._account_key())
        try:
            line.enter(self._directory, self._email)
            return work(line)
        except (errors.Error, JoseError, OSError) as error:  # OSError: all that `requests` raises is one.
            raise _translated(error, line, self._directory) from error


class _Line:
    """One conversation with the authority, as its account."""

    client: ClientV2

    def __init__(self, account_key: bytes) -> None:
        self._key = JWKEC.load(account_key)
        self.status = 0
        self.retry_after_s: float | None = None
        self._net = ClientNetwork(self._key, alg=ES256, user_agent="stagely", timeout=CALL_LIMIT_S)
        # The library's errors keep neither header nor status.
        self._net.session.hooks["response"].append(self._note)

    def enter(self, directory: str, email: str) -> None:
        """Find the account of this key, or make it."""
        self.client = ClientV2(ClientV2.get_directory(directory, self._net), self._net)
        account = messages.NewRegistration.from_data(email=email or None, terms_of_service_agreed=True)
        try:
            self.client.new_account(account)
        except errors.ConflictError as known:
            self._net.account = messages.RegistrationResource(body=account, uri=known.location)

    def order(self, url: str, csr: bytes) -> messages.OrderResource:
        """The order as it is now. The library only knows orders that it has just placed."""
        answer = self._net.post(url, None, new_nonce_url=self.client.directory["newNonce"])
        body = messages.Order.from_json(answer.json())
        bare = [messages.AuthorizationResource(uri=one, body=messages.Authorization()) for one in body.authorizations]
        found = [self.client.poll(one)[0] for one in bare]
        return messages.OrderResource(body=body, uri=url, authorizations=found, csr_pem=csr)

    def record(self, authorization: messages.AuthorizationResource) -> TxtRecord:
        challenge = _dns_challenge(authorization)
        name = challenge.chall.validation_domain_name(authorization.body.identifier.value)
        return TxtRecord(name, challenge.chall.validation(self._key))

    def answer(self, authorization: messages.AuthorizationResource) -> None:
        """Ask for the check, unless it was asked for or done already."""
        if _is_pending(authorization):
            challenge = _dns_challenge(authorization)
            if challenge.status == messages.STATUS_PENDING:
                self.client.answer_challenge(challenge, challenge.response(self._key))

    def _note(self, answer: Any, **_: Any) -> None:  # Any: of `requests`, which we do not import.
        self.status = answer.status_code
        self.retry_after_s = seconds_of(answer.headers.get("Retry-After"))


def _is_pending(authorization: messages.AuthorizationResource) -> bool:
    return bool(authorization.body.status == messages.STATUS_PENDING)


def _dns_challenge(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for challenge in authorization.body.challenges:
        if isinstance(challenge.chall, challenges.DNS01):
            return challenge
    raise AuthorityRefused(f"no dns-01 challenge is offered for {authorization.body.identifier.value}")


def _translated(error: Exception, line: _Line, directory: str) -> ProviderError:
    what = f"{directory}: {_told(error)}"
    if _is_final(error, line.status):
        return AuthorityRefused(what)
    if line.status >= 400 and line.retry_after_s is not None:
        return AuthorityBusy(what, retry_after_s=line.retry_after_s)
    is_limited = isinstance(error, messages.Error) and error.code == "rateLimited"
    return AuthorityBusy(what, retry_after_s=RATE_LIMIT_WAIT_S if is_limited else None)


def _is_final(error: Exception, status: int) -> bool:
    """Whether asking again is of no use. `status`: of the last answer, which need not hold a problem of ACME's."""
    if isinstance(error, messages.Error):
        return error.code not in _PASSING
    if isinstance(error, errors.ValidationError | errors.IssuanceError):
        return True
    return isinstance(error, errors.ClientError) and status in _GONE


def _told(error: Exception) -> str:
    """In one line. The library's errors name no key, and what a check saw in the DNS is public."""
    told = error.error if isinstance(error, errors.IssuanceError) else error
    return " ".join((str(told) or repr(told)).split())[:600]
