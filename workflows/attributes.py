"""The search attributes by which people find runs in the Web UI. Plain text in the server: no titles, no URLs. Pure."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

PROJECT = SearchAttributeKey.for_keyword("StagelyProject")
REPO = SearchAttributeKey.for_keyword("StagelyRepo")
STATE = SearchAttributeKey.for_keyword("StagelyState")
PROVIDER = SearchAttributeKey.for_keyword("StagelyProvider")
ROLE = SearchAttributeKey.for_keyword("StagelyRole")
PR = SearchAttributeKey.for_int("StagelyPr")
EXPIRES_AT = SearchAttributeKey.for_datetime("StagelyExpiresAt")

ALL = (PROJECT, REPO, STATE, PROVIDER, ROLE, PR, EXPIRES_AT)
