from typing import TypeVar

RULES: str
MADE_OF: str
_Kind = TypeVar("_Kind", bound=tuple[object, ...])

def request(data: bytes, kind: type[_Kind], /) -> _Kind | None: ...
def answer(data: bytes, ours: bytes, /) -> tuple[int, bytes] | None: ...
