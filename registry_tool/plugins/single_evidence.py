"""single_evidence.py: the evidence of a single model: rows, targets, groups, what the model gives. Judges nothing.

The rows are stored as a person gave them; the sidecar's scaler is applied whenever the model is run on them, so that
the stored predictions show the model, the scaler and the rows together.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView
from registry_tool.onnx_summary import INTEGER_TYPES, OnnxError, OnnxSummary, Port
from registry_tool.plugins.sidecars import DEVIATION_FIELDS, ENCODER_COLUMN_PREFIX, FEATURES_PORT, MEAN_FIELDS
from registry_tool.toolkit import Columns, Text, missing_column, read_rows
from registry_tool.values import Json, one_line, plain_spelling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Int64 = NDArray[np.int64]
    Numbers = NDArray[Any]  # of a person's file
    _Rows = tuple[dict[str, Numbers], Numbers, Sequence[str]]  # inputs by name, targets, and each row's group

EVIDENCE_VERSION = 1
MAX_INPUTS = 4
MAX_FLOAT32 = 3.4028234663852886e38  # that float32 holds
MAX_EXACT = 2**24  # the largest integer up to which float32, the type of evidence, keeps all
MAX_GROUPS = 1_000  # pairs of groups are compared
NO_SUCH_VALUES = "expected finite numbers"
_INPUTS = {
    f"input_{place}": Array("f4", ("rows", f"input_{place}"), "An input, each row's values in C order.", optional=True)
    for place in range(MAX_INPUTS)
}
SINGLE_FORMAT = ArchiveFormat(
    "evidence.npz",
    "Of a single model (`evidence` of its entry): rows that it was run on, their targets, and what it gave.",
    {
        "rows": "rows",
        "names": "the target, then the inputs",
        "values": "values of the output for a row",
        "groups": "groups",
        **{f"input_{place}": f"values of input {place} for a row" for place in range(MAX_INPUTS)},
    },
    {
        "version": Array("i8", (), "Of this format: 1."),
        "names": Array("U", ("names",), "Of the target, then of the model's inputs in their order."),
        "shapes": Array("U", ("names",), "The shape of a row of each, such as 3,64,64; empty for one number."),
        "peak": Array("f8", (), "The largest value of a picture, for PSNR."),
        "groups": Array("U", ("groups",), "Names, each once: sources, or what else rows belong together by."),
        "group": Array("i4", ("rows",), "Index into `groups`."),
        "target": Array("f4", ("rows", "values"), "What the model should give."),
        "prediction": Array("f4", ("rows", "values"), "What the model gave."),
        **_INPUTS,
    },
)


@dataclass(frozen=True, slots=True, eq=False)
class SingleEvidence:
    """n rows with their targets, predictions and groups. Raises EvidenceProblem for what means nothing.

    inputs: by name, in the model's order, each (n, ...) as the rows have it, before any scaler. target: (n, ...).
    """

    target_name: str
    inputs: Mapping[str, Float32]
    target: Float32
    prediction: Float32
    groups: tuple[str, ...]
    group: Int64  # (n,)
    peak: float = 1.0

    def __post_init__(self) -> None:
        import numpy as np

        n = len(self.target)
        if not n or not 1 <= len(self.inputs) <= MAX_INPUTS:
            raise EvidenceProblem(f"found {n} rows of {len(self.inputs)} inputs, expected rows of 1 to {MAX_INPUTS}")
        if self.prediction.shape != self.target.shape:
            found, expected = self.prediction.shape, self.target.shape
            raise EvidenceProblem(f"prediction: found the shape {found}, expected that of the target, {expected}")
        for name, values in (*self.inputs.items(), ("target", self.target), ("prediction", self.prediction)):
            if len(values) != n:
                raise EvidenceProblem(f"{name}: found {len(values)} rows, expected {n}")
            if not np.isfinite(values).all():
                raise EvidenceProblem(f"{name}: found NaN or infinity, {NO_SUCH_VALUES}")
        if self.group.shape != (n,) or not np.array_equal(np.unique(self.group), np.arange(len(self.groups))):
            raise EvidenceProblem(f"group: expected an index into all of the {len(self.groups)} groups for each row")
        if len(set(self.groups)) != len(self.groups) or not all(self.groups) or len(self.groups) > MAX_GROUPS:
            raise EvidenceProblem(f"groups: expected different names, at most {MAX_GROUPS}")
        if not 0 < self.peak < float("inf"):
            raise EvidenceProblem(f"peak: found {self.peak}, expected a number above 0")

    @property
    def is_picture(self) -> bool:
        """Whether a row's target is more than one number."""
        return bool(self.target[0].size > 1)

    def rows_of(self) -> Iterator[NDArray[np.bool_]]:
        """Which rows each group has, in the groups' order."""
        return (self.group == place for place in range(len(self.groups)))


