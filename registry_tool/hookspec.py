"""hookspec.py: the hooks a plugin may implement and the values that cross them. Calls nothing and owns no state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

import pluggy

from registry_tool.figures import Axis as Axis
from registry_tool.figures import Chart as Chart
from registry_tool.figures import Figure as Figure
from registry_tool.figures import Series as Series
from registry_tool.figures import Table as Table
from registry_tool.findings import Finding, FindingFields
from registry_tool.onnx_summary import OnnxSummary
from registry_tool.rows.batches import Column as Column
from registry_tool.rows.batches import Columns, RowBatch
from registry_tool.values import EMPTY, Entry, Evidence, Json, Policy, Rule
from registry_tool.values import OofPredictions as OofPredictions
from registry_tool.values import Progress as Progress
from registry_tool.values import silent as silent

if TYPE_CHECKING:
    import click
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

PROJECT = "registry_tool"
KIND_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
METRICS_PLACE = re.compile(r"[\w.]+:\w+\Z")
CODE_PREFIX = re.compile(r"[a-z][a-z0-9]*-([a-z0-9]+-)*\Z")
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def discard_line(line: str, /) -> None:
    """A line that is told to no one."""


class Level(StrEnum):
    """quick: documents and digests, no onnx. full: everything, and the default."""

    QUICK = "quick"
    FULL = "full"


FURTHER_DOMAINS = frozenset({"ai.onnx.ml"})  # that ONNX defines beside its own: part of it, and of every full runtime


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """A metric that a gate measures, for people who write a policy. better: `higher`, `lower`, or empty.

    unit: empty for a number without one. since: the `metrics_version` of the evidence that brought it.
    """

    name: str
    meaning: str
    unit: str = ""
    better: str = ""
    since: int = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of entry and what the core must know to serve it.

    schema: JSON Schema (draft 2020-12) of the kind's manifest; None for a kind whose entry names one ONNX file.
    options: click options that `registry train KIND` adds for this kind; their values arrive in TrainRequest.options.
    default_policy: written into `policies` of the registry when the first entry of the kind is registered.
    allowed_ops: narrows the core's list of ONNX operators for this kind; None takes the core's list.
    domains: a further domain that ONNX defines (`ai.onnx.ml`) -> its operators that this kind allows. Since 0.2.0.
    findings: prefix of the plugin's finding codes, such as `thumb-` -> the module that declares them at its top level
    (`findings.FindingRule`), or the package whose modules do, imported when a code is to be explained. No other plugin
    may have codes with that prefix.
    summary_policy: what evidence without predictions must show, in place of the default policy; None: the same.
    metrics: where the plugin describes what its gate measures, as `module:NAME`: an iterable of `MetricDescription`,
    loaded when a metric is to be explained. Empty for a kind without a gate. Since 0.2.0.
    recorded: pointer into the manifest -> why nothing compares the values there, and below, with what is pinned. Shown
    by `registry plugins --check`; the conformance suite finds every other number that nothing checks. Since 0.2.0.
    """

    name: str
    summary: str
    schema: Mapping[str, Json] | None = None
    options: Sequence[click.Option] = ()
    default_policy: Policy = field(default_factory=Policy)
    allowed_ops: frozenset[str] | None = None
    domains: Mapping[str, frozenset[str]] = field(default_factory=lambda: EMPTY)
    findings: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    summary_policy: Policy | None = None
    recorded: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    metrics: str = ""

    def __post_init__(self) -> None:
        if foreign := sorted(set(self.domains) - FURTHER_DOMAINS):
            raise ValueError(
                f"domains of kind {self.name!r}: found {foreign[0]!r}, expected one of {', '.join(FURTHER_DOMAINS)}"
            )
        for prefix in self.findings:
            if not CODE_PREFIX.match(prefix):
                raise ValueError(
                    f"findings of kind {self.name!r}: found {prefix!r}, expected a prefix such as 'thumb-'"
                )
        if self.metrics and not METRICS_PLACE.match(self.metrics):
            raise ValueError(f"metrics of kind {self.name!r}: found {self.metrics!r}, expected `module:NAME`")
        for place, reason in self.recorded.items():
            if not place.startswith("/") or not reason.strip():
                raise ValueError(
                    f"recorded of kind {self.name!r}: found {place!r}: {reason!r}, expected a pointer such as '/notes' "
                    "and a reason"
                )
        if not KIND_NAME.match(self.name):
            raise ValueError(
                f"kind {self.name!r}: expected lower-case letters, digits and _, at most 64, a letter first"
            )


