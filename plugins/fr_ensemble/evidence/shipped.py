"""shipped.py: what the shipped ensemble gives for the rows of its evidence, run in the sandbox. Judges no policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Numbers, rows_by_name
from fr_ensemble.artifacts.graphs import CODEC, FEATURES, MU, SCORE, SIGMA
from fr_ensemble.artifacts.manifest import codec_block, mu_range_of, offset_of, scaler_of
from fr_ensemble.artifacts.runtime import standardise
from fr_ensemble.corpus.fingerprints import Fingerprints, SourcePairs
from fr_ensemble.corpus.giveaway import giveaways
from fr_ensemble.corpus.rows import clips_of
from fr_ensemble.corpus.seen import SeenCorpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vocabulary import encode
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.oof import Oof, cut, deviation_of, mean_of
from fr_ensemble.evidence.statistics import plcc, rmse
from registry_tool.archive import EvidenceProblem
from registry_tool.hookspec import EntryView
from registry_tool.onnx_summary import OnnxError
from registry_tool.toolkit import Text
from registry_tool.values import Json

# Other processors and other releases of onnxruntime add float32 numbers in another order. Differences seen are below
# 1e-6 of the spread of the targets; a hundred times that is another model, not rounding.
SCORE_TOLERANCE = 1e-4  # of the span of the evidence's targets
PLCC_TOLERANCE = 1e-4
MAX_IN_SAMPLE_RATIO = 1.0
# Of the span of the targets: where sources do not differ and models are nearly exact, held-out rows are as easy as seen
# ones, and the ratio is 1 give or take the luck of a training (1.3 was measured). Below this RMSE it says nothing.
MIN_RATIO_RMSE = 0.01
# How far the ratio of a sample may be above 1, times its rows: honest ones are, by chance, where rows are few. Of fewer
# rows than the least it says nothing.
SAMPLE_LUCK, MIN_SAMPLE = 10.0, 10


@dataclass(frozen=True, slots=True)
class ShippedScores:
    """mu and sigma of the shipped ensemble for rows that its members have seen. is_complete: all rows of the corpus."""

    rows: Int64  # (m,), which rows of the evidence
    mu: Float64  # (m,)
    sigma: Float64  # (m,)
    is_complete: bool

    def in_sample_ratio(self, oof: Oof) -> float:
        """RMSE of the shipped mu by that of the out-of-fold mu on the same rows, each a mean over sources."""
        held_out = _rmse_over_sources(oof.mu[self.rows], oof, self.rows)
        return self.rmse(oof) / held_out if held_out > 0.0 else math.inf

    @property
    def largest_ratio(self) -> float:
        """That an honest ensemble has, but for one in hundreds."""
        return MAX_IN_SAMPLE_RATIO + (0.0 if self.is_complete else SAMPLE_LUCK / len(self.rows))

    def rmse(self, oof: Oof) -> float:
        """Of the shipped mu, mean over sources, target units."""
        return _rmse_over_sources(self.mu, oof, self.rows)


def score_tolerance(oof: Oof, target_range: tuple[float, float]) -> float:
    """How far a score may be from the one that was written, target units.

    From the targets of the evidence: a manifest that says a wider range of its own gets no more.
    """
    low, high = target_range
    return SCORE_TOLERANCE * min(float(np.ptp(oof.target)), high - low)


def run_shipped(view: EntryView, inputs: Inputs, spec: ColumnSpec) -> ShippedScores:
    """The fused graph on the inputs. Raises EvidenceProblem where it does not run on them, or gives no numbers."""
    manifest = view.manifest or {}
    if offset_of(manifest):  # the figures of training are those of the members without it
        scores = run_members(view, inputs, spec)
        mu = cut(mean_of(scores), mu_range_of(manifest))
        return ShippedScores(inputs.row, mu, deviation_of(scores), inputs.is_complete)
    feeds = {FEATURES: inputs.features, CODEC: inputs.codec_block(spec)}
    mu, sigma = _run(view, str(manifest["fused"]["onnx"]), feeds, (MU, SIGMA))
    return ShippedScores(inputs.row, mu, sigma, inputs.is_complete)


def run_members(view: EntryView, inputs: Inputs, spec: ColumnSpec) -> Float64:
    """Each member on the inputs, (S, m), target units. Raises EvidenceProblem as `run_shipped` does."""
    manifest = view.manifest or {}
    arrays = standardise(inputs.features, inputs.codec_block(spec), scaler_of(manifest), spec.n_slots)
    feeds = dict(zip((FEATURES, CODEC), arrays, strict=True))
    return np.stack([_run(view, str(member["onnx"]), feeds, (SCORE,))[0] for member in manifest["members"]])


def run_other(other: EntryView, inputs: Inputs, spec: ColumnSpec, other_spec: ColumnSpec) -> Float64:
    """mu of another entry's fused graph on these inputs (m,), cut to its target's range. spec: of the inputs.

    Raises EvidenceProblem where a column that it reads is not among them, or it does not run.
    """
    names, raw = _named(inputs, spec)
    columns = dict(zip(names, raw.T, strict=True))
    if missing := [name for name in other_spec.inputs if name not in columns]:
        raise EvidenceProblem(f"it reads {missing[0]}, which is no input of the entry: compare them with `evaluate`")
    codec, _ = encode([inputs.encoders[code] for code in inputs.encoder], other_spec.vocabulary_version)
    try:
        conditions = [condition.apply(columns[condition.column]) for condition in other_spec.conditioning]
    except ValueError as error:
        raise EvidenceProblem(f"a condition cannot be transformed: {error}") from None
    width = (len(codec), len(conditions))
    block = codec_block(codec, np.array(conditions).T.reshape(width), other_spec.n_slots)
    feeds = {FEATURES: np.column_stack([columns[name] for name in other_spec.features]), CODEC: block}
    manifest = other.manifest or {}
    (mu,) = _run(other, str(manifest["fused"]["onnx"]), feeds, (MU,))
    return cut(mu, other_spec.bounds)


def _run(view: EntryView, path: str, feeds: Mapping[str, Numbers], outputs: Sequence[str]) -> list[Float64]:
    """A graph on m rows, in the sandbox: its outputs, (m,) each."""
    m = len(feeds[FEATURES])
    try:
        found = view.run(path, {name: values.astype(np.float32) for name, values in feeds.items()})
    except OnnxError as error:
        raise EvidenceProblem(f"{path}: does not run on the rows of inputs.npz: {error}") from None
    arrays = [np.asarray(found.get(name, ()), np.float64) for name in outputs]
    if any(values.shape != (m,) or not np.isfinite(values).all() for values in arrays):
        raise EvidenceProblem(f"{path}: gives no finite {' and '.join(outputs)} for each of the {m} rows of inputs.npz")
    return arrays


def input_problems(manifest: Mapping[str, Json], inputs: Inputs, oof: Oof, spec: ColumnSpec) -> Iterator[str]:
    """Where the inputs are not those of the corpus that the manifest and the predictions are of."""
    yield from row_problems(manifest, inputs, oof, spec)
    if inputs.n_rows != len(oof.target):
        return
    claims = SeenCorpus.from_manifest(manifest).encoders if inputs.is_complete else None
    if claims and claims != (counts := rows_by_name(inputs.encoder, inputs.encoders)):
        yield f"encoders: found {counts} in inputs.npz, the manifest says {dict(claims)}"
    if claims and len(claims) != len(manifest["corpus"]["encoders"]):
        yield "encoders: found a name twice in the manifest, expected each once"
    low, high = (ends(inputs.transformed(spec), axis=0).tolist() for ends in (np.min, np.max))
    for place, known in enumerate(manifest["intervals"]["input_ranges"][: len(low)]):
        expected, found = known["range"], [low[place], high[place]]
        if found != expected if inputs.is_complete else not (expected[0] <= found[0] and found[1] <= expected[1]):
            yield f"input_ranges {known['name']}: found {found} in inputs.npz, the manifest says {expected}"


def row_problems(recorded: Mapping[str, Json], inputs: Inputs, oof: Oof, spec: ColumnSpec) -> Iterator[str]:
    """Where the inputs are not those of the rows that the predictions are of. recorded: what has `evidence_inputs`."""
    if inputs.n_rows != len(oof.target):
        yield f"inputs.npz: found rows of a corpus of {inputs.n_rows}, expected {len(oof.target)}"
        return
    claimed = recorded["evidence_inputs"]["n_rows"]
    if claimed != len(inputs.row):
        yield f"inputs.npz: found {len(inputs.row)} rows, the manifest says {claimed}"
    if not inputs.is_complete:
        return
    if (digest := inputs.rows_sha256(oof, spec)) != oof.rows_sha256:
        yield f"inputs.npz: found rows of sha256 {digest}, expected {oof.rows_sha256}: inputs of other rows"
    if inputs.clip is not None:
        index, labels, _ = clips_of(oof.source, oof.sources, Text(inputs.clip, inputs.clips))
        if labels != oof.clips or not np.array_equal(index, oof.clip if oof.clip is not None else ()):
            yield "oof.npz clips: found others than those of inputs.npz"


def figure_problems(manifest: Mapping[str, Json], shipped: ShippedScores, oof: Oof) -> Iterator[str]:
    """Where the shipped ensemble is not the one of the manifest's figures. Of a sample there are none."""
    low, high = manifest["target"]["range"]
    tolerance, target = score_tolerance(oof, (low, high)), oof.target[shipped.rows]
    found = {
        "in_sample_plcc": (plcc(shipped.mu, target), PLCC_TOLERANCE),
        "in_sample_rmse": (rmse(shipped.mu, target), tolerance),
        "mean_sigma_train": (float(shipped.sigma.mean()), tolerance),
    }
    for name, (value, allowed) in found.items() if shipped.is_complete else ():
        stored = manifest["eval"][name]
        both = stored is not None and math.isfinite(value)
        if not (abs(stored - value) <= allowed if both else stored is None and not math.isfinite(value)):
            yield f"{name}: found {stored}, the shipped models give {value:.6g}"


