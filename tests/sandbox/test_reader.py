"""Facts from ONNX bytes: what is said is found wherever it stands, and no bytes break the reader."""

from __future__ import annotations

import base64
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper
from onnx_parts import (
    FINITE_TENSORS,
    FLOAT,
    NAN,
    body,
    external,
    facts,
    model,
    node,
    operators_of,
    places_of,
    raw,
    tensor,
    typed,
)

from registry_tool.checks.operators import ALLOWED_OPS
from registry_tool.onnx_summary import (
    ExternalTensor,
    Initializer,
    NonFinite,
    OnnxError,
    OnnxSummary,
    Port,
    Scaling,
    Sized,
)
from registry_tool.sandbox.reader import read_model
from registry_tool.sandbox.tensors import FLOAT_BITS


def test_a_plain_model_has_plain_facts() -> None:
    """Versions, ports, operators and weights are the file's; everything that could be amiss is empty."""
    assert facts(model()) == OnnxSummary(
        ir_version=8,
        opsets={"": 17},
        inputs=(Port("x", "float32", ("N", 3)),),
        outputs=(Port("y", "float32", ("N",)),),
        defaults=(),
        newer="",
        external=(),
        ops=(("", "Add"),),
        n_nodes=1,
        functions=(),
        initializers=(Initializer("w", "float32", (3,), 12),),
        unused=(),
        non_finite=(),
        payloads=(),
        malformed=(),
        sized=(),
        scalings=(Scaling("x", "Add", (1.0, 2.0, 3.0)),),
        metadata=(),
        text_bytes=len("xwyAdd") + len("graph") + len("w") + len("x") + len("N") + len("y") + len("N"),
        training_info=False,
        oddities=(),
        values_sha256=facts(model(tensors=(tensor("other", [1, 2, 3]),))).values_sha256,
    )


def test_ports_tell_types_and_shapes() -> None:
    """Sizes, names and open axes, a missing shape, other types, and no input for what has a default."""
    proto = model()
    proto.graph.input.extend(
        [
            helper.make_tensor_value_info("w", FLOAT, [3]),
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, [None, "H", 4]),
            helper.make_tensor_value_info("any", TensorProto.INT64, None),
            helper.make_tensor_sequence_value_info("several", FLOAT, None),
            onnx.ValueInfoProto(name="bare"),
            helper.make_tensor_value_info("odd", 99, []),
        ]
    )
    assert facts(proto).inputs == (
        Port("x", "float32", ("N", 3)),
        Port("half", "float16", (None, "H", 4)),
        Port("any", "int64", None),
        Port("several", "sequence", None),
        Port("bare", "unknown", None),
        Port("odd", "unknown(99)", ()),
    )


def _training(proto: ModelProto) -> None:
    proto.training_info.add().algorithm.CopyFrom(body(node("Evil", "", "o")))


def _function(proto: ModelProto) -> None:
    proto.functions.append(helper.make_function("own", "f", ["a"], ["o"], [node("Evil", "a", "o")], []))


def _attribute(op: str, *names: str) -> Callable[[ModelProto], None]:
    def add(proto: ModelProto) -> None:
        inner = body(node("Evil", "", "o"))
        for _ in range(3):
            inner = body(node(op, "c", "o", **dict.fromkeys(names, inner)))
        proto.graph.node.append(node(op, "c", "z", **dict.fromkeys(names, inner)))

    return add


@pytest.mark.parametrize(
    "hide",
    [
        lambda p: p.graph.node.append(node("Evil", "x", "z")),
        _attribute("If", "then_branch", "else_branch"),
        _attribute("Loop", "body"),
        _attribute("Scan", "body"),
        lambda p: p.graph.node.append(node("Many", "x", "z", graphs=[body(node("Evil", "", "o"))])),
        _function,
        _training,
    ],
    ids=["graph", "If", "Loop", "Scan", "graph list", "function", "training"],
)
def test_an_operator_is_found_at_any_depth(hide: Callable[[ModelProto], None]) -> None:
    """A node counts in the graph, in nested bodies, in functions and in training information."""
    proto = model()
    hide(proto)
    assert ("", "Evil") in facts(proto).ops


