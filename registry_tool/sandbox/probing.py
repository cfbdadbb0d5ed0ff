"""probing.py: runs a model on rows made here and says what is odd about what it gives. Runs in the child alone.

The rows are random numbers of several scales, the same in every run: small and large, positive and of both signs. The
first rows always run, or end the child; further ones only where the model has some seconds left for them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto

from registry_tool.onnx_summary import INTEGER_TYPES
from registry_tool.sandbox.growth import bodies
from registry_tool.values import first_names

# Sizes tried, one after the other, for axes that the model leaves open: of a first axis, and of any other.
SIZES_TRIED = (
    (2, 64),
    (1, 64),
    (2, 1),
    (1, 1),
    (2, 2),
    (2, 3),
    (2, 4),
    (2, 8),
    (1, 16),
    (1, 32),
    (1, 80),
    (1, 224),
    (1, 512),
)
MAX_INPUT_ELEMENTS = 2**26  # elements of an input that is fed: two 8K RGB frames
RUN_SECONDS = 4.0  # of processor time, loading included, beyond which no further rows run
ROW_SEED = 0
ROW_SCALES = (  # of the rows of each run: (name of the distribution, its size)
    ("uniform", 1.0),
    ("normal", 1.0),
    ("uniform", 0.01),
    ("uniform", 255.0),
    ("normal", 100.0),
    ("uniform", 1.0),
)
INTEGER_VALUES = (0, 1, 64, 2, 64, 3)  # of each run: indices, counts, lengths of an axis that was left open
FLOAT_TYPES = {"float": "f4", "float16": "f2", "double": "f8"}

NUMPY_TYPES = {**FLOAT_TYPES, **{name: name for name in INTEGER_TYPES}, "bool": "?"}
NEWER_SCHEMA_MESSAGES = (
    "max supported ir version",
    "is under development and support for this is limited",
    "official released onnx opset",
)

Feeds = dict[str, NDArray[Any]]  # an array an input
ProbeResult = tuple[str, str]  # a finding's code, and what was seen


def probe(model: bytes) -> Iterator[ProbeResult]:
    """What is wrong with a model that passed every other check."""
    clock = _Clock()
    try:
        session = open_session(model)
    except Exception as error:  # onnxruntime raises a dozen types, each a property of the model
        yield _refusal(error)
        return
    ports = session.get_inputs()
    if any(kind_of(port) is None for port in ports):
        yield "onnx-probe-unrun", "onnxruntime takes no such input from Python"
        return
    outputs = [_Output(port.name) for port in session.get_outputs()]
    feeds, problem = _first_feeds(session, outputs, clock)
    if feeds is None:
        # Which sizes fit an open axis, and which integers an input, is not ours to know: then only loading counts.
        guessed = any(_is_guessed(port) for port in ports) and problem[0] != "onnx-probe-memory"
        yield ("onnx-probe-unrun", problem[1]) if guessed else problem
        return
    clock.tick()
    made = [feeds]
    for number in range(1, len(ROW_SCALES)):
        integer = INTEGER_VALUES[number]
        more = {port.name: _values(port, feeds[port.name].shape, number, integer) for port in ports}
        if not clock.tick():
            break
        try:
            _note(outputs, session.run(None, more), more, (number, integer))
        except Exception:  # integers that are no index, say; the first rows ran
            continue
        made.append(more)
    yield from _odd_outputs(outputs, fed_floats=all(kind_of(port) in FLOAT_TYPES.values() for port in ports))
    yield from _branches(model, made, clock)


class _Clock:
    """The processor time of one model."""

    def __init__(self) -> None:
        self._began = self._last = time.process_time()
        self._longest = 0.0

    def tick(self) -> bool:
        """Whether a step as long as the longest so far still ends in time. Called before and after each."""
        now = time.process_time()
        self._longest, self._last = max(self._longest, now - self._last), now
        return now - self._began + self._longest < RUN_SECONDS


def open_session(model: bytes, *, profile: str | None = None) -> onnxruntime.InferenceSession:
    """On one thread, without a word to the log. profile: the prefix of a file that says which operators ran."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _refusal(error: Exception) -> ProbeResult:
    text = str(error).lower()
    if any(words in text for words in NEWER_SCHEMA_MESSAGES):
        return "onnx-newer", f"onnxruntime {onnxruntime.__version__}: {error}"
    if isinstance(error, MemoryError) or "alloc" in text:
        return "onnx-probe-memory", str(error)
    return "onnx-probe-refused", str(error)


# ---- rows ----------------------------------------------------------------------------------------------------


def _is_guessed(port: onnxruntime.NodeArg) -> bool:
    """Whether its size or its values have to be guessed."""
    sizes = port.shape or ["?"]
    return kind_of(port) not in FLOAT_TYPES.values() or any(not isinstance(n, int) or n < 0 for n in sizes)


def kind_of(port: onnxruntime.NodeArg) -> str | None:
    return (
        NUMPY_TYPES.get(port.type.removeprefix("tensor(").removesuffix(")"))
        if port.type.startswith("tensor(")
        else None
    )