def ratio_problems(shipped: ShippedScores, oof: Oof) -> list[str]:
    """Where the shipped ensemble does worse on rows that it has seen than models that never saw them."""
    if not shipped.is_complete and len(shipped.rows) < MIN_SAMPLE:
        return []
    ratio = shipped.in_sample_ratio(oof)
    if ratio <= shipped.largest_ratio or shipped.rmse(oof) < MIN_RATIO_RMSE * float(np.ptp(oof.target)):
        return []
    problem = f"found {ratio:.6g}, expected at most {shipped.largest_ratio:.6g}"
    why = "on rows that they were trained on, the shipped models do worse than models that never saw them"
    return [f"in_sample_ratio: {problem}: {why}: other weights, or too little training"]


def group_problems(spec: ColumnSpec) -> list[str]:
    """Where the folds are of something else than sources."""
    if not spec.by_encoder:
        return []
    found = f"found a fold for each {spec.source_column}, expected one for each source"
    return [f"folds: {found}: its figures are for a new encoder of sources that training has, not for a new source"]


def fingerprint_problems(
    manifest: Mapping[str, Json], stored: Fingerprints, oof: Oof, inputs: Inputs | None, spec: ColumnSpec
) -> Iterator[str]:
    """Where the fingerprints are not those of the predictions' sources, or of the inputs as far as these say."""
    if list(stored.columns) != list(manifest["fingerprints"]["columns"]) or stored.sources != oof.sources:
        yield "fingerprints.npz: found other columns or sources than the manifest and the predictions have"
        return
    if inputs is None or not inputs.is_complete:
        return
    names, raw = _named(inputs, spec)
    known = [place for place, name in enumerate(stored.columns) if name in names]
    values = raw[:, [names.index(stored.columns[place]) for place in known]]
    again = Fingerprints.of([stored.columns[k] for k in known], oof.sources, oof.source, values)
    again = again.with_rows(oof.source, raw)
    for place, of_column in zip(known, again.values, strict=True):
        if any(not np.array_equal(*both) for both in zip(of_column, stored.values[place], strict=True)):
            yield f"fingerprints.npz {stored.columns[place]}: found other values than those of inputs.npz"
    if any(not np.array_equal(*both) for both in zip(again.rows, stored.rows, strict=True)):
        yield "fingerprints.npz: found other rows than those of inputs.npz"