def test_domains_are_told_apart() -> None:
    """A name of the list in a foreign domain is foreign; ai.onnx is the standard domain."""
    proto = model(node("Add", "x w", "a", domain="com.evil"), node("Add", "a w", "y", domain="ai.onnx"))
    proto.opset_import.append(helper.make_opsetid("com.evil", 1))
    _function(proto)
    found = facts(proto)
    assert found.ops == (("", "Add"), ("", "Evil"), ("com.evil", "Add"))
    assert found.opsets == {"": 17, "com.evil": 1}
    assert (found.functions, found.n_nodes, found.training_info) == (("own::f",), 3, False)
    _training(proto)
    assert facts(proto).training_info


NAN_TENSORS = {
    "raw float32": tensor("bad", [1.0, NAN]),
    "raw float64": tensor("bad", [1.0, -NAN], "float64"),
    "raw float16": tensor("bad", [1.0, NAN], "float16"),
    "raw complex64": tensor("bad", [complex(1.0, NAN)], "complex64"),
    "raw bfloat16": raw(TensorProto.BFLOAT16, b"\x80\x3f\xc0\x7f", 2),
    "raw float8e4m3fn": raw(TensorProto.FLOAT8E4M3FN, b"\x01\x7f", 2),
    "raw float8e4m3fnuz": raw(TensorProto.FLOAT8E4M3FNUZ, b"\x01\x80", 2),
    "raw float8e5m2": raw(TensorProto.FLOAT8E5M2, b"\x01\xfd", 2),
    "float_data": typed(FLOAT, "float_data", [1.0, NAN]),
    "float_data of complex64": typed(TensorProto.COMPLEX64, "float_data", [1.0, NAN]),
    "double_data": typed(TensorProto.DOUBLE, "double_data", [NAN]),
    "float16 in int32_data": typed(TensorProto.FLOAT16, "int32_data", [0x3C00, 0xFC01]),
    "bfloat16 in int32_data": typed(TensorProto.BFLOAT16, "int32_data", [0x3F80, 0x7FC0]),
    "float8e5m2 in int32_data": typed(TensorProto.FLOAT8E5M2, "int32_data", [0x7E]),
}
INFINITE_TENSORS = {
    "raw float32": tensor("bad", [1.0, -np.inf]),
    "raw float64": tensor("bad", [np.inf], "float64"),
    "raw float16": tensor("bad", [1.0, np.inf], "float16"),
    "raw bfloat16": raw(TensorProto.BFLOAT16, b"\x80\x3f\x80\xff", 2),
    "raw float8e5m2": raw(TensorProto.FLOAT8E5M2, b"\x01\xfc", 2),
    "float_data": typed(FLOAT, "float_data", [1.0, np.inf]),
    "float16 in int32_data": typed(TensorProto.FLOAT16, "int32_data", [0x3C00, 0xFC00]),
    "float8e5m2 in int32_data": typed(TensorProto.FLOAT8E5M2, "int32_data", [0x7C]),
}


@pytest.mark.parametrize("name", NAN_TENSORS)
def test_nan_is_found_wherever_it_is_stored(name: str) -> None:
    """NaN, in any float type and any storage, in any place that takes a tensor."""
    places = list(places_of(NAN_TENSORS[name]))
    assert [facts(proto).non_finite for proto in places] == [(NonFinite("bad"),)] * len(places)


@pytest.mark.parametrize("name", INFINITE_TENSORS)
def test_an_infinity_is_found_where_it_is_computed_with(name: str) -> None:
    """An infinite constant, in any float type and storage, counts by who reads it: a product, not a bound."""
    bad = INFINITE_TENSORS[name]
    product = model(node("Mul", "x bad", "y"), tensors=(bad,))
    assert facts(product).non_finite == (NonFinite("bad", ("Mul",)),)
    assert facts(model(node("Max", "x bad", "y"), tensors=(bad,))).non_finite == ()
    held = model(node("Constant", "", "c", value=bad), node("Mul", "x c", "y"))
    assert facts(held).non_finite == (NonFinite("bad", ("Mul",)),)


