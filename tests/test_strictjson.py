"""test_strictjson.py: which bytes are a document, where its values stand, and that writing and reading agree."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from registry_tool import strictjson
from registry_tool.strictjson import MAX_DEPTH, JsonProblem, dump, parse, pointer

REFUSED = [  # bytes, code, line, column
    (b"", "json-syntax", 1, 1),
    (b" ", "json-syntax", 1, 2),
    (b'{"a": 1,}', "json-syntax", 1, 9),
    (b"[1,\n 2,\n ]", "json-syntax", 3, 2),
    (b'{"a" 1}', "json-syntax", 1, 6),
    (b"{a: 1}", "json-syntax", 1, 2),
    (b"[True]", "json-syntax", 1, 2),
    (b'["a]', "json-syntax", 1, 2),
    (b'["\\x"]', "json-syntax", 1, 3),
    (b'["\\', "json-syntax", 1, 2),
    (b"[1] [2]", "json-syntax", 1, 5),
    (b"[]]", "json-syntax", 1, 3),
    (b"[01]", "json-syntax", 1, 3),
    (b"[.5]", "json-syntax", 1, 2),
    (b"['a']", "json-syntax", 1, 2),
    ("[\u0661]".encode(), "json-syntax", 1, 2),
    (b"[1]" + b"]" * 100_000, "json-syntax", 1, 4),
    (b"\xef\xbb\xbf{}", "json-bom", 1, 1),
    ("{}".encode("utf-16"), "json-not-utf8", 1, 1),
    (b'[\n "\xc3\xa9\xff"]', "json-not-utf8", 2, 4),
    (b'["\xc0\xaf"]', "json-not-utf8", 1, 3),
    (b'["\xed\xa0\x80"]', "json-not-utf8", 1, 3),
    (b"[" * 100_000, "json-too-deep", 1, MAX_DEPTH + 1),
    (b'{"a":' * 100_000, "json-too-deep", 1, 5 * MAX_DEPTH + 1),
    (b"[" * 33 + b"]" * 33, "json-too-deep", 1, MAX_DEPTH + 1),
    (b'["[[",\n' + b"[" * 32 + b"]" * 33, "json-too-deep", 2, MAX_DEPTH),
    (b'{"a": 1, "a": 1}', "json-duplicate-key", 1, 10),
    (b'{"a": 1, "\\u0061": 2}', "json-duplicate-key", 1, 10),
    (b'{"a": 0, "b": [{"c": {"a": 1},\n "d": "\\"c\\":",  "c": 2}]}', "json-duplicate-key", 2, 18),
    (b'{"": 1, "": 2}', "json-duplicate-key", 1, 9),
    (b"[1, NaN]", "json-not-finite", 1, 5),
    (b'{"NaN": "NaN",\n "a": Infinity}', "json-not-finite", 2, 7),
    (b"[-Infinity]", "json-not-finite", 1, 2),
    (b"[1e999]", "json-not-finite", 1, 2),
    (b'["-1e999", -1e999]', "json-not-finite", 1, 12),
    (b"[100000000000000000000, 1000000000000000000000]", "json-huge-number", 1, 2),
    (b"[-123456789012345678901]", "json-huge-number", 1, 2),
    (b"[" + b"1" * 100_000 + b"]", "json-huge-number", 1, 2),
    (b"[0." + b"1" * 100 + b"]", "json-huge-number", 1, 2),
    (b'["a\nb"]', "json-control-character", 1, 4),
    (b'["a\tb"]', "json-control-character", 1, 4),
    (b'["a\x00b"]', "json-control-character", 1, 4),
    (b'["a\x7f"]', "json-control-character", 1, 4),
    ('["\u0085"]'.encode(), "json-control-character", 1, 3),
    ('{"\u202eid": 1}'.encode(), "json-control-character", 1, 3),
    ('["\u200b"]'.encode(), "json-control-character", 1, 3),
    ('["\ufeff"]'.encode(), "json-control-character", 1, 3),
    ('["\U000e0041"]'.encode(), "json-control-character", 1, 3),
    (b'["ok", "\\u0000"]', "json-control-character", 1, 8),
    (b'["\\b"]', "json-control-character", 1, 2),
    (b'["\\r\\n"]', "json-control-character", 1, 2),
    (b'{"\\u202E": 1}', "json-control-character", 1, 2),
    (b'["\\\\u202e", "\\u2066"]', "json-control-character", 1, 13),
    (b'["\\udb40\\udc41"]', "json-control-character", 1, 2),
    (b'["\\ud800"]', "json-control-character", 1, 2),
    (b'["\\\\ud800\\udc00"]', "json-control-character", 1, 2),
]
ACCEPTED = [
    b"null",
    b" [1] \r\n\t",
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    b'["' + b"[{" * 1000 + b'"]',
    b'["\\"", "[", "\\\\"]',
    b"[18446744073709551615, -99999999999999999999, 1e308, 5e-324, -0.0]",
    '["\u00e9\u4e2d\U0001f600", "\\u00e9\\ud83d\\ude00", "\\\\u0000", "line\\nline\\ttab \\/ \\" "]'.encode(),
    b'{"a": {"a": {"a": 1}}, "A": 2}',
]
NESTED = json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
TEXT = st.text(st.sampled_from('ab01 "\\/~\n\t{}[],:é中😀'), max_size=6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20) + 1, 10**20 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@pytest.mark.parametrize(("data", "code", "line", "column"), REFUSED, ids=range(len(REFUSED)))
def test_refused(data: bytes, code: str, line: int, column: int) -> None:
    """Every kind of unacceptable document has its code, its place and a message of one line."""
    with pytest.raises(JsonProblem) as caught:
        parse(data)
    problem = caught.value
    assert (problem.code, problem.line, problem.column) == (code, line, column)
    assert problem.found
    assert problem.expected
    assert len(str(problem).splitlines()) == 1
    assert len(str(problem)) < 400


@pytest.mark.parametrize("data", ACCEPTED, ids=range(len(ACCEPTED)))
def test_accepted(data: bytes) -> None:
    """What is merely unusual is accepted and read as the standard library reads it."""
    assert parse(data).value == json.loads(data)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def no_number(name: str) -> None:
    raise ValueError(name)


def finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def depth(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(depth, items), default=0)


@given(st.text(st.sampled_from('[]{}",:\\\x7f\x0b 01aeE.-n\n'), max_size=30).map(str.encode))
@example(b'["[",' + b"[" * 40 + b'"]"' + b"]" * 40)
@example(b'["]["' + b',["]"' * 40 + b"]" * 41)
@example(b"[" * 32 + b'"]["' + b"]" * 32)
@example(b"[{},[" * 33 + b"0]]" * 33)
@example(b"[[]," * 31 + b"[]" + b"]" * 31)
def test_clean_documents_need_no_second_look(data: bytes) -> None:
    """The short way of a document that looks clean takes what the standard library reads, to MAX_DEPTH, and no more."""
    assume(b"\\" not in data and b"\x7f" not in data)
    try:
        value = json.loads(data, object_pairs_hook=distinct, parse_constant=no_number, parse_float=finite)
    except ValueError:
        value = None
    if depth(value) <= MAX_DEPTH and value is not None:
        assert parse(data).value == value
    else:
        with pytest.raises(JsonProblem):
            parse(data)


def test_size_is_checked_first() -> None:
    """A document over the limit is refused for its size, whatever it holds."""
    assert parse(b"[]", max_bytes=2).value == []
    with pytest.raises(JsonProblem) as caught:
        parse(b"\xff[]", max_bytes=2)
    assert caught.value.code == "json-too-large"


def test_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of values is limited, commas and brackets inside strings not counted."""
    monkeypatch.setattr(strictjson, "MAX_VALUES", 100)
    text = b'["' + b",[{" * 1000 + b'"' + b",0" * 98
    assert len(parse(text + b"]").value) == 99
    for more in (b",0]", b",[]]", b",{}]"):
        with pytest.raises(JsonProblem) as caught:
            parse(text + more)
        assert caught.value.code == "json-too-large"