def write_evidence(evidence: SingleEvidence) -> bytes:
    arrays = [evidence.target, *evidence.inputs.values()]
    values: dict[str, object] = {
        "version": EVIDENCE_VERSION,
        "names": [evidence.target_name, *evidence.inputs],
        "shapes": [",".join(map(str, array.shape[1:])) for array in arrays],
        "peak": evidence.peak,
        "groups": list(evidence.groups),
        "group": evidence.group,
        "target": _flat(evidence.target),
        "prediction": _flat(evidence.prediction),
    }
    values |= {f"input_{place}": _flat(array) for place, array in enumerate(evidence.inputs.values())}
    return write_arrays(SINGLE_FORMAT, values)


def read_evidence(data: bytes) -> SingleEvidence:
    """Raises EvidenceProblem for anything but what `write_evidence` writes."""
    import numpy as np

    arrays = read_arrays(SINGLE_FORMAT, data)
    names, shapes = arrays["names"].tolist(), arrays["shapes"].tolist()
    found = [name for name in _INPUTS if name in arrays]
    if int(arrays["version"]) != EVIDENCE_VERSION or len(names) != len(shapes) or len(found) != len(names) - 1:
        raise EvidenceProblem(
            f"{SINGLE_FORMAT.file}: expected version {EVIDENCE_VERSION}, and a name and a shape for each array"
        )
    try:
        rows = [tuple(map(int, shape.split(","))) if shape else () for shape in shapes]
        n = len(arrays["target"])
        target, prediction = (arrays[name].reshape(n, *rows[0]) for name in ("target", "prediction"))
        inputs = {
            name: arrays[key].reshape(n, *shape) for key, name, shape in zip(found, names[1:], rows[1:], strict=True)
        }
    except ValueError as error:
        raise EvidenceProblem(f"{SINGLE_FORMAT.file}: shapes that its arrays do not have ({error})") from error
    group, groups = arrays["group"].astype(np.int64), tuple(arrays["groups"].tolist())
    return SingleEvidence(names[0], inputs, target, prediction, groups, group, float(arrays["peak"]))


def _flat(array: Float32) -> Float32:
    return array.reshape(len(array), -1)


def evidence_path(view: EntryView) -> str | None:
    """Where the entry pins its evidence; None where it pins none."""
    pin = view.entry.document.get("evidence")
    return str(pin["path"]) if isinstance(pin, Mapping) else None


# ---- the model on rows ----------------------------------------------------------------------------------------------


def run_on(view: EntryView, path: str, inputs: Mapping[str, Float32], *, scaled: bool = True) -> Float32:
    """The first output of the model at `path` for rows, (n, ...), behind the sidecar's scaler.

    Raises EvidenceProblem where the model does not run on these rows.
    """
    import numpy as np

    feeds = dict(inputs)
    scaler = scaler_of(view.manifest or {})
    if scaled and scaler is not None and (name := _feature_input(inputs)) is not None:
        mean, std = (np.asarray(values, np.float32) for values in scaler)
        if mean.shape[0] != feeds[name].shape[-1]:
            raise EvidenceProblem(f"{name}: found {feeds[name].shape[-1]} columns, the sidecar scales {len(mean)}")
        feeds[name] = ((feeds[name] - mean) / std).astype(np.float32)
    try:
        graph = view.onnx(path)
        for port in graph.inputs:
            _refuse_loss(feeds[port.name], port)
        found = view.run(path, feeds)[graph.outputs[0].name]
    except (OnnxError, IndexError, KeyError) as error:
        raise EvidenceProblem(f"{path}: does not run on these rows: {one_line(str(error))}") from None
    return np.asarray(found, np.float32)