MASK = tensor("m", [[0.0, -np.inf], [0.0, 0.0]])
FLIPPED = tensor("m", [[0.0, np.inf], [0.0, 0.0]])
MASKS: dict[str, tuple[list[NodeProto], TensorProto, tuple[str, ...]]] = {
    "Where": ([node("Where", "c m x", "y")], MASK, ()),
    "Max": ([node("Max", "x m", "y")], MASK, ()),
    "Min of +inf": ([node("Min", "x m", "y")], FLIPPED, ()),
    "Clip": ([node("Clip", "x m", "y")], MASK, ()),
    "Pad": ([node("Pad", "x p m", "y")], MASK, ()),
    "a comparison": ([node("Equal", "x m", "y")], MASK, ()),
    "moved, then Where": ([node("Unsqueeze", "m a", "n"), node("Where", "c n x", "y")], MASK, ()),
    "a mask's Add": ([node("Add", "x m", "s"), node("Softmax", "s", "y")], MASK, ()),
    "a mask's Add, reshaped": (
        [node("Add", "x m", "s"), node("Reshape", "s p", "r"), node("Softmax", "r", "y")],
        MASK,
        (),
    ),
    "a mask added to a mask": (
        [node("Add", "m n", "s"), node("Add", "x s", "t"), node("LogSoftmax", "t", "y")],
        MASK,
        (),
    ),
    "an Add with +inf": ([node("Add", "x m", "s"), node("Softmax", "s", "y")], FLIPPED, ("Add",)),
    "an Add with what Neg makes +inf": (
        [node("Neg", "m", "n"), node("Add", "x n", "s"), node("Softmax", "s", "y")],
        MASK,
        ("Add",),
    ),
    "an Add that goes on": ([node("Add", "x m", "s"), node("MatMul", "s w", "y")], MASK, ("MatMul",)),
    "an Add that is the output": ([node("Add", "x m", "y")], MASK, ("output",)),
    "an Add, then Where, then a product": (
        [node("Add", "x m", "s"), node("Where", "c s x", "t"), node("Mul", "t t", "y")],
        MASK,
        ("Mul",),
    ),
    "MatMul": ([node("MatMul", "x m", "y")], MASK, ("MatMul",)),
    "Conv": ([node("Conv", "x m", "y")], MASK, ("Conv",)),
    "two readers": ([node("Max", "x m", "a"), node("Div", "x m", "y")], MASK, ("Div",)),
    "moved, then a product": ([node("Transpose", "m", "n"), node("Gemm", "x n", "y")], MASK, ("Gemm",)),
    "the output itself": ([node("Identity", "m", "y")], MASK, ("output",)),
    "returned by a branch": (
        [
            node("If", "c", "z", then_branch=body(node("Identity", "m", "o")), else_branch=body(node("Abs", "x", "o"))),
            node("Mul", "z x", "y"),
        ],
        MASK,
        ("Mul",),
    ),
    "returned by a branch, then Max": (
        [
            node("If", "c", "z", then_branch=body(node("Identity", "m", "o")), else_branch=body(node("Abs", "x", "o"))),
            node("Max", "z x", "y"),
        ],
        MASK,
        (),
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_infinities_that_mask_or_bound_are_fine(name: str) -> None:
    """Minus infinity may choose, bound, pad and mask what a softmax reads; in a product or a sum it is a finding."""
    nodes, mask, readers = MASKS[name]
    expected = (NonFinite("m", readers),) if readers else ()
    assert facts(model(*nodes, tensors=(mask,))).non_finite == expected


def test_infinite_attributes_count_by_their_operator() -> None:
    """The bounds of Clip and the value of Pad may be infinite, as a constant's number; a slope may not."""
    fine = model(
        node("Clip", "x", "a", min=-np.inf),
        node("Pad", "a", "b", pads=[1, 1], value=-np.inf),
        node("Constant", "", "c", value_float=-np.inf),
        node("Max", "b c", "y"),
    )
    assert facts(fine).non_finite == ()
    bad = model(
        node("LeakyRelu", "x", "a", alpha=np.inf),
        node("Constant", "", "c", value_floats=[1.0, np.inf]),
        node("Mul", "a c", "y"),
    )
    assert facts(bad).non_finite == (
        NonFinite("graph.node[0].attribute[0]", ("LeakyRelu",)),
        NonFinite("graph.node[1].attribute[0]", ("Mul",)),
    )


def test_a_tree_may_split_at_infinity() -> None:
    """A threshold that every input is below is a bound; a leaf's weight is added, and may not be infinite."""
    fine = model(node("TreeEnsembleRegressor", "x", "y", nodes_values=[0.5, np.inf], target_weights=[1.0]))
    assert facts(fine).non_finite == ()
    bad = model(node("TreeEnsembleRegressor", "x", "y", nodes_values=[0.5], target_weights=[np.inf]))
    assert [found.readers for found in facts(bad).non_finite] == [("TreeEnsembleRegressor",)]


@pytest.mark.parametrize("name", FINITE_TENSORS)
def test_finite_numbers_are_left_alone(name: str) -> None:
    """The largest finite values and integers whose bits look like NaN are neither not finite nor malformed."""
    for proto in places_of(FINITE_TENSORS[name]):
        found = facts(proto)
        assert (found.non_finite, found.malformed, found.oddities) == ((), (), ())


def test_attributes_are_looked_at_too() -> None:
    """NaN in a float or a list of floats is found and named by its place."""
    proto = model(node("Clip", "x", "a", low=1.0, high=NAN), node("Scale", "a", "y", by=[1.0, NAN]))
    assert facts(proto).non_finite == (
        NonFinite("graph.node[0].attribute[0]"),
        NonFinite("graph.node[1].attribute[0]"),
    )


def test_many_packed_values_are_all_seen() -> None:
    """A NaN among many packed integers is found, the last one too."""
    values = np.full(300_000, 0x3F80)
    assert (
        facts(model(tensors=(tensor("w", [1]), typed(TensorProto.BFLOAT16, "int32_data", values.tolist())))).non_finite
        == ()
    )
    values[-1] = 0x7F81
    bad = typed(TensorProto.BFLOAT16, "int32_data", values.tolist())
    assert facts(model(tensors=(bad,))).non_finite == (NonFinite("bad"),)


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 8 * 8]))
def test_finiteness_is_numpys(payload: bytes) -> None:
    """NaN and infinities are numpy's, on any bits of float16, float32 and float64."""
    for kind in ("float16", "float32", "float64"):
        values = np.frombuffer(payload, dtype=kind)
        bits = np.frombuffer(payload, f"<u{values.itemsize}")
        found = FLOAT_BITS[kind].odd_values(bits)
        expected = np.isnan(values).any(), np.isinf(values).any(), np.isposinf(values).any()
        assert (found.nan, found.infinite, found.positive) == expected


