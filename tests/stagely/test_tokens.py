"""Enrolment tokens: the same for the same order, and worth nothing to anybody else."""

from __future__ import annotations

import jwt
import pytest

from stagely.tokens import AUDIENCE, ISSUER, EnrolmentTokens, TokenRefused

TOKENS = EnrolmentTokens("5a" * 32)


def test_same_order_gives_the_same_token() -> None:
    assert TOKENS.mint("vm-1", 1000.7) == EnrolmentTokens("5a" * 32).mint("vm-1", 1000.2)


def test_token_names_its_vm() -> None:
    assert TOKENS.verify(TOKENS.mint("vm-1", 1000), 1500) == "vm-1"


def test_token_ends_after_its_lifetime() -> None:
    token = TOKENS.mint("vm-1", 1000, ttl_s=60)

    with pytest.raises(TokenRefused) as refused:
        TOKENS.verify(token, 1091)

    assert refused.value.code == "token_expired"


def test_clocks_may_differ_by_half_a_minute() -> None:
    assert TOKENS.verify(TOKENS.mint("vm-1", 1000, ttl_s=60), 1090) == "vm-1"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        EnrolmentTokens("a5" * 32).mint("vm-1", 1000),
        jwt.encode({"sub": "vm-1", "iss": ISSUER, "aud": AUDIENCE, "iat": 1, "exp": 9**9}, "", algorithm="none"),
    ],
    ids=["empty", "no-jwt", "another-key", "unsigned"],
)
def test_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        TOKENS.verify(token, 1000)

    assert refused.value.code == "token_invalid"


def test_bad_signing_key_is_named_and_not_shown() -> None:
    with pytest.raises(ValueError, match="64 hex digits") as error:
        EnrolmentTokens("secret-that-is-no-key")

    assert "secret-that" not in str(error.value)