def _refuse_loss(values: Numbers, port: Port) -> None:
    """Raises EvidenceProblem where the model's input is of a type that cannot hold the rows; the child casts them."""
    import numpy as np

    if port.elem_type in (*INTEGER_TYPES, "bool"):
        with np.errstate(invalid="ignore"):
            cast = values.astype(np.dtype(port.elem_type)).astype(np.float32)
        if not np.array_equal(cast, values):
            raise EvidenceProblem(f"{port.name}: found numbers that {port.elem_type}, which it takes, cannot hold")


def scaler_of(sidecar: Mapping[str, Json]) -> tuple[Json, Json] | None:
    """Means and deviations that the sidecar scales the features by; None where it does not."""
    found = [
        next((sidecar[name] for name in names if name in sidecar), None) for names in (MEAN_FIELDS, DEVIATION_FIELDS)
    ]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _feature_input(inputs: Mapping[str, Numbers]) -> str | None:
    if FEATURES_PORT in inputs:
        return FEATURES_PORT
    tables = [name for name, values in inputs.items() if values.ndim == 2]
    return tables[0] if len(tables) == 1 else None


# ---- from a person's file -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataRequest:
    """A file of rows. target, group: columns of a table, or arrays of an .npz. peak: of pictures, for PSNR."""

    file: Path
    target: str = "vmaf"
    group: str = "src"
    peak: float = 1.0


def make_evidence(view: EntryView, request: DataRequest) -> bytes:
    """The evidence of a model on a person's rows, run in the sandbox. Raises InputError for rows that do not fit it."""
    import numpy as np

    graph = view.onnx(view.entry.onnx or "")
    read = _from_arrays if request.file.suffix == ".npz" else _from_table
    inputs, target, labels = read(graph, view.manifest or {}, request)
    try:
        found = run_on(view, view.entry.onnx or "", inputs)
        prediction = found.reshape(target.shape) if found.size == target.size else found
        groups, group = np.unique(np.asarray(labels), return_inverse=True)
        names = tuple(str(name) for name in groups)
        evidence = SingleEvidence(
            request.target, inputs, target, prediction, names, group.reshape(-1).astype(np.int64), request.peak
        )
        return write_evidence(evidence)
    except EvidenceProblem as error:
        raise InputError(f"{request.file}: {error}: correct the file, or the sidecar") from None


def _require_rows(place: str, array: Numbers) -> None:
    """Raises InputError for an array, of an .npz, that is no numbers of rows, or has one that float32 does not hold."""
    import numpy as np

    if array.dtype.kind not in "biuf" or not array.ndim:
        raise InputError(f"{place}: found {array.dtype}, expected numbers with a row each: write it anew")
    if not len(array):
        raise InputError(f"{place}: found no rows, expected at least one: is it the right file?")
    is_wide = array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(np.float32).itemsize
    if is_wide and (np.isfinite(array) & (np.abs(array) > MAX_FLOAT32)).any():
        raise InputError(f"{place}: found a number above {MAX_FLOAT32:.3g}, which float32 does not hold: scale it")


def _missing(request: DataRequest, name: str, found: Sequence[str]) -> InputError:
    """The error for a column, or an array, that is not there; its hint names the options that `evidence` has."""
    options = {request.target: "add it, or name it with --target", request.group: "add it, or name it with --group"}
    return missing_column(request.file, name, found, options.get(name, "add it"))


