"""onnx_attacks.py: hidden bytes and hostile content of a small ONNX model, each to be found. Tests nothing."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Iterator

import numpy as np
import tiny_models
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, helper, numpy_helper

Path = tuple[str | int, ...]  # of a message within the model


def messages(message: Message, path: Path = ()) -> Iterator[Path]:
    """Every message of a model, itself first."""
    yield path
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            items = value if descriptor.is_repeated else [value]
            for index, item in enumerate(items):
                yield from messages(
                    item, (*path, descriptor.name, index) if descriptor.is_repeated else (*path, descriptor.name)
                )


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append(number & 127 | (128 if number > 127 else 0))
        number >>= 7
        if not number:
            return bytes(out)


def with_unknown_field(message: Message, path: Path, payload: bytes) -> bytes:
    """The message's bytes with a payload appended to one message within it; lengths made to fit."""
    if not path:
        return message.SerializeToString(deterministic=True) + payload
    name, rest = path[0], path[1:]
    field = next(descriptor for descriptor in message.DESCRIPTOR.fields if descriptor.name == name)
    items = getattr(message, str(name)) if field.is_repeated else [getattr(message, str(name))]
    chosen, rest = (rest[0], rest[1:]) if field.is_repeated else (0, rest)
    out = b""
    other = type(message)()
    other.CopyFrom(message)
    other.ClearField(str(name))
    out += other.SerializeToString(deterministic=True)
    for index, item in enumerate(items):
        data = (
            with_unknown_field(item, rest, payload) if index == chosen else item.SerializeToString(deterministic=True)
        )
        out += varint(field.number << 3 | 2) + varint(len(data)) + data
    return out


PAYLOADS = {
    "an unknown varint": varint(2000 << 3) + b"\1",
    "an unknown text": varint(2000 << 3 | 2) + b"\4evil",
    "an unknown fixed64": varint(2000 << 3 | 1) + bytes(8),
    "an unknown fixed32": varint(2000 << 3 | 5) + bytes(4),
}


def hidden() -> Iterator[tuple[str, bytes]]:
    """Fields that no schema knows, in every message; a number in a longer form; bytes behind the end."""
    base = tiny_models.model(codec=5)
    data = base.SerializeToString(deterministic=True)
    for path in messages(base):
        for name, payload in PAYLOADS.items():
            yield f"{name} in {'/'.join(map(str, path)) or 'the model'}", with_unknown_field(base, path, payload)
    assert data[:2] == b"\x08\x08"
    yield "the IR version in two bytes", b"\x08\x88\x00" + data[2:]
    yield "the IR version twice", b"\x08\x07" + data
    for extra in (b"\0", b"\n", b"PK\3\4", data):
        yield f"{len(extra)} bytes behind the end", data + extra


def content() -> Iterator[tuple[str, bytes]]:
    """Models that a runtime would load, and that no registry should hold."""
    payload = pickle.dumps({"a": np.arange(64)})
    changes: dict[str, Callable[[ModelProto], object]] = {
        "a pickle in the documentation": lambda m: setattr(m, "doc_string", base64.b64encode(payload).decode()),
        "a pickle in the metadata": lambda m: m.metadata_props.add(key="x", value=base64.b64encode(payload).decode()),
        "a program in an unused tensor": lambda m: m.graph.initializer.append(
            numpy_helper.from_array(np.frombuffer(b"\x7fELF\2\1\1" + bytes(500), np.uint8), "program")
        ),
        "a weight that is an input": lambda m: m.graph.input.append(
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 1])
        ),
        "another output": lambda m: setattr(m.graph.output[0], "name", "other"),
        "no output": lambda m: m.graph.ClearField("output"),
        "no input": lambda m: m.graph.ClearField("input"),
        "a foreign domain": lambda m: setattr(m.graph.node[1], "domain", "com.example"),
        "an operator that is refused": lambda m: setattr(m.graph.node[1], "op_type", "RandomNormalLike"),
        "training information": lambda m: m.training_info.add(),
        "a function": lambda m: m.functions.add(name="f", domain="d"),
        "an absurd input": lambda m: setattr(rows_of(m), "dim_value", 2**40),
        "an input without elements": lambda m: setattr(rows_of(m), "dim_value", 0),
        "an opset of the future": lambda m: setattr(m.opset_import[0], "version", 999),
        "an IR version of the future": lambda m: setattr(m, "ir_version", 99),
        "weights elsewhere": lambda m: external(m, "../w.bin"),
        "weights at an absolute path": lambda m: external(m, "/etc/passwd"),
        "weights that nothing pins": lambda m: external(m, "w.bin"),
        "an output that is NaN": lambda m: append(m, ("Sqrt", "score", "root"), ("Div", "root zero", "final")),
        "an output that is constant": lambda m: append(m, ("Mul", "score zero", "final")),
    }
    for value in (np.nan, np.inf, -np.inf):
        for index in range(6):

            def weight(m: ModelProto, value: float = value, index: int = index) -> None:
                array = numpy_helper.to_array(m.graph.initializer[0]).copy()
                array[index] = value
                m.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))

            changes[f"weight {index} is {value}"] = weight
    for name, change in changes.items():
        made = tiny_models.model()
        change(made)
        yield name, made.SerializeToString(deterministic=True)
    for rounds in (65_537, 2**40):
        for outer in (False, True):
            yield f"a loop of {rounds} rounds{', in a branch that is not taken' if outer else ''}", loop(rounds, outer)


def rows_of(model: ModelProto) -> Message:
    """The open axis of the input."""
    return model.graph.input[0].type.tensor_type.shape.dim[0]


def external(model: ModelProto, location: str) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)


def append(model: ModelProto, *nodes: tuple[str, str, str]) -> None:
    """Further nodes behind the score; the last one's result is the output."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.float32), "zero"))
    model.graph.node.extend(helper.make_node(op, inputs.split(), outputs.split()) for op, inputs, outputs in nodes)
    model.graph.output[0].name = nodes[-1][2]


def loop(rounds: int, branch: bool) -> bytes:
    """A loop of so many rounds, at the top or in a branch that a constant never takes."""
    number, flag = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", number, []),
            helper.make_tensor_value_info("going", flag, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", flag, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    made = tiny_models.model()
    made.graph.initializer.extend(
        [numpy_helper.from_array(np.array(rounds), "rounds"), numpy_helper.from_array(np.array(branch is False), "yes")]
    )
    node = helper.make_node("Loop", ["rounds", "yes", "score"], ["looped"], body=body)
    if branch:
        out = [helper.make_tensor_value_info("looped", TensorProto.FLOAT, None)]
        then = helper.make_graph([node], "then", [], out)
        same = helper.make_graph([helper.make_node("Identity", ["score"], ["looped"])], "else", [], out)
        node = helper.make_node("If", ["yes"], ["looped"], then_branch=then, else_branch=same)
    made.graph.node.append(node)
    made.graph.output[0].name = "looped"
    return made.SerializeToString(deterministic=True)


def broken(data: bytes, each: int, random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Bytes changed at random: many of them give another sound model, so only how it ends is told."""
    for number in range(each):
        changed = bytearray(data)
        for position in random.integers(0, len(data), size=1 + number % 4):
            changed[position] ^= int(random.integers(1, 256))
        yield f"random bytes {number}", bytes(changed)
