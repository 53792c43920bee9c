"""One listener for all cases; each case has a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.rfc6455.stand_in import listening


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    with listening() as found:
        yield found
