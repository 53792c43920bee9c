"""Hiding secret values in everything that is streamed. Pure.

Accident protection, not a wall: code that wants to print a secret reversed or compressed can. Of every value, without
the white space around it, these are hidden wherever they stand and however the stream is cut:

- the value itself, and each line of a value of several lines;
- base64 of it, standard and url-safe, behind any number of other bytes, in one line or wrapped at 64 or 76 columns;
- hex in lower and in upper case;
- percent-encoded, as a JSON string, as XML text and as a quoted word of a shell, as common programs write these.

Not hidden, by rule: values shorter than MIN_CHARS in whatever form, and lines that short of a value of several lines,
because they stand in ordinary words; a part of a value (but every whole PIECE_CHARS of a longer one, counted from its
beginning, is); base64 of more than the value wrapped elsewhere; one encoding inside another; UTF-16; a value with
terminal colours or line breaks of the program's own inside.

No pattern holds a newline, so a whole line never waits for the next one.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

from agent.search import Index

HIDDEN = "***"
MIN_CHARS = 6  # reference/security.md 5.6: shorter ones stand in ordinary words.
PIECE_CHARS = 64  # Longer patterns are cut: what is held back, and looked at again, has at most this length.
MAX_LINE_CHARS = 16 * 1024  # Docker's own limit for one line of a log.
_WRAPS = (64, 76)  # Columns: PEM and openssl; MIME, coreutils' base64 and Python.
_URL_SAFE = str.maketrans("+/", "-_")
_NOT_COVERED = -1


class Patterns:
    """The values to hide, shared by all streams; values may be added at any time."""

    def __init__(self, values: Iterable[str] = (), keep: Callable[[frozenset[str]], None] | None = None) -> None:
        """`keep` is told all values whenever there are new ones."""
        self._keep = keep
        self._values: set[str] = set()
        self._pieces: set[str] = set()
        self._index: Index | None = None
        self.add(values)

    @property
    def values(self) -> frozenset[str]:
        return frozenset(self._values)

    def add(self, values: Iterable[str]) -> None:
        new = set(values) - self._values
        if not new:
            return
        self._values |= new
        for value in new:
            self._pieces |= {piece for form in forms(value) for piece in _pieces(form)}
        self._index = None
        if self._keep is not None:
            self._keep(self.values)

    def hide(self, text: str) -> str:
        """A whole text, masked."""
        shown, done = [], 0
        for start, end in self.spans(text):
            shown += [text[done:start], HIDDEN]
            done = end
        return "".join(shown) + text[done:]

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """From where to where something is to be hidden, in order; what overlaps or touches is one span."""
        begin = end = -1
        for hit_begin, hit_end in self._indexed().hits(text):
            if hit_begin > end:
                if end > 0:
                    yield begin, end
                begin = hit_begin
            end = max(end, hit_end)
        if end > 0:
            yield begin, end

    def begun_at(self, text: str) -> int:
        """Where the longest end of `text` begins that may be the beginning of something to hide; else its length."""
        return self._indexed().begun_at(text)

    def _indexed(self) -> Index:
        if self._index is None:  # Built when it is needed, so that ten values added one by one cost one index.
            self._index = Index(self._pieces)
        return self._index


def forms(value: str) -> set[str]:
    """Every text that gives this value away, none of them with a newline or shorter than MIN_CHARS."""
    text = value.strip()
    if len(text) < MIN_CHARS:
        return set()
    coded = text.encode("utf-8", "surrogatepass")
    written = {text, *_quoted(text), *_percent_forms(coded), *_base64_forms(coded), coded.hex(), coded.hex().upper()}
    lines = {line.strip() for form in written for line in form.split("\n")}
    return {line for line in lines if len(line) >= MIN_CHARS}


def _quoted(text: str) -> set[str]:
    """Inside the quotes of JSON as Python, JavaScript, Go and PHP write it, of XML, and of a shell's trace."""
    ascii_only, plain = json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
    go = plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    shell = text.replace("'", "'\\''")
    return {ascii_only, plain, go, ascii_only.replace("/", "\\/"), html.escape(text), html.escape(text, False), shell}


