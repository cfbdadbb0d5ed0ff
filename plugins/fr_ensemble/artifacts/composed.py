"""composed.py: one graph of members that others exported, behind raw inputs. Reads no file, judges nothing.

`graphs.py` writes the fused graph of networks that were trained here; the members of a public ensemble are whatever
their exporter made. So their graphs are put side by side as they are: every name of member 2 begins with `m2/`, all
take the same scaled features, and mu and sigma are made of their scores. The same bytes give the same graph.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fr_ensemble.arrays import Scaler
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, PRODUCER, SIGMA
from registry_tool.hookspec import EntryView
from registry_tool.values import Json

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

FIRST_OPSET = 8  # Sum, Sub and Div take operands of any shapes since then
SCALED_TENSOR = "scaled"


def composed(view: EntryView, manifest: Mapping[str, Json]) -> bytes:
    """The fused graph of a completed manifest, from its members. Raises ValueError where there can be none."""
    members = []
    for member in manifest["members"]:
        view.onnx(member["onnx"])  # a child parses it, within limits, before this process does
        members.append((member["onnx"], view.read(member["onnx"])))
    scaler = Scaler(*(np.asarray(manifest[name], np.float64) for name in ("feature_mean", "feature_std")))
    about = {"kind": manifest["kind"], "target": manifest["target"]["name"]}
    return composed_model(members, scaler, len(manifest["codec_block"]), view.read, about)


def composed_model(
    members: Sequence[tuple[str, bytes]],
    scaler: Scaler,
    n_codec: int,
    read: Callable[[str], bytes],
    metadata: Mapping[str, str],
) -> bytes:
    """All M members, with their weights, and the scaler of their F features, as one ONNX file.

    members: path and bytes of each, in order; a child process has parsed them within limits. read: a file beside them.
    Inputs `features` float32 [N, F], raw, and `codec_onehot` float32 [N, n_codec]; outputs `mu` and `sigma` float32
    [N], mean and sample standard deviation (ddof 1) of the scores. The mean is taken twice and sigma is two-pass, as in
    `graphs.fused_model`.

    Raises ValueError, in words, for members that cannot be put side by side.
    """
    from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

    if len(members) < 2:
        raise ValueError(f"found {len(members)} member, expected at least 2: one score has no sample deviation")
    models = [_parsed(path, data) for path, data in members]
    _check_alike(models)
    graph = GraphProto(name="fr_ensemble_composed")

    def constant(name: str, values: ArrayLike) -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

    def add(op: str, output: str, *inputs: str) -> str:
        graph.node.append(helper.make_node(op, inputs, [output], name=output))
        return output

    constant("mean", scaler.mean.astype(np.float32))
    constant("std", scaler.std.astype(np.float32))
    add("Div", SCALED_TENSOR, add("Sub", "centred", FEATURES, "mean"), "std")
    for name, values in (("row", [-1]), ("count", np.float32(len(models))), ("ddof", np.float32(len(models) - 1))):
        constant(name, np.asarray(values, np.int64) if name == "row" else values)
    scores = []
    for place, (model, (path, _)) in enumerate(zip(models, members, strict=True)):
        first = len(graph.initializer)
        output = _add_member(graph, model.graph, f"m{place}/", n_codec)
        for tensor in graph.initializer[first:]:
            _take_in(tensor, posixpath.dirname(path), read)
        scores.append(add("Reshape", f"score{place}", output, "row"))
    mean = add("Div", "mean0", add("Sum", "total", *scores), "count")
    deviations = [add("Sub", f"deviation{place}", score, mean) for place, score in enumerate(scores)]
    add("Add", MU, mean, add("Div", "correction", add("Sum", "shift", *deviations), "count"))
    squares = [add("Mul", f"square{place}", one, one) for place, one in enumerate(deviations)]
    add("Sqrt", SIGMA, add("Div", "variance", add("Sum", "sum_of_squares", *squares), "ddof"))
    ports = {FEATURES: len(scaler.mean), CODEC: n_codec}
    graph.input.extend(helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", n]) for key, n in ports.items())
    graph.output.extend(helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N"]) for key in (MU, SIGMA))
    made = ModelProto(ir_version=max(model.ir_version for model in models), producer_name=PRODUCER, graph=graph)
    made.opset_import.extend(sorted(models[0].opset_import, key=lambda one: one.domain))
    for key, text in sorted(metadata.items()):
        made.metadata_props.add(key=key, value=text)
    return bytes(made.SerializeToString(deterministic=True))


def _parsed(path: str, data: bytes) -> ModelProto:
    from onnx import ModelProto

    model = ModelProto()
    model.ParseFromString(data)
    if model.functions:
        raise ValueError(f"{path}: it has functions of its own, expected plain operators")
    if model.graph.sparse_initializer:
        raise ValueError(f"{path}: it has sparse weights, expected dense ones")
    return model


def _check_alike(models: Sequence[ModelProto]) -> None:
    found = {tuple(sorted((one.domain, one.version) for one in model.opset_import)) for model in models}
    if len(found) != 1:
        raise ValueError("the members are of different opsets, expected one")
    version = max((version for domain, version in found.pop() if domain == ""), default=0)
    if version < FIRST_OPSET:
        raise ValueError(f"the members are of opset {version}, expected {FIRST_OPSET} or later")


def _add_member(graph: GraphProto, member: GraphProto, prefix: str, n_codec: int) -> str:
    """Add a member's nodes and weights under names of its own; the name of its score."""
    given = [port for port in member.input if port.name not in {tensor.name for tensor in member.initializer}]
    widths = {port.name: _width(port) for port in given}
    codec = next((name for name in widths if name != FEATURES), None)
    if FEATURES not in widths or len(widths) != 2 or codec is None or len(member.output) != 1:
        names = f"inputs {', '.join(widths)} and outputs {', '.join(port.name for port in member.output)}"
        raise ValueError(f"found {names}, expected {FEATURES}, one more input, and one score")
    if widths[codec] != n_codec:
        raise ValueError(f"{codec}: found {widths[codec]} columns, expected {n_codec}: slots, then conditions")
    new_names = {FEATURES: SCALED_TENSOR, codec: CODEC, "": ""}
    for node in member.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"it has the operator {node.op_type} with a graph inside, expected plain operators")
        added = graph.node.add()
        added.CopyFrom(node)
        added.name, added.doc_string = f"{prefix}{node.name or node.output[0]}", ""
        for field in ("input", "output"):
            renamed = [new_names.get(name, prefix + name) for name in getattr(node, field)]
            added.ClearField(field)
            getattr(added, field).extend(renamed)
    for tensor in member.initializer:
        added_tensor = graph.initializer.add()
        added_tensor.CopyFrom(tensor)
        added_tensor.name, added_tensor.doc_string = prefix + tensor.name, ""
    output = str(member.output[0].name)
    return new_names.get(output, prefix + output)


