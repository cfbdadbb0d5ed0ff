"""strictjson.py: bytes -> a JSON document with positions, and back. Opens no files and knows no schema.

Stricter than RFC 8259 where leniency lets two readers see two documents: duplicate keys, NaN, invisible characters.
"""

from __future__ import annotations

import gc
import json
import math
import re
import sys
import unicodedata
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from registry_tool.findings import Finding, FindingRule, InFile
from registry_tool.values import Json

JSON_MAX_BYTES = 1 << 20  # any document but a registry
REGISTRY_MAX_BYTES = 64 << 20
MAX_BLANK = 65_536  # characters of white space in a row
MAX_DEPTH = 32  # containers inside one another, the outermost included
MAX_VALUES = 1_000_000  # 64 MiB of `{"":0},` would become gigabytes of dicts
MAX_DECODED = 160 << 20  # bytes; one character outside the BMP makes CPython spend 4 on every character
MAX_DIGITS = 20  # of an integer; 2**64 - 1 has 20
MAX_NUMBER = 64  # characters of any number; the shortest exact form of a float has at most 24

_SAVE = "save it as UTF-8 without BOM"
_NUMBER = f"a finite number, an integer of at most {MAX_DIGITS} digits"

TOO_LARGE = FindingRule(
    "json-too-large",
    "document too large, or with too many values",
    why="Reading it could exhaust memory.",
    message="the document is too large",
    hint="split it or remove what does not belong there",
    example="a manifest of 40 MiB",
)
NOT_UTF8 = FindingRule(
    "json-not-utf8",
    "document is not UTF-8",
    why="Readers that guess another encoding see other names.",
    message="the document is not UTF-8",
    expected="UTF-8",
    hint=_SAVE,
    example="an id in Latin-1",
)
BOM = FindingRule(
    "json-bom",
    "byte order mark",
    why="Readers disagree on whether it belongs to the text.",
    message="the document starts with a byte order mark",
    expected="no mark",
    hint=_SAVE,
    example="bytes EF BB BF before {",
)
WHITESPACE = FindingRule(
    "json-whitespace",
    "too much white space in a row",
    why="What is far to the right or far below is not seen in review.",
    expected=f"at most {MAX_BLANK} characters",
    hint="format the document again",
    example="a megabyte of spaces before a field",
)
TOO_DEEP = FindingRule(
    "json-too-deep",
    "document nested too deeply",
    why="Reading it could exhaust the stack.",
    message="the document is nested too deeply",
    expected=f"at most {MAX_DEPTH} levels",
    hint="flatten it",
    example="100,000 opening brackets",
)
DUPLICATE_KEY = FindingRule(
    "json-duplicate-key",
    "duplicate key",
    why="Some readers take the first, some the last: two people see two documents.",
    message="duplicate key in one object",
    expected="each key once",
    hint="keep one of them",
    example='{"smoke": true, "smoke": false}',
)
NOT_FINITE = FindingRule(
    "json-not-finite",
    "number that is not finite",
    why="Comparisons with NaN are all false, so that limits stop limiting; JSON has no such number.",
    message="the number is not finite",
    expected=_NUMBER,
    hint="write a finite number, or null where the format takes it",
    example='"plcc": NaN',
)
HUGE_NUMBER = FindingRule(
    "json-huge-number",
    "number with too many digits",
    why="Readers round it differently, or spend minutes on it.",
    message="the number has too many digits",
    expected=_NUMBER,
    hint="round it, or write it as a string",
    example='"bytes": 1000...000',
)
CONTROL_CHARACTER = FindingRule(
    "json-control-character",
    "control or invisible character",
    why="The text shows as something that it is not.",
    expected="visible text",
    hint="delete it: it can hide text",
    example='"id": "fr\\u202e_v1"',
)
SYNTAX = FindingRule(
    "json-syntax",
    "invalid JSON",
    why="A reader stops here, or guesses.",
    hint="correct it at this line and column",
    example="a comma after the last element",
)
_EXPECTED = {  # what the parser says -> what the finding says was expected
    "Expecting property name enclosed in double quotes": "a key in double quotes",
    "Expecting ':' delimiter": "a colon after the key",
    "Expecting ',' delimiter": "a comma or a closing bracket",
    "Expecting value": "a value",
    "Extra data": "the end of the document",
    "Unterminated string starting at": "a closing quote for the string that starts here",
    "Illegal trailing comma before end of object": "no comma before a closing bracket",
    "Illegal trailing comma before end of array": "no comma before a closing bracket",
}
# Controls, and what is invisible or reorders text: soft hyphen, joiners, bidirectional marks, fillers, BOM, tags.
_INVISIBLE = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_RAW_HIDDEN = f"[{_INVISIBLE}]"  # compiled by the first document that is not plain ASCII
_HIDDEN = f"[{_INVISIBLE}\r\ud800-\udfff]"  # in a decoded string; an escaped \n or \t is ordinary text
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
# Every pattern here is possessive and matches to the end whatever comes, so that each is linear in the text.
_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
_STRING = re.compile(_QUOTED, re.DOTALL)
_BRACKETS = re.compile(rf'(?:[^"\[\]{{}}]++|{_QUOTED})*+([\[\]{{}}]|\Z)', re.DOTALL)
_BRACKETS_AND_COMMAS = re.compile(rf'(?:[^",\[\]{{}}]++|{_QUOTED})*+([,\[\]{{}}]|\Z)', re.DOTALL)
_WORD = r'[^\s"\[\]{},:]++'
_TOKEN = re.compile(
    rf"[\s,:]*+(?:(?P<string>{_QUOTED})(?P<key>\s*+:)?|(?P<open>[\[{{])|(?P<close>[\]}}])|(?P<word>{_WORD})|\Z)",
    re.DOTALL,
)


