"""An agent's message out of its frame: what `decode_to_core` says, and quicker for the LOGs that are most of them.

The agent has the standard library only; here is pydantic's JSON parser, which takes a LOG's text in a fifth of the
time. It reads one string: all around it is as agents write it, letter by letter, or the general way decides.
"""

from __future__ import annotations

import re

from pydantic_core import from_json

from agent.protocol import Log, ToCore, decode_to_core

_TEXT = r'"([^"\\\x00-\x1f\ud800-\udfff]*)"'  # Without escapes.
_SEQ = "(0|[1-9][0-9]{0,17})"
_LOG = re.compile(rf'\{{"type":"LOG","seq":{_SEQ},"command_id":{_TEXT},"stream":{_TEXT},"data":(?=")')


def decode(text: str) -> ToCore:
    """The message an agent sent. Raises ProtocolError."""
    return _plain_log(text) or decode_to_core(text)


def _plain_log(text: str) -> Log | None:
    found = _LOG.match(text)
    if found is None or text[-1] != "}":
        return None
    try:
        data = from_json(text[found.end() : -1], cache_strings=False)
    except (ValueError, TypeError):  # TypeError: a lone surrogate, which no UTF-8 holds.
        return None
    if not isinstance(data, str) or "\x00" in data:
        return None
    return Log(int(found[1]), found[2], found[3], data)