class EntryView(Protocol):
    """One entry and its verified bytes: all that a hook sees of a registry.

    manifest: the entry's parsed manifest, or an ONNX entry's sidecar; None where there is none.
    paths: the pinned files as their document names them (a manifest's paths are relative to its own folder).
    """

    @property
    def entry(self) -> Entry:
        """The entry itself."""

    @property
    def manifest(self) -> Mapping[str, Json] | None:
        """Its parsed manifest or sidecar."""

    @property
    def paths(self) -> Sequence[str]:
        """What `read` takes."""

    def read(self, path: str) -> bytes:
        """The bytes of one of `paths`; their digest was checked just now. Raises KeyError for a path without a pin."""

    def onnx(self, path: str) -> OnnxSummary:
        """What the ONNX file at one of `paths` says, read by a child process with limits; asked for once a run.

        Never called at Level.QUICK, which starts no child: a PluginError. Raises OnnxError for a file that cannot be
        read (the core has a finding on it), KeyError as `read` does.
        """

    def run(self, path: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        """What the ONNX file at one of `paths` gives for rows: float32 arrays by output, for float32 arrays by input.

        A child process with limits casts them to the types of the inputs and runs it, some hundred rows at a time; the
        first axis of each array are the rows.
        Never called at Level.QUICK, as `onnx`. Raises OnnxError for a file that does not run on these rows, or gives
        anything but float32 with a row each; KeyError as `read` does.
        """

    def finding(self, code: str, message: str, pointer: str = "", **fields: Unpack[FindingFields]) -> Finding:
        """A Finding on this entry whose place is `pointer` in the manifest (`file=` names another file)."""


class Host(Protocol):
    """What a plugin's command finds at `ctx.obj`: the way to an entry of a registry, and to what it prints or draws."""

    def open(self, entry_id: str, registry: str | None = None) -> AbstractContextManager[EntryView]:
        """The entry, for the length of a `with`. registry: as typed after `--registry`; None looks for one.

        Raises InputError for no such registry or entry, RejectedError where a document or a digest does not hold.
        """

    def emit(self, form: str, document: Callable[[], Json], lines: Callable[[], str | Iterable[str]]) -> None:
        """Print an answer. form: `text` prints the lines, `json` the document, a number that is not finite as null.

        Each of several lines stays one: what would begin another is escaped. Since 0.2.0.
        """

    def draw(self, path: Path, title: str, figures: Sequence[Figure]) -> None:
        """The charts of some figures as one picture (PNG) in a file: see `toolkit.plot_option`.

        Raises InputError where there is no chart, or where the library that draws is not installed.
        """


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a person typed after `registry train KIND`. options: values of the kind's own click options, by name.

    corpus: None means the corpus that ships with the plugin. smoke: random rows, one epoch, never to be flipped.
    """

    kind: str
    entry_id: str
    corpus: Path | None = None
    smoke: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    progress: Progress = silent

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a plugin made: bytes by path, and the manifest that pins them.

    manifest: a JSON document. Every object in it with a string at `onnx` or `path` is a pin; the core writes `sha256`
    beside it. A file that no pin names, or a pin without its file, is a PluginError.
    entry: further fields for the registry entry (license, description); one that its schema does not know is kept,
    with a warning. summary: lines for the person, (name, value). table: shown below them, header row first.
    """

    files: Mapping[str, bytes]
    manifest: Mapping[str, Json]
    entry: Mapping[str, Json] = field(default_factory=lambda: EMPTY)
    summary: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        for name, data in self.files.items():
            if not isinstance(name, str) or not isinstance(data, bytes):
                raise TypeError(f"file {name!r}: found {type(data).__name__}, expected bytes by path")
        if self.table:
            Table(self.table)  # raises ValueError for rows of different lengths
        if not isinstance(self.manifest, Mapping):
            raise TypeError(f"manifest: found {type(self.manifest).__name__}, expected a mapping")


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """What a person typed after `registry calibrate ID`.

    entry_id: of the new entry. corpus: labelled rows of sources that nothing of the entry was trained on. offset:
    whether one constant is added to predictions too. group: the column whose values count as sources; "" is that of
    the sources. source_column, encoder_column: "" for the kind's usual names. method: of the intervals, None for the
    kind's default. tell: takes a line for the person, before the work that it is about. by_encoder: whether the rows
    of each encoder are calibrated apart; since 0.2.0.
    """

    entry_id: str
    corpus: Path
    offset: bool = False
    group: str = ""
    source_column: str = ""
    encoder_column: str = ""
    method: str | None = None
    progress: Progress = silent
    tell: Callable[[str], None] = discard_line
    by_encoder: bool = False


@dataclass(frozen=True, slots=True)
class GateRequest:
    """evidence: None means the evidence that the manifest pins; else foreign files, name -> bytes.

    corpus: a corpus file that foreign evidence must fit, or None. incumbent: the entry of the same kind to compare
    with, named by the policy or by a person; one that cannot be compared is a problem of the evidence. The details say
    how they compare at `against`, `incumbent`; where they say nothing, the core makes that a problem.
    incumbent_oof: in its place, what `registry_oof` gives of an incumbent of another kind. Since 0.2.0.
    seeds: of which foreign evidence there must be, as a person named them; None where none were named.
    rules: what the metrics will be judged by, so that a plugin can say what they see; none where none are asked for.
    column_names: a column of a corpus -> what this file calls it, where a person said so (`src`, `encoder`).
    """

    evidence: Mapping[str, bytes] | None = None
    corpus: Path | None = None
    incumbent: EntryView | None = None
    seeds: tuple[int, ...] | None = None
    rules: tuple[Rule, ...] = ()
    column_names: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    incumbent_oof: OofPredictions | None = None

    def __post_init__(self) -> None:
        if self.evidence is not None:
            object.__setattr__(self, "evidence", MappingProxyType(dict(self.evidence)))

    @property
    def incumbent_id(self) -> str | None:
        """The id of the entry to compare with, of whichever kind."""
        if self.incumbent_oof is not None:
            return self.incumbent_oof.entry
        return None if self.incumbent is None else self.incumbent.entry.id

    @property
    def against(self) -> EntryView | None:
        """The older name of `incumbent`."""
        return self.incumbent


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """An entry on new data. smoke: on fresh random rows. levels: nominal coverages in (0, 1). by: grouping columns.

    figures: whether figures are asked for. incumbent: another entry of the kind, to be compared on the same rows; the
    document then says how they compare at `against`, `incumbent`. column_names: as of `GateRequest`.
    """

    corpus: Path | None
    smoke: bool = False
    levels: Sequence[float] = (0.5, 0.8, 0.95)
    by: Sequence[str] = ("src",)
    progress: Progress = silent
    figures: bool = False
    incumbent: EntryView | None = None
    column_names: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "by", tuple(self.by))

    @property
    def against(self) -> EntryView | None:
        """The older name of `incumbent`."""
        return self.incumbent