class JsonProblem(ValueError):
    """Why bytes are not a document that is accepted. line, column: 1-based, the column in characters."""

    def __init__(
        self, rule: FindingRule, place: tuple[int, int], found: str | None = None, expected: str | None = None
    ) -> None:
        super().__init__(rule.code, place, found)
        self.rule, self.code, self.found = rule, rule.code, found
        self.line, self.column = place
        self.expected = expected or rule.expected

    def at(self, file: str, entry: str | None = None) -> Finding:
        """The finding on that file."""
        place = InFile(file, entry)
        return self.rule.at(place, found=self.found, expected=self.expected).at(self.line, self.column)

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.at('').words}"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Document:
    """A parsed document and the bytes it came from; compared by identity. Treat `value` as read-only."""

    value: Json = field(repr=False)
    data: bytes = field(repr=False)

    def position(self, pointer: str) -> tuple[int, int]:
        """(line, column), 1-based, of the value at an RFC 6901 pointer; of its key where it is a member of an object.

        A pointer to what is not there gives the nearest parent that is. The first call scans the document once; the
        index takes about 30 bytes a value and lives as long as the document.
        """
        index = _INDEXES.get(self)
        if index is None:
            index = _INDEXES[self] = _Index(self.data.decode())
        return index.position(pointer)


class _Index:
    """Where every value is: flat arrays in document order; `ends` is the number of the first value after it."""

    def __init__(self, text: str) -> None:
        self.lines, self.columns, self.ends = array("L"), array("L"), array("L")
        self.names: list[str | None] = []
        self.children: dict[int, dict[str, int]] = {}
        memo: dict[str, str] = {}
        stack: list[int] = []
        name, line, line_start, seen = None, 1, 0, 0
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup
            if kind == "close":
                self.ends[stack.pop()] = len(self.ends)
            elif kind is not None:
                if name is None:  # a value without a key, or a key: the place of the value to come
                    start = match.start("string" if kind == "key" else kind)
                    if breaks := text.count("\n", seen, start):
                        line, line_start = line + breaks, text.rfind("\n", seen, start) + 1
                    seen = start
                if kind == "key":
                    name = _unquote(match["string"])
                    continue
                if kind == "open":
                    stack.append(len(self.ends))
                self.lines.append(line)
                self.columns.append(seen - line_start + 1)
                self.ends.append(len(self.ends) + 1)
                self.names.append(name if name is None else memo.setdefault(name, name))
                name = None

    def position(self, pointer: str) -> tuple[int, int]:
        node = 0
        for part in pointer.split("/")[1:]:
            child = self._children(node).get(part.replace("~1", "/").replace("~0", "~"))
            if child is None:
                break
            node = child
        return self.lines[node], self.columns[node]

    def _children(self, node: int) -> dict[str, int]:
        """Name, or index in decimal -> number of the child; kept, so that many findings in one list stay cheap."""
        if node not in self.children:
            children = self.children[node] = dict[str, int]()
            child = node + 1
            while child < self.ends[node]:
                name = self.names[child]
                children[str(len(children)) if name is None else name] = child
                child = self.ends[child]
        return self.children[node]


