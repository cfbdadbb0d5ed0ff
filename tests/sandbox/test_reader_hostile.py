"""ONNX bytes made to hide, to break or to cost: every oddity is named, every limit holds, nothing crashes."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator

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

from registry_tool.onnx_summary import NonFinite, OnnxError
from registry_tool.sandbox.message import packed_message
from registry_tool.sandbox.prober import Prober
from registry_tool.sandbox.reader import read_model

pytestmark = pytest.mark.slow

ODD = {
    "an unknown field": (PLAIN + field(99, b"hidden"), "ModelProto: unknown field 99, which is not in onnx"),
    "a trailing field": (PLAIN + b"\x98\x06\x01", "unknown field 99"),
    "a group": (PLAIN + b"\x9b\x06\x9c\x06", "unknown field 99"),
    "an unknown field in a node": (in_graph(field(1, field(98, b"x"))), r"graph.node\[0\]: unknown field 98"),
    "the graph twice": (PLAIN + field(7, b""), "a field given twice"),
    "a name twice": (in_graph(field(2, b"a") + field(2, b"b")), "a field given twice"),
    "two kinds of axis": (
        in_graph(field(11, field(2, field(1, field(2, field(1, b"\x08\x03" + field(2, b"N"))))))),
        "a field given twice",
    ),
    "another encoding": (PLAIN + field(1, b"\x08"), "ModelProto: field ir_version in another encoding"),
    "a number for a text": (PLAIN + b"\x10\x01", "ModelProto: field producer_name in another encoding"),
    "a value that the schema does not have": (
        in_graph(field(5, b"\x70\x07")),
        r"graph.initializer\[0\]: field data_location in another encoding, or",
    ),
    "a type beyond 32 bits": (in_graph(field(5, b"\x10" + varint(2**32 + 10))), "a number in another form"),
    "a number with leading zeros": (b"\x08\x88\x00" + field(7, b""), "5 bytes, 4 when.*a number in another form"),
    "numbers half packed": (
        in_graph(field(5, b"\x08\x01" + field(1, b"\x01\x01"))),
        "a number in another form",
    ),
    "fields in another order": (field(7, b"") + b"\x08\x08", "a number in another form"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_the_message_does_not_hold_is_named(name: str) -> None:
    """Unknown fields with their place; repeated fields, other encodings and other orders by what is written again."""
    data, message = ODD[name]
    found = read_model(data).oddities
    assert len(found) == 1
    assert re.search(message, found[0])


def test_both_ways_to_write_numbers_are_fine() -> None:
    """Writers of proto3 pack every repeated number, those of proto2 only where the schema says so: both are ONNX's."""
    proto = model(
        node("Concat", "x w", "y", perm=[1, 2, 3, 4], scales=[0.5, 2.0, 4.0]), tensors=(tensor("w", [[1, 2], [3, 4]]),)
    )
    data = proto.SerializeToString()
    packed = packed_message().FromString(data).SerializeToString(deterministic=True)
    assert len(packed) < len(data)
    assert read_model(packed) == read_model(data)
    assert read_model(data).oddities == ()


