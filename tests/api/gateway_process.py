"""The gateway's own program, but that no GitHub App is asked for tokens."""

from __future__ import annotations

import sys
from unittest.mock import patch

from api.gateway import __main__ as gateway
from tests.api.world import Repositories


class NoApp(Repositories):
    async def aclose(self) -> None:
        return


if __name__ == "__main__":
    with patch.object(gateway, "GitHub", lambda settings: NoApp()):
        sys.exit(gateway.main())