def _first_feeds(
    session: onnxruntime.InferenceSession, outputs: list[_Output], clock: _Clock
) -> tuple[Feeds | None, ProbeResult]:
    """The first rows that the model takes; None, and what was said of the first try, where it takes none."""
    ports, problem = session.get_inputs(), ("", "")
    too_large = ("onnx-probe-unrun", f"its inputs have more than {MAX_INPUT_ELEMENTS} elements")
    integers = dict.fromkeys(
        INTEGER_VALUES if any(kind_of(port) not in FLOAT_TYPES.values() for port in ports) else (0,)
    )
    sizes = dict.fromkeys(tuple(_shape(port, first, side) for port in ports) for first, side in SIZES_TRIED)
    for shapes, integer in product(sizes, integers):
        if any(np.prod(shape, dtype=float) > MAX_INPUT_ELEMENTS for shape in shapes):
            continue
        pairs = zip(ports, shapes, strict=True)
        feeds = {port.name: _values(port, shape, 0, integer) for port, shape in pairs}
        try:
            values = session.run(None, feeds)
        except Exception as error:  # as above
            problem = problem if problem[0] else _refusal(error)
            if problem[0] == "onnx-probe-memory" or not clock.tick():
                break
            continue
        _note(outputs, values, feeds, (0, integer))
        return feeds, ("", "")
    return None, problem if problem[0] else too_large


def _shape(port: onnxruntime.NodeArg, first: int, side: int) -> tuple[int, ...]:
    shape = port.shape or ()
    return tuple(n if isinstance(n, int) and n >= 0 else side if place else first for place, n in enumerate(shape))


def _values(port: onnxruntime.NodeArg, shape: Sequence[int], number: int, integer: int) -> NDArray[Any]:
    """Values of one run: floats of its scale, which differ everywhere; one integer, one boolean."""
    kind = kind_of(port) or "f4"
    if kind not in FLOAT_TYPES.values():
        return np.full(shape, integer if kind != "?" else number % 2, kind)
    name, scale = ROW_SCALES[number]
    rng = np.random.default_rng([ROW_SEED, number, *port.name.encode()])
    values = rng.random(shape) if name == "uniform" else rng.standard_normal(shape)
    return np.asarray(values * scale, kind)


# ---- outputs -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Output:
    """What one output was over all rows. rows: names of rows that differ in every input. first: its first number."""

    name: str
    rows: set[object] = field(default_factory=set)
    first: float | None = None
    always_bad: bool = True
    varies: bool = False


def _note(outputs: list[_Output], values: Sequence[object], feeds: Feeds, run: tuple[int, int]) -> None:
    """Add what one run, of this number and integer, gave. Floats make each row differ, integers only each run."""
    floats = all(value.dtype.kind == "f" for value in feeds.values())
    for output, value in zip(outputs, values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
            continue
        rows = value.reshape(value.shape[0] if value.ndim else 1, -1)
        output.rows |= {(run[0], row) for row in range(len(rows))} if floats else {run[1]}
        output.always_bad &= bool((np.isnan(rows).any(axis=1) | np.isinf(rows).all(axis=1)).all())
        output.first = float(value.flat[0]) if output.first is None else output.first
        output.varies |= not bool((value == output.first).all())


def _odd_outputs(outputs: list[_Output], *, fed_floats: bool) -> Iterator[ProbeResult]:
    """Which integers mean something to a model is not ours to know: with them a constant proves little."""
    seen = [output for output in outputs if output.first is not None]
    for output in seen:
        if output.always_bad:
            yield "onnx-output-not-finite", f"{output.name}, on all of {len(output.rows)} rows"
    constant = [o for o in seen if len(o.rows) > 1 and not o.always_bad and not o.varies]
    code = "onnx-output-constant" if fed_floats and len(constant) == len(seen) else "onnx-output-idle"
    for output in constant:
        yield code, f"{output.name} is {output.first:g} on all of {len(output.rows)} rows"


# ---- branches ------------------------------------------------------------------------------------------------


def _branches(model: bytes, feeds: Sequence[Feeds], clock: _Clock) -> Iterator[ProbeResult]:
    """Branches and loop bodies that none of the rows entered."""
    named = ModelProto.FromString(model)
    branches = [_Branch("the graph", None)]
    places: dict[str, _Branch] = {}  # the name that a node gets here -> where it is
    _name_nodes(named.graph, branches[0], branches, places)
    if len(branches) == 1:
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            session = open_session(named.SerializeToString(), profile=str(Path(folder) / "probe"))
            for rows in feeds:
                if not clock.tick():
                    break
                session.run(None, rows)
            events = json.loads(Path(session.end_profiling()).read_bytes())
    except Exception as error:  # it ran before; without optimisations, or without a folder for the profile, it may not
        yield "onnx-branch-unprobed", f"which branches ran is not known: {error}"
        return
    names = (str(event.get("name")).removesuffix("_kernel_time") for event in events)
    ran = {id(places[name]) for name in names if name in places}
    missed = [
        b.place for b in branches if b.parent and id(b) not in ran and (id(b.parent) in ran or not b.parent.parent)
    ]
    if missed:
        yield "onnx-branch-unprobed", first_names(missed)


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    place: str
    parent: _Branch | None


def _name_nodes(graph: GraphProto, within: _Branch, branches: list[_Branch], places: dict[str, _Branch]) -> None:
    """Give every node a name of its own and list the branches below, those that run no node left out."""
    for node in graph.node:
        shown = node.name or node.op_type
        node.name = f"registry-probe-{len(places)}"
        places[node.name] = within
        for attribute, body in bodies(node):
            if any(inner.op_type != "Constant" for inner in body.node):  # constants are loaded, and run nowhere
                branches.append(_Branch(f"{attribute} of {shown}", within))
                _name_nodes(body, branches[-1], branches, places)
