"""ONNX bytes made to hide, to break or to cost: every oddity is named, every limit holds, nothing crashes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto
from onnx_parts import (
    FINITE_TENSORS,
    NAN,
    PLAIN,
    external,
    field,
    in_graph,
    model,
    node,
    operators_of,
    places_of,
    tensor,
    varint,
)
from places import TESTS

from registry_tool.sandbox import protowire
from registry_tool.sandbox.onnxfile import OnnxError, inspect_model

ODD = {
    "an unknown field": (PLAIN + field(99, b"hidden"), "ModelProto: unknown field 99"),
    "a trailing field": (PLAIN + b"\x98\x06\x01", "unknown field 99, 3 bytes"),
    "an unknown field in a node": (in_graph(field(1, field(98, b"x"))), r"graph.node\[0\]: unknown field 98"),
    "the graph twice": (PLAIN + field(7, b""), "field graph given twice"),
    "a name twice": (in_graph(field(2, b"a") + field(2, b"b")), "graph: field name given twice"),
    "two kinds of axis": (
        in_graph(field(11, field(2, field(1, field(2, field(1, b"\x08\x03" + field(2, b"N"))))))),
        "field dim_param given twice",
    ),
    "another encoding": (PLAIN + field(1, b"\x08"), "field ir_version in another encoding"),
    "a number for a text": (PLAIN + b"\x10\x01", "field producer_name in another encoding"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_one_reader_sees_and_another_skips_is_named(name: str) -> None:
    """Unknown fields, repeated fields and foreign encodings are listed with their place."""
    data, message = ODD[name]
    found = inspect_model(data).oddities
    assert len(found) == 1
    assert re.search(message, found[0])


def test_a_field_given_twice_hides_nothing() -> None:
    """Facts come from every graph in the file, whichever one a reader takes."""
    second = model(node("Evil", "x", "y"), tensors=(tensor("v", [NAN]),)).graph.SerializeToString()
    found = inspect_model(PLAIN + field(7, second))
    assert found.ops == {("", "Add"), ("", "Evil")}
    assert found.non_finite == ("v",)


DEEP = b""
for _ in range(40):
    DEEP = field(1, field(5, field(6, DEEP)))

UNREADABLE = {
    "nothing": (b"", "no graph"),
    "a Git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "text": (b'{"models": []}', "no usable ONNX model"),
    "a page": (b"<!DOCTYPE html><html>", "no usable ONNX model"),
    "zeros": (bytes(64), "no usable ONNX model"),
    "cut short": (PLAIN[:-3], "cut short"),
    "an open number": (PLAIN + b"\xff", "cut short"),
    "a number too long": (PLAIN + b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
    "an open packed number": (in_graph(field(5, field(7, b"\x01\x80"))), "in int64_data at byte .* is cut short"),
    "a packed number too long": (in_graph(field(5, field(7, b"\x80" * 10 + b"\x01"))), "more than 64 bits"),
    "half a packed float": (in_graph(field(5, field(4, b"123"))), "a number in float_data at byte .* is cut short"),
    "a group": (PLAIN + b"\x9b\x06\x9c\x06", "no protobuf field begins at byte"),
    "field number zero": (PLAIN + b"\x00\x00", "no protobuf field begins"),
    "no IR version": (field(7, b""), "no IR version"),
    "a negative IR version": (b"\x08" + varint(2**64 - 1) + field(7, b""), "no IR version"),
    "two opsets": (PLAIN + field(8, b"\x10\x12"), "two opset versions"),
    "too deep": (in_graph(DEEP), "nest deeper than 64 levels"),
    "too many fields": (in_graph(field(1, b"") * 100_001), "more than 100000 protobuf fields"),
    "too much text": (in_graph(field(10, bytes(2**24 + 1))), "bytes of names and other text"),
    "a name that is no text": (in_graph(field(1, field(4, b"Add\xff"))), "op_type is not UTF-8"),
    "a negative size": (model(tensors=(TensorProto(dims=[-1]),)).SerializeToString(), "expected a possible one"),
    "an endless size": (model(tensors=(TensorProto(dims=[2**62]),)).SerializeToString(), "expected a possible one"),
    "too many axes": (model(tensors=(TensorProto(dims=[1] * 65),)).SerializeToString(), "more than 64 values in dims"),
    "packed axes": (in_graph(field(5, field(1, b"\x01" * 10_000_000))), "more than 64 values in dims"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_one_clear_line(name: str) -> None:
    """Files that are no models, and models beyond the limits, raise OnnxError with one short line."""
    data, message = UNREADABLE[name]
    with pytest.raises(OnnxError, match=message) as error:
        inspect_model(data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_size_has_a_limit() -> None:
    """A byte too many is refused before anything is parsed."""
    assert inspect_model(PLAIN, max_bytes=len(PLAIN))
    with pytest.raises(OnnxError, match=f"found {len(PLAIN)} bytes, expected at most {len(PLAIN) - 1}"):
        inspect_model(PLAIN, max_bytes=len(PLAIN) - 1)


def test_every_cut_is_refused_or_shows() -> None:
    """A model cut anywhere is an error, or has lost something that its facts show."""
    whole = inspect_model(PLAIN)
    for end in range(len(PLAIN)):
        try:
            assert inspect_model(PLAIN[:end]) != whole
        except OnnxError:
            continue


RICH = [
    proto.SerializeToString()
    for proto in [*places_of(FINITE_TENSORS["bfloat16 in int32_data"]), model(tensors=(external(location="a"),))]
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_changed_models_never_break_the_reader(data: st.DataObject) -> None:
    """Any change to a model gives OnnxError or facts; what reads also parses, and no operator is missed."""
    changed = bytearray(data.draw(st.sampled_from(RICH)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        length = data.draw(st.integers(0, 8))
        changed[place : place + length] = data.draw(st.binary(max_size=12))
        if not changed:
            break
    check_against_protobuf(bytes(changed))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_break_the_reader(data: bytes) -> None:
    """Random bytes, alone and as a graph, give OnnxError or facts."""
    check_against_protobuf(data)
    check_against_protobuf(in_graph(data))
    check_against_protobuf(in_graph(field(5, data)))


def check_against_protobuf(data: bytes) -> None:
    """OnnxError of one line, or facts that agree with the protobuf library's own parse of the same bytes."""
    try:
        found = inspect_model(data)
    except OnnxError as error:
        message = str(error)
    else:
        message, proto = "", ModelProto.FromString(data)
        assert {op for _, op in found.ops} == operators_of(proto)
        assert found.ir_version == proto.ir_version
    assert "\n" not in message