PICKLED = pickle.dumps(OSError)  # by name: what unpickles it imports something
HIDDEN = {
    "a pickle in base64": (base64.b64encode(PICKLED).decode(), "a pickle"),
    "a pickle in url-safe base64, among words": (f"see: {base64.urlsafe_b64encode(PICKLED).decode()} !", "a pickle"),
    "a pickle in hexadecimal digits": (PICKLED.hex(), "a pickle"),
    "a pickle in Latin-1": (PICKLED.decode("latin-1"), "a pickle"),
    **{
        f"a pickle of protocol 0 in base64, {spaces} spaces in it": (
            base64.b64encode(f"cos\nsystem\n(S'true{' ' * spaces}'\ntR.".encode()).decode(),
            "a pickle",
        )
        for spaces in (0, 1, 2, 100_000)
    },
    "a pickle of protocol 0": ("cos\nsystem\n(S'true'\ntR.", "a pickle"),
    "a program": ("\x7fELF\x02\x01\x01\x00" + "\x00" * 8, "a program (ELF)"),
    "an archive in base64": (base64.b64encode(b"PK\x03\x04" + bytes(26)).decode(), "an archive (zip)"),
}
PLAIN_TEXTS = [
    "",
    "I1\n.",
    "cosine similarity, see os.system",
    "(c) 2024",
    "MZ",
    "a" * 64,
    "0123456789abcdef" * 4,
    "Space(x=1)",
    '{"key": "dGhpcyBpcyBwbGFpbiB0ZXh0IGluIGJhc2U2NA=="}',
    "/usr/lib/python3.11/site-packages/torch/nn/modules/conv.py",
    "d41d8cd98f00b204e9800998ecf8427e",
    "N.",
    "].",
    "é" * 40,
]