@dataclass(frozen=True, slots=True)
class Evaluation:
    """document: the JSON of `evaluate --format json`. table: the same for people, header row first.

    figures: the same as charts, where they were asked for and the plugin has any.
    """

    document: Mapping[str, Json]
    table: Sequence[Sequence[str]] = ()
    warnings: Sequence[str] = ()
    figures: Sequence[Figure] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.document, Mapping):
            raise TypeError(f"document: found {type(self.document).__name__}, expected a mapping")
        if self.table:
            Table(self.table)  # raises ValueError for rows of different lengths
        for figure in self.figures:
            if not isinstance(figure, Figure):
                raise TypeError(f"figures: found a {type(figure).__name__}, expected Figure")


@dataclass(frozen=True, slots=True)
class ReproduceRequest:
    """corpus: what the entry learned from, None for the one that ships with the plugin. jobs: None for all cores."""

    corpus: Path | None
    jobs: int | None = None
    device: str = "cpu"
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one output of the new model is from the old one's on the same rows: the largest and the RMS difference.

    tolerance: the most that the RMS may be, for the two to count as one model. unit: what all three are in.
    """

    name: str
    largest: float
    rms: float
    tolerance: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.rms <= self.tolerance  # never for NaN


@dataclass(frozen=True, slots=True)
class Reproduction:
    """An entry trained again. trained: as `registry_train` gives it; the core compares its bytes with the old ones.

    agreements: how far predictions moved. causes: items of the manifest's `environment` that can have made these
    differences -> what they decide. follows: pointers into the manifest below which numbers follow from the weights,
    so that they may differ as far as the predictions do. warnings: what was not checked. unchecked: files that were
    not made again, in the artefact's folder; `trained` has the entry's own bytes for them.
    """

    trained: Trained
    agreements: Sequence[Agreement] = ()
    causes: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    follows: Sequence[str] = ()
    warnings: Sequence[str] = ()
    unchecked: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """corpus: rows without a target are fine. levels: nominal coverages of the intervals, in (0, 1).

    column_names: as of `GateRequest`.
    """

    corpus: Path | None
    levels: Sequence[float] = (0.95,)
    column_names: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows of a prediction: column name -> values, all of one length, in output order.

    warnings: what a person must know -> how many of these rows it is about; the core adds up the batches' counts.
    """

    columns: Mapping[str, Sequence[Json] | Column]
    warnings: Mapping[str, int] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            kind = getattr(values, "dtype", None)
            if kind is not None and (kind.kind not in "biuf" or getattr(values, "ndim", 1) != 1):
                raise ValueError(f"column {name!r}: found an array of {kind}, expected numbers on one axis")
        if len({len(values) for values in self.columns.values()}) > 1:
            raise ValueError("columns: found different lengths, expected one")


