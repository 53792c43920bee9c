"""What hiding secrets costs a log: 200 values of 1 KB (as much as one deployment can bring) beside none at all.

    python -m bench.masking --json FILE [--mib 4]

Text goes through agent/mask.py as a program's output does, decoded, in reads of 64 KiB and line by line; of three runs
the fastest counts. FILE gets one JSON object a line: {scenario, target, metric, value, unit}; `bare` hides nothing.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import itertools
import random
import string
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.mask import LineMasker, Patterns
from bench.measures import Measure, lines, table

VALUES, VALUE_CHARS = 200, 1000
RUNS = 3
READ_BYTES = 64 * 1024
_WORDS = ["error", "layer", "npm", "GET", "/api/v1/users", "200", "level=info", "msg=", "cache", "1.2.3", "漢字", "✓"]

Line = Callable[[random.Random, list[str]], str]

LINES: dict[str, Line] = {
    "words": lambda rng, _: " ".join(rng.choices(_WORDS, k=rng.randint(4, 18))),
    "base64": lambda rng, _: base64.b64encode(rng.randbytes(57)).decode(),
    "hexadecimal": lambda rng, _: f"sha256:{rng.randbytes(32).hex()} done",
    "values": lambda rng, values: f"level=info token={rng.choice(values)} accepted",
    "coded_values": lambda rng, values: base64.b64encode(rng.choice(values).encode()).decode(),
}


def text(name: str, size_bytes: int, values: list[str]) -> bytes:
    """Lines of one kind, the same for the same arguments."""
    rng = random.Random(name)
    found = bytearray()
    while len(found) < size_bytes:
        found += LINES[name](rng, values).encode() + b"\n"
    return bytes(found)


def megabytes_per_second(patterns: Patterns, reads: list[bytes]) -> float:
    return sum(map(len, reads)) / min(_seconds(patterns, reads) for _ in range(RUNS)) / 1e6


def _seconds(patterns: Patterns, reads: list[bytes]) -> float:
    masker, decoder = LineMasker(patterns), codecs.getincrementaldecoder("utf-8")()
    began = time.perf_counter()
    for read in reads:
        masker.feed(decoder.decode(read))
    masker.finish()
    return time.perf_counter() - began


def measures(size_bytes: int) -> Iterator[Measure]:
    rng = random.Random("values")
    values = ["".join(rng.choices(string.ascii_letters + string.digits, k=VALUE_CHARS)) for _ in range(VALUES)]
    targets = {"bare": Patterns(), "stagely": Patterns(values)}
    began = time.perf_counter()
    targets["stagely"].hide("")
    yield Measure("masking", "stagely", "index", round(time.perf_counter() - began, 3), "s")
    for name, (target, patterns) in itertools.product(LINES, targets.items()):
        printed = text(name, size_bytes, values)
        reads = [printed[at : at + READ_BYTES] for at in range(0, len(printed), READ_BYTES)]
        yield Measure("masking", target, name, round(megabytes_per_second(patterns, reads), 1), "MB/s")
        one_by_one = megabytes_per_second(patterns, printed.splitlines(keepends=True))
        yield Measure("masking", target, f"{name}_by_line", round(one_by_one, 1), "MB/s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.masking", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    parser.add_argument("--mib", type=int, default=4, help="of each kind of text (default: 4)")
    arguments = parser.parse_args()
    found = list(measures(arguments.mib * 1024 * 1024))
    arguments.json.write_text(lines(found))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