@pytest.mark.parametrize("name", HIDDEN)
def test_payloads_are_found_in_every_text(name: str) -> None:
    """A pickle, a program or an archive: in metadata, in documents, in strings of nodes, in what nothing reads."""
    text, found = HIDDEN[name]
    proto = model()
    proto.metadata_props.add(key="config", value=text)
    proto.graph.doc_string = text
    proto.graph.node[0].doc_string = text
    proto.graph.node[0].attribute.add(name="s", s=text.encode("latin-1"), type=AttributeProto.STRING)
    payloads = facts(proto).payloads
    assert {place: what for place, _, what in (line.partition(": ") for line in payloads)} == {
        "graph.node[0].attribute[0].s": found,
        "graph.node[0].doc_string": found,
        "graph.doc_string": found,
        "metadata_props[0].value": found,
    }


def test_payloads_are_found_in_tensors_that_nothing_reads() -> None:
    """Bytes of an unread tensor that begin like a file are named; the same bytes as weights are weights."""
    blob = raw(TensorProto.UINT8, PICKLED, len(PICKLED))
    assert facts(model(tensors=(tensor("w", [1, 2, 3]), blob))).payloads == ("graph.initializer[1]: a pickle",)
    assert facts(model(node("Add", "x bad", "y"), tensors=(blob,))).payloads == ()


def test_a_node_that_gives_nothing_to_an_output_hides_no_payload() -> None:
    """A tensor that such nodes alone read, hold, or return from a branch is unread, and found."""
    blob, add = raw(TensorProto.UINT8, PICKLED, len(PICKLED)), node("Add", "x w", "y")
    kept = [tensor("w", [1, 2, 3]), tensor("flag", [1])]
    branch = body(node("Identity", "bad", "inner"), outputs="inner")
    returned = body(outputs="bad")
    dead = [
        (node("Identity", "bad", "dead"), node("Neg", "dead", "deader")),
        (node("If", "flag", "dead", then_branch=branch, else_branch=branch),),
        (node("If", "flag", "dead", then_branch=returned, else_branch=returned),),
    ]
    for nodes in dead:
        found = facts(model(add, *nodes, tensors=(*kept, blob)))
        assert "graph.initializer[2]: a pickle" in found.payloads
    constant = facts(model(add, node("Constant", "", "dead", value=blob), tensors=tuple(kept))).payloads
    assert constant == ("graph.node[1].attribute[0].t: a pickle",)
    live = node("If", "flag", "z", then_branch=branch, else_branch=returned)
    found = facts(model(live, node("Cast", "z", "y", to=FLOAT), tensors=(*kept, blob)))
    assert found.payloads == ()


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_plain_texts_hide_nothing(text: str) -> None:
    """Words, digests, paths and JSON are no payloads."""
    proto = model()
    proto.metadata_props.add(key="config", value=text)
    assert facts(proto).payloads == ()


def test_inputs_with_a_default_and_newer_versions_are_told() -> None:
    """An initializer that is an input too; an IR version or opset that the installed onnx does not know."""
    proto = model()
    proto.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [3]))
    assert (facts(proto).defaults, facts(model()).defaults) == (("w",), ())
    proto.ir_version = onnx.IR_VERSION
    proto.opset_import[0].version = onnx.defs.onnx_opset_version()
    assert facts(proto).newer == ""
    proto.ir_version += 1
    assert f"IR version {onnx.IR_VERSION + 1};" in facts(proto).newer
    proto.opset_import[0].version += 1
    assert f"IR version {onnx.IR_VERSION + 1} and opset" in facts(proto).newer


def test_weights_in_other_files_are_listed() -> None:
    """Location, range, checksum, type and size of each; the file itself is not opened."""
    proto = external(location="../../etc/passwd", offset=4096, length=24, checksum="abc")
    assert facts(model(tensors=(proto,))).external == (
        ExternalTensor("w", "float32", 24, "../../etc/passwd", 4096, 24, "abc"),
    )
    assert facts(model(tensors=(external(location="w.data"),))).external == (
        ExternalTensor("w", "float32", 24, "w.data", 0, None, None),
    )
    half_said = external(location="w.data")
    half_said.data_location = TensorProto.DEFAULT
    assert len(facts(model(tensors=(half_said,))).external) == 1
    nested = model(node("If", "x", "y", then_branch=body(initializer=[external(location="a")]), else_branch=body()))
    assert [entry.location for entry in facts(nested).external] == ["a"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "no location"),
        ({"offset": 1}, "no location"),
        ({"location": ""}, "no location"),
        ({"location": "a", "offset": -1}, "offset '-1'"),
        ({"location": "a", "length": "1e3"}, "length '1e3'"),
        ({"location": "a", "length": "9" * 99}, "length '9999"),
        ({"location": "a", "offset": "٣"}, "offset"),
        ({"location": "a", "basepath": "/"}, "unknown or repeated key"),
    ],
)
def test_unclear_external_data_is_an_error(entries: dict[str, Any], message: str) -> None:
    """No location, a range that is no number, a key that ONNX does not define: not guessed at."""
    with pytest.raises(OnnxError, match=message):
        facts(model(tensors=(external(**entries),)))