@runtime_checkable
class Predictor(Protocol):
    """An entry that is loaded and ready: it predicts rows, whether they come from a file or from a program.

    Threads may share one. It holds what it needs: the registry's folder is closed by then.
    """

    def columns(self, found: Sequence[str], place: str) -> Columns:
        """What it reads of rows that have these columns. place: what messages call the rows, such as a file's name.

        Raises InputError for a column that is missing.
        """

    def predict(self, rows: RowBatch, levels: Sequence[float]) -> Batch:
        """The predictions of some rows, in their order, with an interval for each level, a nominal coverage in (0, 1).

        Raises InputError for a row that cannot be used.
        """

    def check_file(self, path: Path) -> Predictor | None:
        """Raises InputError where a file says of itself that its rows are not what the entry learned from.

        What it says short of that, for flags and warnings of its rows, goes into what this returns; None: itself.
        """


PREDICT_DEPRECATED = DeprecationWarning("registry_predict is deprecated since 0.2.0: implement registry_load")


class Hooks:
    """The hook specifications. A plugin implements any of them with `@hookimpl` and the same argument names."""

    @hookspec
    def registry_kinds(self) -> Iterable[Kind]:  # type: ignore[empty-body]  # a specification has no body
        """Name the kinds this plugin owns.

        Called once a run, while plugins load, by the core. None means no kind. Must not raise; two plugins naming one
        kind is an error at load. Keep it free of heavy imports: every command calls it.

        Since 0.1.0.

        Example: `return [Kind("thumb", "thumbnail rankers", schema=SCHEMA)]`
        """

    @hookspec(firstresult=True)
    def registry_train(self, request: TrainRequest) -> Trained | None:
        """Train an entry of a kind you own.

        Called by `registry train KIND`, on the owner of the kind only. None means the kind cannot be trained. May raise
        InputError for a corpus that cannot be used and WorldError for a world that broke; KeyboardInterrupt passes.
        Writes no file: the core hashes, pins and writes what is returned.

        Since 0.1.0.

        Example: `return Trained({"model.onnx": data}, {"id": request.entry_id, "kind": "thumb", "onnx": "model.onnx"})`
        """

    @hookspec(firstresult=True)
    def registry_calibrate(self, view: EntryView, request: CalibrateRequest) -> Trained | None:
        """Make a new entry of an old one's models, with intervals from other labelled rows.

        Called by `registry calibrate ID`, on the owner of the kind only, for an entry that validates. None means the
        kind has nothing to calibrate. May raise InputError for a corpus that cannot be used, above all for rows that
        the models were trained on. Writes no file: the core hashes, pins and writes what is returned, as for
        `registry_train`.

        Since 0.2.0.

        Example: `return Trained({"model.onnx": view.read("model.onnx")}, {**view.manifest, "id": request.entry_id})`
        """

    @hookspec(firstresult=True)
    def registry_migrate(self, view: EntryView) -> Trained | None:
        """Complete an entry that was joined from the members of an older registry, so that it can be used.

        Called by `registry migrate`, on the owner of the kind only, for a manifest that pins its members. None means
        there is nothing to add. May raise InputError with the reason where it cannot be completed: it is joined as it
        is then, with a warning. Returns the files to add and the whole manifest, which goes on naming all that it
        named; the core writes the digests.

        Since 0.2.0.

        Example: `return Trained({"all.onnx": b"..."}, {**view.manifest, "fused": {"onnx": "all.onnx"}})`
        """

    @hookspec
    def registry_verify(self, view: EntryView, level: Level) -> Iterable[Finding]:  # type: ignore[empty-body]  # spec
        """Look at an entry and say what is wrong with it.

        Called by `registry validate` for every entry whose documents and digests hold, on every plugin. None and an
        empty list mean nothing to object to. At Level.QUICK import no heavy library. An exception becomes the finding
        `plugin-failed` on that entry; findings of the core cannot be removed. The entries of a large registry are
        shared out among processes: what is remembered from one entry may not be there at the next.

        Since 0.1.0.

        Example: `return [NO_AUTHOR.at(view, "/author")]`, where NO_AUTHOR is a `findings.FindingRule`
        """

    @hookspec(firstresult=True)
    def registry_gate(self, view: EntryView, request: GateRequest) -> Evidence | None:
        """Measure what the evidence shows; never judge it.

        Called by `gate`, `flip` and `validate` of a production entry, on the owner of the kind only. None means the
        kind has no gate: it flips only under a `manual` policy. May raise InputError for evidence that cannot be read;
        evidence that can be read but not be trusted returns its problems.

        Since 0.1.0.

        Example: `return Evidence(metrics={"mean_plcc": 0.97}, sha256=digest)`
        """

    @hookspec(firstresult=True)
    def registry_oof(self, view: EntryView) -> OofPredictions | None:
        """Give the out-of-fold predictions that an entry pins, so that entries of other kinds can be compared with it.

        Called by `gate`, `flip`, `compare` and `validate`, on the owner of the kind only, where the entry is the
        incumbent of an entry of another kind; `registry_gate` of that kind gets the answer. None means the entry has
        none. May raise InputError for evidence that cannot be read or not be trusted: the other entry is held.

        Since 0.2.0.

        Example: `return OofPredictions(view.entry.id, ["a", "b"], [71.3, 64.0], [70.9, 65.2])`
        """

    @hookspec(firstresult=True)
    def registry_evaluate(self, view: EntryView, request: EvaluateRequest) -> Evaluation | None:
        """Measure an entry on data it has not seen.

        Called by `registry evaluate ID`, on the owner of the kind only. None means the kind cannot be evaluated. May
        raise InputError for a corpus that cannot be used. A document without the comparison that `request.incumbent`
        asks for is refused by the core.

        Since 0.1.0.

        Example: `return Evaluation({"entry": view.entry.id, "plcc": 0.98})`
        """

    @hookspec(firstresult=True)
    def registry_reproduce(self, view: EntryView, request: ReproduceRequest) -> Reproduction | None:
        """Train an entry again from its manifest, and measure how far the new model's predictions are from the old's.

        Called by `registry reproduce ID`, on the owner of the kind only, for an entry that validates. None means the
        kind cannot be reproduced. May raise InputError for another corpus than the entry's, before training, and
        WorldError. Writes no file and compares no bytes: the core does.

        Since 0.2.0.

        Example: `return Reproduction(again, [Agreement("score", 0.0, 0.0, 1e-6, "vmaf")], {"numpy": "sums"})`
        """

    @hookspec(firstresult=True)
    def registry_load(self, view: EntryView) -> Predictor | None:
        """Load an entry, so that rows can be predicted.

        Called by `registry predict ID` and `Registry.load`, on the owner of the kind only, for an entry whose bytes are
        verified. None means the kind cannot predict. May raise InputError for an entry that cannot be loaded. It
        takes the place of `registry_predict`.

        Since 0.2.0.

        Example: `return ThumbPredictor(view.read(view.manifest["onnx"]))`
        """

    @hookspec(firstresult=True, warn_on_impl=PREDICT_DEPRECATED)
    def registry_predict(self, view: EntryView, request: PredictRequest) -> Iterable[Batch] | None:
        """Predict the rows of a file, batch by batch, holding no more than a batch.

        Deprecated since 0.2.0, since it serves no program: implement `registry_load`. Called by `registry predict ID`
        where the owner of the kind does not offer `registry_load`. None means the kind cannot predict. May raise
        InputError for rows that cannot be used, before the first batch where possible.

        Since 0.1.0.

        Example: `yield Batch({"row": [0, 1], "mu": [71.3, 64.0]})`
        """

    @hookspec(firstresult=True)
    def registry_figures(self, view: EntryView, rules: Sequence[Rule]) -> Sequence[Figure] | None:
        """Show what the evidence that an entry pins says, as charts and tables.

        Called by `registry report ID`, on the owner of the kind only. None means there is nothing to show. May raise
        InputError for evidence that cannot be read. The same bytes and rules must give the same figures.

        rules: of the policy that the entry is judged by, so that a figure can be shown beside its bound. A plugin that
        does not need them leaves the argument out.

        Since 0.1.0.

        Example: `return [Figure("Scores", "Of each source.", table=Table([("source", "score"), ("a", "0.97")]))]`
        """

    @hookspec
    def registry_commands(self) -> Iterable[click.Command]:  # type: ignore[empty-body]  # a specification has no body
        """Add commands to `registry`.

        Called once a run by the command line. None means no command; a name that is taken is an error at load.
        A command that takes an entry opens it through `ctx.obj`, a `Host`.

        Since 0.1.0.

        Example: `return [click.Command("thumb-stats", callback=stats)]`
        """