_INDEXES: WeakKeyDictionary[Document, _Index] = WeakKeyDictionary()


def pointer(*parts: str | int) -> str:
    """RFC 6901: pointer("models", 2, "a/b") is "/models/2/a~1b"; without parts it is "", the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def parse(data: bytes, *, max_bytes: int = JSON_MAX_BYTES) -> Document:
    """The document in these bytes, or JsonProblem; never another exception, never deeper recursion than MAX_DEPTH.

    Before parsing: size, UTF-8, depth, number of values, hidden characters. While parsing: syntax, duplicate keys
    (compared decoded), numbers. After it: hidden characters and lone surrogates that were spelt as escapes.
    Most documents are ASCII without escapes: a few counts prove all of that but what the parser sees by itself.
    """
    text = _decode(data, max_bytes)
    if len(data) > MAX_BLANK and (blank := re.search(rf"[ \t\r\n]{{{MAX_BLANK}}}", text)):
        raise JsonProblem(WHITESPACE, _place(text, blank.start()), f"{MAX_BLANK} or more")
    if text.isascii() and "\x7f" not in text and "\\" not in text and _is_shallow(data):
        with suppress(ValueError, _Refused):  # the checks below say what comes first, and where
            value, end = _DECODER.raw_decode(text)
            if end == len(text) or not text[end:].strip(" \t\r\n"):
                return Document(value, data)
    _check_structure(text)
    if hidden := re.search(_RAW_HIDDEN, text):
        raise JsonProblem(CONTROL_CHARACTER, _place(text, hidden.start()), _character(hidden[0]))
    value = _load(text)
    if re.search(r"\\[ubfr]", text):  # rare; only then is every string looked at
        for match in _STRING.finditer(text):
            if "\\" in match[0] and (hidden := re.search(_HIDDEN, _unquote(match[0]))):
                found = f"{_character(hidden[0])} in the string that starts here"
                raise JsonProblem(CONTROL_CHARACTER, _place(text, match.start()), found)
    return Document(value, data)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk a large document again and again while it grows."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def dump(value: Json) -> bytes:
    """The one way documents of a registry are written: keys sorted, two spaces, UTF-8, a newline at the end.

    Raises ValueError (a JsonProblem where `parse` would refuse the result): what is written can be read again.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    data = (text + "\n").encode()
    parse(data, max_bytes=REGISTRY_MAX_BYTES)
    return data


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):  # the read-only mappings of values.py
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _decode(data: bytes, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise JsonProblem(TOO_LARGE, (1, 1), f"{len(data)} bytes", f"at most {max_bytes}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise JsonProblem(BOM, (1, 1), "EF BB BF")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise JsonProblem(NOT_UTF8, _place(before, len(before)), f"byte 0x{data[error.start]:02x}") from None
    if (size := sys.getsizeof(text)) > max(MAX_DECODED, 2 * max_bytes):
        raise JsonProblem(TOO_LARGE, (1, 1), f"{size} bytes once decoded", f"at most {MAX_DECODED}")
    return text


def _is_shallow(data: bytes) -> bool:
    """True only where depth and number of values are within bounds; the data has no backslash.

    Without one, quotes part what is inside strings from what is not, and leaving out two that are side by side changes
    no side. What is left of well-nested brackets after MAX_DEPTH rounds of taking out pairs is deeper than that.
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers <= MAX_DEPTH or containers + data.count(b",") >= MAX_VALUES:
        return containers + data.count(b",") < MAX_VALUES
    marks = data.translate(None, _NO_MARKS).replace(b'""', b"")
    for _ in range(MAX_DEPTH if b'"' not in marks else 0):
        if not marks:
            break
        marks = marks.replace(b"{}", b"").replace(b"[]", b"")
    return not marks


def _check_structure(text: str) -> None:
    """Depth and number of values, before the recursive parser sees the text."""
    bound = text.count(",") + text.count("[") + text.count("{")  # those inside strings too
    pattern = _BRACKETS if bound < MAX_VALUES else _BRACKETS_AND_COMMAS
    depth = values = 0
    for match in pattern.finditer(text):
        mark = match[1]
        if mark == "]" or mark == "}":
            depth -= 1
        elif mark:
            values += 1
            depth += mark != ","
        if depth > MAX_DEPTH:
            raise JsonProblem(TOO_DEEP, _place(text, match.start(1)), f"level {depth}")
        if values >= MAX_VALUES:
            found = f"more than {MAX_VALUES} values"
            raise JsonProblem(TOO_LARGE, _place(text, match.start(1)), found, f"at most {MAX_VALUES}")
        if depth < 0:
            return  # a syntax error, which the parser reports


class _Refused(Exception):
    """Out of a callback of the parser, which knows no position. literal: None where a key is the reason."""

    def __init__(self, rule: FindingRule, literal: str | None = None) -> None:
        self.rule, self.literal = rule, literal


def _load(text: str) -> Json:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = error.lineno, error.colno
        if error.msg.startswith("Invalid control character"):
            raise JsonProblem(CONTROL_CHARACTER, place, _character(text[error.pos])) from None
        found = (
            re.sub(r"\W.*", "", text[error.pos : error.pos + 20], flags=re.DOTALL) or text[error.pos : error.pos + 1]
        )
        expected = _EXPECTED.get(error.msg, "an escape of JSON" if "escape" in error.msg else error.msg)
        raise JsonProblem(SYNTAX, place, repr(found) if found else "the end of the document", expected) from None
    except _Refused as refused:
        start, found = _first_duplicate(text) if refused.literal is None else _first_word(text, refused.literal)
        raise JsonProblem(refused.rule, _place(text, start), found) from None


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused(DUPLICATE_KEY)
    return members


def _int(literal: str) -> int:
    if len(literal.lstrip("-")) > MAX_DIGITS:
        raise _Refused(HUGE_NUMBER, literal)
    return int(literal)


def _float(literal: str) -> float:
    if len(literal) > MAX_NUMBER:
        raise _Refused(HUGE_NUMBER, literal)
    number = float(literal)
    return number if math.isfinite(number) else _refuse(literal)


def _refuse(literal: str) -> float:
    raise _Refused(NOT_FINITE, literal)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_refuse)


def _first_word(text: str, literal: str) -> tuple[int, str]:
    words = (
        match for match in _TOKEN.finditer(text) if match.lastgroup == "word" and match["word"].startswith(literal)
    )
    return next(words).start("word"), literal if len(literal) <= MAX_NUMBER else f"{len(literal)} characters"


def _first_duplicate(text: str) -> tuple[int, str]:
    """Where the first repeated key is, and the key; the text is known to be JSON up to there."""
    stack: list[set[str]] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "open":
            stack.append(set())
        elif match.lastgroup == "close":
            stack.pop()
        elif match.lastgroup == "key":
            key = _unquote(match["string"])
            if key in stack[-1]:
                return match.start("string"), repr(key if len(key) <= MAX_NUMBER else key[:MAX_NUMBER] + "...")
            stack[-1].add(key)
    raise AssertionError("the parser saw a duplicate key that this scan does not see")


def _unquote(token: str) -> str:
    return str(json.loads(token)) if "\\" in token else token[1:-1]


def _character(text: str) -> str:
    return f"U+{ord(text):04X} {unicodedata.name(text, '')}".rstrip()


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