def test_a_location_given_twice_is_an_error() -> None:
    """Readers differ in which of two locations they take."""
    proto = external(location="a")
    proto.external_data.add(key="location", value="b")
    with pytest.raises(OnnxError, match="repeated key"):
        facts(model(tensors=(proto,)))


def _here_and_elsewhere() -> TensorProto:
    proto = external(location="a")
    proto.raw_data = bytes(24)
    return proto


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (raw(FLOAT, b"1234", 2), "bad: found 4 values or bytes, its shape asks for 8"),
        (raw(FLOAT, b"", 2**39), "bad: found 0 values or bytes, its shape asks for 2199023255552"),
        (raw(FLOAT, b"", 1), "bad: found 0"),
        (TensorProto(name="bad", data_type=FLOAT, dims=[3], float_data=[1.0]), "bad: found 1 .* asks for 3"),
        (TensorProto(name="bad", data_type=TensorProto.INT64, dims=[1], int64_data=[1, 2]), "bad: found 2"),
        (TensorProto(name="bad", data_type=FLOAT, dims=[1], int64_data=[1]), "float32 values in int64_data, expected"),
        (
            TensorProto(name="bad", data_type=FLOAT, dims=[1], float_data=[1.0], raw_data=b"1234"),
            "in float_data, raw_data, expected",
        ),
        (TensorProto(name="bad", data_type=77, dims=[1], raw_data=b"1234"), "bad: found 4"),
        (_here_and_elsewhere(), "w: it has values in this file and in another one"),
    ],
)
def test_bytes_that_do_not_fit_the_shape_are_named(proto: TensorProto, message: str) -> None:
    """Too few, too many, in the wrong field, in two fields, of no known type, here and elsewhere."""
    found = facts(model(tensors=(proto,))).malformed
    assert len(found) == 1
    assert re.search(message, found[0])


def test_what_makes_large_outputs_is_listed() -> None:
    """Sizes and trip counts that are constants are multiplied out; computed or ambiguous ones are None."""
    size, rounds = tensor("size", [1000, 1000, 1000], "int64"), typed(TensorProto.INT64, "int64_data", [7])
    rounds.dims.pop()
    rounds.name = "rounds"
    loop = body(node("Relu", "i", "o"), inputs="i c", outputs="c o")
    proto = model(
        node("Constant", "", "times", value=tensor("", [2, 8], "int64")),
        node("ConstantOfShape", "size", "a", name="zeros"),
        node("Expand", "x size", "b"),
        node("Expand", "x a", "d"),
        node("Tile", "x times", "e"),
        node("Loop", "rounds cond", "f", body=loop),
        helper.make_node("Loop", ["", "cond"], ["g"], body=body(node("Expand", "x shadow", "o"), inputs="shadow")),
        node("OneHot", "x", "h"),
        tensors=(size, rounds, tensor("shadow", [1], "int64")),
    )
    assert facts(proto).sized == (
        Sized("zeros", "ConstantOfShape", 10**9),
        Sized("graph.node[2]", "Expand", 10**9),
        Sized("graph.node[3]", "Expand", None),
        Sized("graph.node[4]", "Tile", 16),
        Sized("graph.node[5]", "Loop", 7),
        Sized("graph.node[6]", "Loop", None),
        Sized("graph.node[6].attribute[0].g.node[0]", "Expand", None),
        Sized("graph.node[7]", "OneHot", None),
    )