def test_a_field_given_twice_hides_nothing() -> None:
    """Facts come from the message that a runtime reads, two graphs merged, and the file is odd."""
    second = model(node("Evil", "x", "y"), tensors=(tensor("v", [NAN]),)).graph.SerializeToString()
    found = read_model(PLAIN + field(7, second))
    assert found.ops == (("", "Add"), ("", "Evil"))
    assert found.non_finite == (NonFinite("v"),)
    assert found.oddities


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
    "a number too long": (PLAIN + b"\x08" + b"\xff" * 10 + b"\x01", "no usable ONNX model"),
    "an open packed number": (in_graph(field(5, field(7, b"\x01\x80"))), "cut short"),
    "a packed number too long": (in_graph(field(5, field(7, b"\x80" * 10 + b"\x01"))), "no usable ONNX model"),
    "half a packed float": (in_graph(field(5, field(4, b"123"))), "cut short"),
    "field number zero": (PLAIN + b"\x00\x00", "no usable ONNX model"),
    "no IR version": (field(7, b""), "no IR version"),
    "a negative IR version": (b"\x08" + varint(2**64 - 1) + field(7, b""), "no IR version"),
    "two opsets": (PLAIN + field(8, b"\x10\x12"), "two opset versions"),
    "too deep": (in_graph(DEEP), "MaxDepth|depth|no usable ONNX model"),
    "too many messages": (in_graph(field(1, b"") * 100_001), "more than 100000 protobuf messages"),
    "too much text": (in_graph(field(10, bytes(2**24 + 1))), "bytes of names and other text"),
    "a name that is no text": (in_graph(field(1, field(4, b"Add\xff"))), r"graph.node\[0\]: op_type is not UTF-8"),
    "a document that is no text": (in_graph(field(10, b"\xff")), "graph: doc_string is not UTF-8"),
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
        read_model(data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_every_cut_is_refused_or_shows() -> None:
    """A model cut anywhere is an error, or has lost something that its facts show."""
    whole = read_model(PLAIN)
    for end in range(len(PLAIN)):
        try:
            assert read_model(PLAIN[:end]) != whole
        except OnnxError:
            continue


RICH = [
    proto.SerializeToString()
    for proto in [*places_of(FINITE_TENSORS["bfloat16 in int32_data"]), model(tensors=(external(location="a"),))]
]


@settings(max_examples=400)
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


@settings(max_examples=400)
@given(st.binary(max_size=300))
def test_random_bytes_never_break_the_reader(data: bytes) -> None:
    """Random bytes, alone and as a graph, give OnnxError or facts."""
    check_against_protobuf(data)
    check_against_protobuf(in_graph(data))
    check_against_protobuf(in_graph(field(5, data)))


def check_against_protobuf(data: bytes) -> None:
    """OnnxError of one line, or facts that agree with the protobuf library's own parse of the same bytes."""
    try:
        found = read_model(data)
    except OnnxError as error:
        message = str(error)
    else:
        message, proto = "", ModelProto.FromString(data)
        assert {op for _, op in found.ops} == operators_of(proto)
        assert found.ir_version == proto.ir_version
    assert "\n" not in message


COSTLY = {
    "many tensors": field(5, b"") * 50_000,
    "too many nodes": field(1, b"") * 20_000_000,
    "many nodes": field(1, field(1, b"a") + field(4, b"Expand")) * 50_000,
    "much text": field(10, b"a" * 2**23),
    "long numbers": field(5, b"\x10\x10" + field(5, b"\xff\xff\x03" * 2**22)),
    "many numbers": field(5, b"\x10\x10" + field(5, b"\x01" * 2**24)),
    "many floats": field(5, b"\x10\x01" + field(4, bytes(50 * 2**20 - 200))),
    "many unknown fields": b"\x98\x06\x01" * 15_000_000,
}


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober() as prober:
        yield prober


@pytest.mark.parametrize("name", COSTLY)
def test_hostile_files_cost_the_child_and_not_us(prober: Prober, name: str) -> None:
    """Many messages, much text and endless numbers, up to 50 MiB, are read or refused within the child's limits."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        code = "" if prober.read(in_graph(COSTLY[name])).ir_version == 8 else "other facts"
    except OnnxError as error:
        code = error.code
    assert code in ("", "onnx-unreadable", "onnx-probe-memory", "onnx-probe-time")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 256 * 2**20


@pytest.mark.parametrize("name", UNREADABLE)
def test_the_child_says_what_the_reader_says(prober: Prober, name: str) -> None:
    """An unreadable file is an OnnxError on this side of the pipe too, and the child lives on."""
    data, message = UNREADABLE[name]
    for _ in range(2):
        with pytest.raises(OnnxError, match=message) as error:
            prober.read(data)
        assert error.value.code == "onnx-unreadable"
        assert str(error.value).isprintable()
    assert prober.read(PLAIN) == read_model(PLAIN)