def _width(port: ValueInfoProto) -> int:
    """Columns of an input [N, columns] of float32 whose rows may be any number."""
    from onnx import TensorProto

    kind = port.type.tensor_type
    dims = kind.shape.dim
    if kind.elem_type != TensorProto.FLOAT or len(dims) != 2 or dims[1].dim_value < 1:
        raise ValueError(f"{port.name}: found another input than float32 [N, columns]")
    if dims[0].HasField("dim_value"):
        raise ValueError(f"{port.name}: it takes {dims[0].dim_value} rows at a time, expected any number")
    return int(dims[1].dim_value)


def _take_in(tensor: TensorProto, folder: str, read: Callable[[str], bytes]) -> None:
    """The values of a tensor that lie in another file, into the tensor."""
    from onnx import TensorProto

    if tensor.data_location != TensorProto.EXTERNAL:
        return
    place = {pair.key: pair.value for pair in tensor.external_data}
    data, start = read(posixpath.join(folder, place["location"])), int(place.get("offset") or 0)
    size = int(place["length"]) if place.get("length") else len(data) - start
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = data[start : start + size]


def layout_of(sidecars: Sequence[Mapping[str, Json]], vocabulary: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The conditions behind the slots of the codec input, as the members' sidecars call them.

    widths: columns of each member's codec input. Raises ValueError where the sidecars do not say it, or differ.
    """
    layouts = [*_layouts(sidecars)]
    if any(layout != layouts[0] for layout in layouts):
        raise ValueError("the members' sidecars have different codec_block_layout, expected one")
    if layouts[0] is None:
        if {*widths} != {len(vocabulary)}:
            raise ValueError(
                "the members' sidecars have no codec_block_layout: what the further columns are is unknown"
            )
        return []
    slots = [f"encoder_onehot[{name}]" for name in vocabulary]
    if layouts[0][: len(slots)] != slots:
        raise ValueError("codec_block_layout does not begin with the slots of the vocabulary")
    return layouts[0][len(slots) :]


def _layouts(sidecars: Sequence[Mapping[str, Json]]) -> Iterator[list[str] | None]:
    for sidecar in sidecars:
        layout = sidecar.get("codec_block_layout")
        if layout is not None and not (isinstance(layout, list | tuple) and all(isinstance(n, str) for n in layout)):
            raise ValueError("codec_block_layout is no list of names")
        yield None if layout is None else [*layout]