def _from_arrays(graph: OnnxSummary, _: Mapping[str, Json], request: DataRequest) -> _Rows:
    """From an .npz with an array for each input, the targets and the groups."""
    import numpy as np

    wanted = [*(port.name for port in graph.inputs), request.target, request.group]
    try:
        with np.load(request.file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted if name in archive.files}
            names = list(archive.files)
    except FileNotFoundError:
        raise InputError(f"{request.file}: file not found: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{request.file}: found a folder, expected an .npz: name the file in it") from None
    except Exception as error:  # whatever numpy and zipfile meet in bad bytes
        raise InputError(
            f"{request.file}: not an .npz that can be read ({one_line(str(error))}): write it anew"
        ) from None
    for name in wanted:
        if name not in arrays:
            raise _missing(request, name, names)
    for name in wanted[:-1]:
        _require_rows(f"{request.file}, {name}", arrays[name])
    inputs = {port.name: arrays[port.name].astype(np.float32) for port in graph.inputs}
    for name, kept in inputs.items():
        if arrays[name].dtype.kind in "iu" and np.abs(kept).max(initial=0.0) > MAX_EXACT:
            raise InputError(f"{request.file}, {name}: found integers above {MAX_EXACT}, which float32 does not keep")
    return inputs, arrays[request.target].astype(np.float32), [str(label) for label in arrays[request.group].tolist()]


def _from_table(graph: OnnxSummary, sidecar: Mapping[str, Json], request: DataRequest) -> _Rows:
    """From a table whose columns the sidecar names: features, the encoder's slot, further ones of its codec block."""
    import numpy as np

    order = sidecar.get("feature_order", sidecar.get("features"))
    if not isinstance(order, list | tuple) or len(graph.inputs) > 2:
        raise InputError(
            f"{request.file}: found a table, expected a sidecar with `feature_order` to read it by: add one, or "
            "give the model's inputs as arrays of an .npz"
        )
    layout, vocabulary = (list(sidecar.get(name) or ()) for name in ("codec_block_layout", "encoder_vocab"))
    further = [name for name in layout if not name.startswith(ENCODER_COLUMN_PREFIX)]
    has_codec = len(graph.inputs) > 1
    numbers = (*order, *(further if has_codec else ()), request.target)
    texts = (request.group, *(["encoder"] if has_codec else []))
    if request.target in numbers[:-1]:
        raise InputError(
            f"{request.file}: --target: found {request.target!r}, which the model is fed, expected what it predicts: "
            "name its column"
        )

    def pick(found: Sequence[str]) -> Columns:
        if missing := [name for name in (*numbers, *texts) if name not in found]:
            raise _missing(request, missing[0], found)
        return Columns(tuple(dict.fromkeys(numbers)), texts, largest=MAX_FLOAT32)

    batches = list(read_rows(request.file, pick))
    columns = {name: np.concatenate([batch.numbers[name] for batch in batches]) for name in dict.fromkeys(numbers)}
    labels = [label for batch in batches for label in batch.texts[request.group].tolist()]
    features = np.stack([columns[name] for name in order], axis=1).astype(np.float32)
    names = [port.name for port in graph.inputs]
    first = FEATURES_PORT if FEATURES_PORT in names else names[0]
    inputs = {first: features}
    if has_codec:
        encoders = [batch.texts["encoder"] for batch in batches]
        block = _slots([name for text in encoders for name in text.tolist()], vocabulary, request.file)
        extra = [columns[name][:, None] for name in further]
        other = next(name for name in names if name != first)
        inputs[other] = np.concatenate([block, *extra], axis=1).astype(np.float32)
    return {name: inputs[name] for name in names}, columns[request.target].astype(np.float32), labels


def _slots(encoders: Sequence[str], vocabulary: Sequence[str], file: Path) -> Float32:
    """One-hot slots (n, V), whatever the spelling; a name without one takes that of `unknown`.

    Raises InputError where there is no such slot.
    """
    import numpy as np

    text = Text.of(encoders)
    slots = {plain_spelling(name): index for index, name in reversed(list(enumerate(vocabulary)))}
    rows = np.zeros((len(text.names), len(vocabulary)), np.float32)
    for row, name in enumerate(text.names):
        slot = slots.get(plain_spelling(name), slots.get("unknown"))
        if slot is None:
            raise InputError(
                f"{file}, column encoder: found {name!r}, expected one of {', '.join(vocabulary)}: the sidecar's "
                "encoder_vocab has no slot for it and none named unknown"
            )
        rows[row, slot] = 1.0
    return rows[text.codes]


def int8_path(view: EntryView) -> str | None:
    """The entry's quantised variant, where it pins one."""
    path = f"{posixpath.splitext(view.entry.onnx or '')[0]}.int8.onnx"
    return path if "int8_sha256" in view.entry.document and path in view.paths else None