COSTLY = """
import resource, sys
sys.path.insert(0, {tests!r})
from onnx_parts import PLAIN, field, in_graph
from registry_tool.sandbox.onnxfile import inspect_model
inspect_model(PLAIN)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for payload in (
    field(5, b"") * 99_000,
    field(1, field(1, b"a") + field(4, b"Expand")) * 30_000,
    field(10, b"a" * 2**23),
    field(5, b"\\x10\\x10" + field(5, b"\\xff\\xff\\x03" * 2**22)),
    field(5, b"\\x10\\x10" + field(5, b"\\x01" * 2**24)),
):
    inspect_model(in_graph(payload))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_hostile_files_cost_little_memory() -> None:
    """Many messages, much text and endless numbers take far less than the 512 MiB that a whole run may take."""
    program, path = COSTLY.format(tests=str(TESTS / "helpers")), ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, text=True, capture_output=True, check=True
    )
    assert int(done.stdout) * 1024 < 256 * 2**20


def test_packed_integers_unpack_over_pieces() -> None:
    """Numbers of one to ten bytes come out whole, also where a piece ends inside one."""
    numbers = [(1 << (7 * (i % 9))) + i for i in range(60_000)]
    packed = b"".join(varint(number) for number in numbers)
    assert len(packed) > protowire.CHUNK
    found = [int(n) for piece in protowire.unpacked(memoryview(packed)) for n in piece]
    assert found == numbers