def test_decoded_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wide character that multiplies the memory of a large document makes it too large."""
    monkeypatch.setattr(strictjson, "MAX_DECODED", 2_000_000)
    parse(b'["' + b"a" * 999_990 + b'"]')
    with pytest.raises(JsonProblem) as caught:
        parse(b'["' + b"a" * 999_000 + '😀"]'.encode(), max_bytes=1_000_000)
    assert caught.value.code == "json-too-large"


@pytest.mark.parametrize(
    "bomb", ['b"[" + b\'{"":0},\' * 9586980 + b"0]"', 'b"[" * (64 << 20)', "b'\"\\\\' * (4 << 20)"]
)
@pytest.mark.slow
def test_memory_stays_bounded(bomb: str) -> None:
    """Megabytes that would become gigabytes of objects, or nest without end, are refused within 512 MiB."""
    code = (
        "from registry_tool.strictjson import *\n"
        f"try: parse({bomb}, max_bytes=REGISTRY_MAX_BYTES)\n"
        "except JsonProblem as problem: print(problem.code)"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))  # noqa: E731
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit, check=True)
    assert run.stdout.strip() in ("json-too-large", "json-too-deep", "json-syntax")


@given(VALUES)
def test_round_trip(value: Any) -> None:
    """What dump writes, parse reads back as the same value; writing that again gives the same bytes."""
    data = dump(value)
    assert data.endswith(b"\n")
    assert parse(data).value == value
    assert dump(parse(data).value) == data


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": "\u202e"}, "\r", 10**20, NESTED, "\ud800"])
def test_dump_writes_nothing_that_cannot_be_read(value: Any) -> None:
    """A value that parse would refuse is a ValueError when it is written."""
    with pytest.raises(ValueError):  # noqa: PT011  # which one depends on where it is seen
        dump(value)


def test_dump_is_canonical() -> None:
    """Keys are sorted, the indent is two spaces, characters are not escaped."""
    assert dump({"b": [1], "a": "é"}) == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'.encode()


@given(
    st.binary(max_size=60) | st.text('[]{}",:\\udb019.eE+-NaInfty \n\t\x00\u202e\u00e9', max_size=40).map(str.encode)
)
@example(b'{"a":1,"a":2')
@example(b'[{"a":1,"a":2},]')
@example(b"[1e999")
@example(b"NaNxyz")
@example(b"[1e999x]")
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes are: a value the standard library agrees with, or a JsonProblem inside the text."""
    problem, value = None, None
    try:
        value = parse(data).value
    except JsonProblem as caught:
        problem = caught
    if problem is None:
        assert value == json.loads(data)
    else:
        lines = data.decode("utf-8", "replace").split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