def test_metadata_and_text_are_measured() -> None:
    """metadata_props at any level with their sizes; documents, names and string tensors in the total."""
    proto = model()
    before = facts(proto).text_bytes
    proto.metadata_props.add(key="a", value="12345")
    proto.graph.node[0].metadata_props.add(key="bc", value="1")
    proto.graph.doc_string = "d" * 1000
    proto.graph.initializer.append(typed(TensorProto.STRING, "string_data", [b"e" * 100]))
    found = facts(proto)
    assert sorted(found.metadata) == [("a", 6), ("bc", 3)]
    assert found.text_bytes == before + 6 + 3 + 1000 + 100 + len("bad")
    assert found.unused == ("bad",)


EXAMPLES = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").glob("*/*/*.onnx"))


@pytest.mark.skipif(not EXAMPLES, reason="the installed onnx package has no example models")
def test_real_models_read_without_complaint() -> None:
    """onnx's own examples have no oddities, and their ports and operators are those that onnx reads."""
    for path in EXAMPLES:
        data = path.read_bytes()
        found, proto = read_model(data), onnx.load_model_from_string(data)
        assert (found.oddities, found.malformed) == ((), ()), path
        preset = {item.name for item in proto.graph.initializer}
        assert [port.name for port in found.inputs] == [v.name for v in proto.graph.input if v.name not in preset]
        assert [port.name for port in found.outputs] == [v.name for v in proto.graph.output]
        assert {op for _, op in found.ops} == operators_of(proto)
        assert [(i.name, i.dims) for i in found.initializers if "." not in i.name] == [
            (i.name, tuple(i.dims)) for i in proto.graph.initializer if "." not in i.name
        ]


def test_the_list_is_of_standard_operators() -> None:
    """Every allowed operator exists in ONNX; none draws random numbers, reads strings or opens images."""
    standard = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert standard >= ALLOWED_OPS
    used = {"Conv", "Gemm", "MatMul", "Erf", "QuantizeLinear", "QLinearConv", "ConvInteger", "Resize", "If"}
    assert used <= ALLOWED_OPS
    refused = {"RandomNormal", "Multinomial", "Bernoulli", "ImageDecoder", "StringConcat", "SequenceMap", "Optional"}
    assert not refused & ALLOWED_OPS


def test_unused_attribute_types_are_walked() -> None:
    """A type with a sequence of maps is read to its end without complaint."""
    proto = model()
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(7, helper.make_tensor_type_proto(FLOAT, [1])))
    attribute = AttributeProto(name="t", type=AttributeProto.TYPE_PROTO, tp=kind)
    proto.graph.node[0].attribute.append(attribute)
    assert facts(proto).oddities == ()


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.ClearField("name"),
        lambda t: t.float_data.extend(np.frombuffer(t.raw_data, "<f4").tolist()) or t.ClearField("raw_data"),
    ],
    ids=["another name", "another field"],
)
def test_the_digest_of_values_is_that_of_the_numbers(edit: Callable[[TensorProto], None]) -> None:
    """Names and the field that stores them change nothing; another number does, in this file or in another."""
    values = [1.0, -0.0, 3.5]
    plain, other, changed = tensor("w", values), tensor("w", values), tensor("w", [1.0, 0.0, 3.5])
    edit(other)
    assert facts(model(tensors=(plain,))).values_sha256 == facts(model(tensors=(other,))).values_sha256
    assert facts(model(tensors=(plain,))).values_sha256 != facts(model(tensors=(changed,))).values_sha256
    outside = model(tensors=(external(location="a", length=24),)).SerializeToString()
    digests = {read_model(outside, {"a": bytes([n]) * 24}).values_sha256 for n in (0, 0, 1)}
    assert len(digests) == 2


def test_a_summary_survives_json() -> None:
    """What the child writes is what the parent reads; a document of another shape is refused, wherever it differs."""
    proto = model(
        node("Expand", "x size", "b"), tensors=(tensor("size", [2], "int64"), external(location="a", checksum="c"))
    )
    proto.metadata_props.add(key="a", value="b")
    found = facts(proto)
    document = json.loads(json.dumps(found.to_dict()))
    assert OnnxSummary.from_dict(document) == found
    for key, value in document.items():
        for wrong in (None, 1.5, [[None]], {"a": {}}):
            if wrong != value:
                with pytest.raises(ValueError, match="expected"):
                    OnnxSummary.from_dict(document | {key: wrong})
    for broken in (None, [], {}, document | {"more": 1}, {k: v for k, v in document.items() if k != "ops"}):
        with pytest.raises(ValueError, match="expected"):
            OnnxSummary.from_dict(broken)