def with_inputs(stored: Fingerprints | None, inputs: Inputs, oof: Oof, spec: ColumnSpec) -> Fingerprints:
    """The fingerprints with all that the inputs of all rows say of the sources, whatever the manifest names of it."""
    names, raw = _named(inputs, spec)
    known = stored or Fingerprints((), oof.sources, ()).with_rows(oof.source, raw)
    return known if spec.by_encoder else known.with_motion(names, oof.source, raw)


def evidence_warnings(oof: Oof, inputs: Inputs | None, pairs: SourcePairs | None, spec: ColumnSpec) -> list[str]:
    """What was not judged, and what looks odd, one line each."""
    found = [] if pairs is None else [*pairs.shifts(), *pairs.not_judged()]
    if pairs is None:
        found.append("different sources: not judged, since the evidence has no fingerprints of them")
    if inputs is None:
        found.append("shipped weights: not judged, since the evidence has no inputs to run them on: no in_sample_ratio")
        return found
    if not inputs.is_complete:
        share = f"{len(inputs.row)} of {inputs.n_rows} rows"
        few = f"not judged, since it takes {MIN_SAMPLE} rows and the evidence has {share}"
        judged = few if len(inputs.row) < MIN_SAMPLE else f"judged on {share}"
        found.append(f"shipped weights: {judged}; the digest of the rows was not computed again")
    names, raw = _named(inputs, spec)
    source = oof.source[inputs.row]
    found += giveaways(names, (tuple(raw.T), tuple(inputs.transformed(spec).T)), oof.target[inputs.row], source)
    return found + _divided_clips(inputs, source, spec)


def _divided_clips(inputs: Inputs, source: Int64, spec: ColumnSpec) -> list[str]:
    """Where another column than `src` makes the folds, and has one clip's rows in several of them. source: (m,)."""
    if inputs.clip is None or spec.source_column in ("", "src"):
        return []
    folds_of_clip = np.bincount(np.unique(np.stack([inputs.clip, source]), axis=1)[0])
    if not (divided := int(np.sum(folds_of_clip > 1))):
        return []
    found = f"{divided} of {len(inputs.clips)} clips have rows in several of its folds"
    return [f"{spec.source_column}: {found}: the figures are for other rows of clips that training has"]


def _named(inputs: Inputs, spec: ColumnSpec) -> tuple[list[str], Float64]:
    """Names and values (m, F + K) of the numeric inputs as the corpus has them."""
    return spec.inputs, np.column_stack([inputs.features, inputs.conditioning])


def _rmse_over_sources(mu: Float64, oof: Oof, rows: Int64) -> float:
    source, target = oof.source[rows], oof.target[rows]
    return float(np.mean([rmse(mu[part], target[part]) for part in map(source.__eq__, np.unique(source))]))