def places(text: str) -> dict[str, tuple[int, int]]:
    """Pointer -> (line, column) by plain recursive descent: the oracle for Document.position."""
    found: dict[str, int] = {}
    decode = json.JSONDecoder().raw_decode

    def blank(at: int) -> int:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        return at

    def value(at: int, where: str) -> int:
        found.setdefault(where, at)
        if text[at] not in "[{":
            return int(decode(text, at)[1])
        at, index, closing = blank(at + 1), 0, "]}"[text[at] == "{"]
        while text[at] != closing:
            child = f"{where}/{index}"
            if closing == "}":
                key, end = decode(text, at)
                child = where + "/" + key.replace("~", "~0").replace("/", "~1")
                found[child] = at
                at = blank(blank(end) + 1)
            at, index = blank(value(at, child)), index + 1
            at = blank(at + 1) if text[at] == "," else at
        return at + 1

    value(blank(0), "")
    return {where: (text[:at].count("\n") + 1, at - text.rfind("\n", 0, at)) for where, at in found.items()}


@given(VALUES, st.sampled_from([None, 0, 1, 3]), st.booleans(), st.sampled_from([(",", ":"), (" ,\n\t", "\n : ")]))
def test_positions_agree_with_a_plain_descent(
    value: Any, indent: int | None, ascii: bool, marks: tuple[str, str]
) -> None:
    """Every value's line and column is that of its key, or of itself in a list, however the text is laid out."""
    text = " \n" + json.dumps(value, indent=indent, ensure_ascii=ascii, separators=marks) + "\n"
    document = parse(text.encode())
    expected = places(text)
    assert {where: document.position(where) for where in expected} == expected


def test_position_falls_back_to_the_nearest_parent() -> None:
    """A pointer to what is not there gives its nearest parent."""
    document = parse(b'{\n  "models": [\n    {"a/b": 1, "m~n": {"": 2}},\n    []\n  ]\n}')
    for where, place in [
        ("", (1, 1)),
        ("/nothing", (1, 1)),
        ("nonsense", (1, 1)),
        ("/models", (2, 3)),
        ("/models/7", (2, 3)),
        ("/models/-", (2, 3)),
        ("/models/01", (2, 3)),
        ("/models/0", (3, 5)),
        ("/models/0/a~1b", (3, 6)),
        ("/models/0/a~1b/deeper", (3, 6)),
        ("/models/0/m~0n", (3, 16)),
        ("/models/0/m~0n/", (3, 24)),
        ("/models/1/0", (4, 5)),
    ]:
        assert document.position(where) == place, where


def test_pointer_escapes() -> None:
    """A pointer is built with the escapes of RFC 6901; no parts mean the whole document."""
    assert pointer() == ""
    assert pointer("models", 2, "a/b", "~1") == "/models/2/a~1b/~01"


def test_position_of_what_pointer_builds() -> None:
    """A pointer built from a key leads to that key, whatever the key holds."""
    for key in ["/", "~", "~1", "", 'a"b', "é\n"]:
        document = parse(json.dumps({"x": 0, key: 1}).encode())
        assert document.position(pointer(key)) == (1, 10)


@pytest.mark.parametrize("blank", [" ", "\n", "\t", " \r\n"])
def test_white_space_has_a_limit(blank: str) -> None:
    """What is a megabyte to the right is not seen in review; ordinary indentation is fine."""
    for where in (b'{"a":%s1}', b'%s{"a":1}', b'{"a":1}%s'):
        assert parse(where % (blank * 1000).encode()).value == {"a": 1}
        with pytest.raises(JsonProblem) as caught:
            parse(where % (blank * 70_000).encode())
        assert caught.value.code == "json-whitespace"