def _percent_forms(coded: bytes) -> set[str]:
    """As RFC 3986 says, as a path, as JavaScript's two functions, and as a form's field; hex in either case."""
    upper = {quote(coded, safe) for safe in ("", "/", "!~*'()", ";,/?:@&=+$!~*'()#")}
    upper |= {quote(coded, safe).replace("%20", "+") for safe in ("", "*")}
    return upper | {re.sub("%..", lambda code: code.group().lower(), text) for text in upper}


def _base64_forms(coded: bytes) -> set[str]:
    cores = [_base64_core(coded, before) for before in range(3)]
    wrapped = [cores[0][at : at + width] for width in _WRAPS for at in range(0, len(cores[0]), width)]
    return {*cores, *wrapped, *(text.translate(_URL_SAFE) for text in cores + wrapped)}


def _base64_core(coded: bytes, before: int) -> str:
    """Base64 of `coded` behind `before` unknown bytes, without the characters that depend on its neighbours."""
    text = base64.b64encode(b"\0" * before + coded).decode().rstrip("=")
    return text[-(-before * 8 // 6) : (before + len(coded)) * 8 // 6]


def _pieces(form: str) -> Iterator[str]:
    """Parts of at most PIECE_CHARS that together cover all of `form`; the last one overlaps the one before it."""
    last = max(len(form) - PIECE_CHARS, 0)
    for at in (*range(0, last, PIECE_CHARS), last):
        yield form[at : at + PIECE_CHARS]


class Masker:
    """One stream: text of any size in, masked text out, held back only while it may be the beginning of a pattern."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._held = ""
        self._covered = _NOT_COVERED  # How much of what is held stands behind a HIDDEN that was given out already.

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def feed(self, text: str) -> str:
        text = self._held + text
        return self._give_out(text, self._patterns.begun_at(text))

    def finish(self) -> str:
        """What was held back. A program may be killed while it writes: a value that only began is hidden too."""
        begun, covered = self._held, self._covered
        self._held, self._covered = "", _NOT_COVERED
        if len(begun) >= MIN_CHARS:
            return HIDDEN if covered == _NOT_COVERED else ""
        return begun[max(covered, 0) :]

    def _give_out(self, text: str, until: int) -> str:
        shown, covered = [], self._covered
        done = max(covered, 0)
        for begin, end in self._patterns.spans(text):
            if begin >= until:
                break
            if begin > covered:
                shown += [text[done:begin], HIDDEN]
            done = covered = max(covered, end)
        shown.append(text[done:until])
        self._held = text[until:]
        self._covered = covered - until if covered >= until else _NOT_COVERED
        return "".join(shown)


class LineMasker:
    """One stream: text of any size in, masked whole lines out.

    An unfinished line waits for its newline, because whole lines travel; longer than MAX_LINE_CHARS it comes in pieces.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._masker = Masker(patterns)
        self._raw = ""  # Not masked yet: values that are added before the newline are hidden here, too.
        self._line = ""  # Masked, of a line that grew too long to wait.

    @property
    def is_between_lines(self) -> bool:
        return not (self._raw or self._line or self._masker.is_holding)

    def feed(self, text: str) -> str:
        """The lines that are complete now, masked, each with its newline; NUL becomes U+FFFD."""
        text = self._raw + text.replace("\x00", "\ufffd")
        until = text.rfind("\n") + 1
        if len(text) - until > MAX_LINE_CHARS:
            until = len(text)
        self._raw = text[until:]
        return self._lines(self._masker.feed(text[:until])) if until else ""

    def finish(self) -> str:
        """The last line, which had no newline."""
        rest = self._masker.feed(self._raw) + self._masker.finish()
        self._raw = ""
        return self._lines(rest + "\n") if self._line + rest else ""

    def _lines(self, masked: str) -> str:
        if not self._line and len(masked) <= MAX_LINE_CHARS and masked.endswith("\n"):
            return masked.replace("\r\n", "\n")
        *whole, begun = (self._line + masked).split("\n")
        done = [part for line in whole for part in _parts(line.removesuffix("\r"))]
        *early, self._line = _parts(begun)
        return "".join(part + "\n" for part in done + early)


def _parts(line: str) -> list[str]:
    return [line[at : at + MAX_LINE_CHARS] for at in range(0, max(len(line), 1), MAX_LINE_CHARS)]
