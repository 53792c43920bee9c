"""`python -m tests.edge.fuzz_reader FILE COUNT [FIRST]`: the compiled reader beside the expressions and the long way.

COUNT mutated requests and as many answers, numbered from FIRST. Ends with 1 and the first head of which two say
different things.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge import plain
from edge.head import Request
from edge.headers import ALWAYS
from tests.edge.plain_heads import long_way, long_way_back, mutated_answer, mutated_request
from tests.edge.reader import load

_V = TypeVar("_V")


def main() -> int:
    file, count = Path(sys.argv[1]), int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    compiled = load(file)
    taken = 0
    for seed in range(first, first + count):
        head, answer = mutated_request(seed), mutated_answer(seed)
        found = compiled.request(head, Request), plain.request_by_expression(head, Request)
        found_back = compiled.answer(answer, ALWAYS), plain.answer_by_expression(answer, ALWAYS)
        if differ(found, head, long_way) or differ(found_back, answer, long_way_back):
            print(f"different: seed {seed}\n{head!r}\n{found}\n{answer!r}\n{found_back}")
            return 1
        taken += (found[0] is not None) + (found_back[0] is not None)
    print(f"{2 * count} mutated heads, {taken} of them plain: all read alike")
    return 0


def differ(found: tuple[_V | None, _V | None], data: bytes, general: Callable[[bytes], _V | None]) -> bool:
    """What is not taken is no difference: the long way decides about it."""
    meant = {each for each in found if each is not None}
    return bool(meant) and meant != {general(data)}


if __name__ == "__main__":
    sys.exit(main())
