"""The edge as it is, but that it counts no answer: beside it is seen what its metrics cost.

python -m bench.edge.uncounted
"""

from __future__ import annotations

import sys

from edge.__main__ import main
from edge.metrics import Metrics


def _forget(metrics: Metrics, status: int, took_s: float) -> None:
    """What is left is the call, which any way of counting would need."""


if __name__ == "__main__":
    Metrics.served = _forget  # type: ignore[method-assign,assignment]  # The edge has no switch for this, and needs none.
    sys.exit(main())
