"""calibrate.py: an ensemble's members with intervals of sources that none of them was trained on. Trains nothing."""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fr_ensemble.artifacts.calibrated import calibrated_manifest
from fr_ensemble.artifacts.graphs import fused_model, read_weights, shifted
from fr_ensemble.artifacts.manifest import (
    confidence_method,
    corpus_document,
    fused_format_of,
    graph_version_of,
    scaler_of,
    spec_of,
    with_columns_of,
)
from fr_ensemble.artifacts.paths import (
    CALIBRATION_FINGERPRINTS_PATH,
    CALIBRATION_INPUTS_PATH,
    CALIBRATION_PATH,
    FINGERPRINTS_PATH,
    INPUTS_PATH,
    OOF_PATH,
    PARENT_PATH,
)
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.record import column_names
from fr_ensemble.corpus.rows import Corpus, read_corpus
from fr_ensemble.corpus.sources import read_sources
from fr_ensemble.corpus.vocabulary import UNKNOWN
from fr_ensemble.evidence.calibrating import (
    MIN_COVERAGE_SOURCES,
    MIN_ENCODER_SOURCES,
    encoder_sources,
    held_out_shares,
    own_encoders,
    residual_quantile,
)
from fr_ensemble.evidence.calibration import (
    as_unseen,
    by_encoder_name,
    is_promised,
    offset_in,
    predictions_of,
    promise,
    read_calibration,
    seen_problems,
    seen_warnings,
    with_encoders,
    write_calibration,
)
from fr_ensemble.evidence.fingerprints import read_fingerprints
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.intervals import EncoderIntervals, Intervals, calibrate_all_of
from fr_ensemble.evidence.methods import DEFAULT_METHOD, INTERVAL_METHODS, Gaussian
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.problems import copied_targets
from fr_ensemble.evidence.quantiles import NOMINAL_LEVELS
from fr_ensemble.evidence.recorded import ALL_EVIDENCE, EvidenceContents, Recorded, record
from fr_ensemble.evidence.shipped import run_members, score_tolerance
from fr_ensemble.hooks.flags import unknown_encoders
from fr_ensemble.hooks.loaded import load_trained, stored_intervals
from fr_ensemble.hooks.targets import check_target
from registry_tool import toolkit
from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.hookspec import Agreement, CalibrateRequest, EntryView, ReproduceRequest, Reproduction, Trained
from registry_tool.strictjson import parse
from registry_tool.values import MAX_NAMES_SHOWN, Json, counted, first_names, percent

SHOWN_LEVELS = (0.8, 0.95)  # of the coverage in the summary

PROMISED_WITH_OFFSET = "--offset: what is guaranteed is nearly so: a source is scored with the offset of the others"
CALIBRATED_BY_ENCODER = "--group encoder: intervals are for a new encoder of these sources, not for new sources"


@dataclass(frozen=True, slots=True)
class Parent:
    """The entry that is calibrated. view: one with its members and evidence. data: the bytes of its manifest."""

    view: EntryView
    id: str
    manifest: Mapping[str, Json]
    data: bytes

    @classmethod
    def of(cls, view: EntryView) -> Parent:
        """Raises InputError for an entry that has nothing to calibrate, or is calibrated already."""
        manifest, _ = load_trained(view)
        if manifest["random_rows"]:
            raise InputError(
                f"{view.entry.id}: trained on random rows, expected a corpus: there is nothing to calibrate"
            )
        if "calibrated_from" in manifest:
            first = manifest["calibrated_from"]["id"]
            raise InputError(f"{view.entry.id}: it is calibrated already, expected the entry it was made of: {first}")
        return cls(view, view.entry.id, manifest, view.read(posixpath.basename(str(view.entry.manifest))))

    @classmethod
    def pinned_by(cls, view: EntryView) -> Parent:
        """That of a calibrated entry, as it has it."""
        data = view.read(PARENT_PATH)
        return cls(view, (view.manifest or {})["calibrated_from"]["id"], parse(data).value, data)


def calibrate(view: EntryView, request: CalibrateRequest) -> Trained:
    """Raises InputError for rows that cannot be used, above all for sources that the members were trained on."""
    parent, method = Parent.of(view), request.method or DEFAULT_METHOD
    if method not in INTERVAL_METHODS:
        raise InputError(f"--interval: found {method!r}, expected one of {', '.join(INTERVAL_METHODS)}")
    if request.group and request.source_column:
        raise InputError("--group: its values count as sources, so it takes no --source-column: leave one of them out")
    toolkit.column_names(request.source_column, request.encoder_column)  # refuses one for both
    if request.by_encoder and INTERVAL_METHODS[method].rule == Gaussian.rule:
        raise InputError(
            f"--by-encoder: --interval {method} calibrates nothing, by encoder or not: drop one of the two"
        )
    warnings = check_target(view.entry.id, parent.manifest, request.corpus)
    corpus = _read(parent, request)
    k = len(corpus.sources)
    request.tell(f"{request.corpus.name}: {corpus.n_rows} rows, {k} sources by the column {_column(corpus)}")
    for line in _promised(k, request, method):
        request.tell(line)
    for line in _encoders_apart(corpus, request, method) if request.by_encoder else ():
        request.tell(line)
    recorded = record(
        corpus, request.corpus, Recipe.from_dict(parent.manifest["recipe"]), ALL_EVIDENCE, request.progress
    )
    pinned = _predicted(parent, corpus)
    if request.by_encoder:
        pinned = with_encoders(pinned, corpus.groups["encoder"])
    warnings += _refuse_seen(parent, request, pinned, recorded)
    made = make(
        parent, request.entry_id, Measured(corpus, request.corpus.name, pinned, recorded, request.offset, method)
    )
    unknown = unknown_encoders(corpus.unknown_encoders, corpus.spec.vocabulary_version)
    warnings += [f"{words}: {counted(n, 'row')}" for words, n in unknown.items()]
    warnings += [*corpus.failed_encodes(), *recorded.warnings]
    warnings += [CALIBRATED_BY_ENCODER] if corpus.spec.by_encoder else []
    return replace(made, warnings=[*warnings, *INTERVAL_METHODS[method].warnings()])


def _promised(k: int, request: CalibrateRequest, method: str) -> Iterator[str]:
    """What k sources promise, for people."""
    yield from (f"{k} sources: {line}" for line in promise(method, k))
    if request.offset and any(is_promised(method, k, level) for level in NOMINAL_LEVELS):
        yield PROMISED_WITH_OFFSET


def _column(corpus: Corpus) -> str:
    return corpus.spec.source_column or "src"


def _read(parent: Parent, request: CalibrateRequest) -> Corpus:
    """The rows to calibrate on, whose sources differ."""
    spec = replace(
        spec_of(parent.manifest, target=True),
        source_column=request.group or request.source_column,
        encoder_column=request.encoder_column,
    )
    corpus = read_corpus(request.corpus, spec, progress=request.progress)
    if problems := copied_targets(corpus.target, corpus.source, corpus.sources):
        raise InputError(f"{request.corpus}, column {spec.target}: {problems[0]}: leave one of them out")
    return corpus


def _encoders_apart(corpus: Corpus, request: CalibrateRequest, method: str) -> Iterator[str]:
    """Which encoders get intervals of their own and what their sources promise, for people.

    Raises InputError where none does, or where there is one encoder alone.
    """
    if corpus.spec.by_encoder:
        raise InputError("--by-encoder: with --group encoder no source has a second encoder: drop one of the two")
    sources = encoder_sources(by_encoder_name(corpus.groups["encoder"]), corpus.source)
    own, common = own_encoders(sources), max(sources, key=lambda name: sources[name])
    if len(sources) < 2:
        raise InputError(
            f"{request.corpus}: found rows of {common} alone, expected two encoders or more: drop --by-encoder"
        )
    if not own:
        raise InputError(
            f"{request.corpus}: found no encoder in {MIN_ENCODER_SOURCES} sources or more, expected one "
            f"({common} is in {sources[common]}): drop --by-encoder"
        )
    groups: dict[int, list[str]] = {}
    for name in own:
        groups.setdefault(sources[name], []).append(name)
    for k, names in groups.items():
        each = " each" if len(names) > 1 else ""
        yield from (f"{first_names(names)} ({k} sources{each}): {line}" for line in promise(method, k))
    pooled = [name for name in sources if name not in own]
    if len(pooled) > MAX_NAMES_SHOWN:
        yield f"{first_names(pooled)} (fewer than {MIN_ENCODER_SOURCES} sources): they take the intervals of all rows"
        return
    for name in pooled:
        why = "no encoder's name" if name == UNKNOWN else f"fewer than {MIN_ENCODER_SOURCES}"
        yield f"{name} ({counted(sources[name], 'source')}, {why}): it takes the intervals of all rows"


def _predicted(parent: Parent, corpus: Corpus) -> Oof:
    """What the members give for every row, by the engine and in the sandbox that the gate runs them in."""
    all_rows = Inputs.of(corpus, np.arange(corpus.n_rows))
    try:
        scores = run_members(parent.view, all_rows, corpus.spec)
        return predictions_of(corpus, parent.manifest, scores)
    except EvidenceProblem as error:
        raise InputError(f"{parent.view.entry.id}: {error}") from error


def _refuse_seen(parent: Parent, request: CalibrateRequest, pinned: Oof, recorded: Recorded) -> list[str]:
    """Raises InputError for sources that the members were trained on; what could not be judged is a warning."""
    view, fingerprints = parent.view, read_fingerprints(recorded.files[FINGERPRINTS_PATH])
    try:
        trained = read_oof(view.read(OOF_PATH))
        known = read_fingerprints(view.read(FINGERPRINTS_PATH)) if "fingerprints" in parent.manifest else None
    except (EvidenceProblem, KeyError) as error:
        raise InputError(f"{view.entry.id}: {error}: run `registry validate`") from error
    problems = seen_problems(trained, known, pinned, fingerprints)
    if request.group and "src" in column_names(request.corpus):
        videos = read_sources(request.corpus, {}).n
        problems += [f"source {name}: the members were trained on it" for name in trained.sources if name in videos]
    if problems:
        raise InputError(
            f"{request.corpus}: {problems[0]}: intervals of sources that the members know promise too much: "
            "leave those rows out, or rename a source that is another video"
        )
    return seen_warnings(known, fingerprints)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the members gave for a corpus; what of it is recorded, and how intervals are made of it."""

    corpus: Corpus
    name: str
    pinned: Oof
    recorded: Recorded
    has_offset: bool
    method: str


def make(parent: Parent, entry_id: str, measured: Measured) -> Trained:
    """The files and the manifest of the calibrated entry."""
    corpus, pinned, has_offset = measured.corpus, measured.pinned, measured.has_offset
    calibrated, offset = as_unseen(pinned, has_offset), offset_in(pinned) if has_offset else 0.0
    try:
        intervals = calibrate_all_of(
            calibrated, stored_intervals(parent.view).input_ranges, corpus.spec.bounds, measured.method
        )
    except EvidenceProblem as error:
        raise InputError(f"{measured.name}: {error}") from error
    document: dict[str, Json] = {
        "corpus": corpus_document(corpus, measured.name),
        **measured.recorded.fields,
    }
    document |= {"offset": offset} if has_offset else {}
    document |= {"group": _column(corpus)} if corpus.spec.source_column else {}
    quantile = residual_quantile(calibrated, 0.95)
    residual = quantile if math.isfinite(quantile) else None
    own: dict[str, Json] = {
        "calibrated_from": {"id": parent.id, "manifest_sha256": hashlib.sha256(parent.data).hexdigest()},
        "calibration": document,
        "intervals": intervals.to_dict(),
        "confidence": {
            **parent.manifest["confidence"],
            "method": confidence_method(graph_version_of(parent.manifest), residual),
            "conformal_q_residual": residual,
        },
    }
    files = _inherited(parent)
    if offset:
        files |= _with_offset(parent, own, offset)
    files |= {
        CALIBRATION_PATH: write_calibration(pinned),
        CALIBRATION_INPUTS_PATH: measured.recorded.files[INPUTS_PATH],
        CALIBRATION_FINGERPRINTS_PATH: measured.recorded.files[FINGERPRINTS_PATH],
        PARENT_PATH: parent.data,
    }
    manifest = calibrated_manifest(parent.manifest, entry_id, own)
    return Trained(files, manifest, summary=_summary(parent, intervals, document, calibrated))


def _inherited(parent: Parent) -> dict[str, bytes]:
    """The parent's own files."""
    manifest = parent.manifest
    paths = [member["onnx"] for member in manifest["members"]]
    paths += [manifest["fused"]["onnx"], *(pin["path"] for pin in manifest["evidence"])]
    return {path: parent.view.read(path) for path in paths}


def _with_offset(parent: Parent, own: dict[str, Json], offset: float) -> dict[str, bytes]:
    """A fused graph whose members score so much more; `own` gets its pin and what it gives for the probe's rows."""
    manifest = parent.manifest
    members = [read_weights(parent.view.read(member["onnx"])) for member in manifest["members"]]
    moved = [shifted(weights, offset) for weights in members]
    widths = len(manifest["feature_order"]), len(manifest["codec_vocab"])
    fused = fused_model(moved, scaler_of(manifest), *widths, fused_format_of(manifest))
    probe = dict(manifest["probe"])
    rows = (np.asarray(probe[name], np.float64) for name in ("features", "codec_block"))
    mu, sigma = Ensemble(fused).predict(*rows)
    own["probe"] = {**probe, "mu": mu.tolist(), "sigma": sigma.tolist()}
    own["fused"] = manifest["fused"]
    return {manifest["fused"]["onnx"]: fused}


def _summary(parent: Parent, intervals: Intervals, document: Mapping[str, Json], oof: Oof) -> list[tuple[str, str]]:
    calibration, target = intervals.calibration(), parent.manifest["target"]["name"]
    shares = held_out_shares(oof, calibration.method, SHOWN_LEVELS) if len(oof.sources) >= MIN_COVERAGE_SOURCES else ()
    shown = [
        f"{percent(level)} %: {of_level.mean():.3f}" for level, of_level in zip(SHOWN_LEVELS, shares, strict=False)
    ]
    offset = (
        f"{document['offset']:+.4g} {target}, the mean over sources of {target} - mu"
        if "offset" in document
        else "none"
    )
    return [
        ("calibrated from", parent.id),
        ("sources", f"{len(calibration.n_per_source)}: {', '.join(calibration.n_per_source)}"),
        *([("encoders apart", _encoders_in_words(intervals.by_encoder))] if intervals.by_encoder is not None else []),
        ("offset", offset),
        ("covered, each source by the others", ", ".join(shown) or "not judged: it takes three sources"),
    ]


def _encoders_in_words(apart: EncoderIntervals) -> str:
    """Encoders with the numbers of their sources, and those that take the pooled intervals."""
    own = [f"{name} ({len(made[0].n_per_source)} sources)" for name, made in apart.calibrations.items()]
    return first_names(own) + (f"; pooled: {first_names(apart.pooled)}" if apart.pooled else "")


# ---- again -----------------------------------------------------------------------------------------------------------


def reproduce_calibration(view: EntryView, request: ReproduceRequest) -> Reproduction:
    """A calibrated entry made again of its members; training its parent again shows where these came from.

    Predictions that differ by rounding alone are taken as they are stored, and how far they differ is said. Raises
    InputError for another corpus than the one it was calibrated on.
    """
    from fr_ensemble.hooks.reproduce import as_compressed

    manifest = view.manifest or {}
    claims, parent = manifest["calibration"], Parent.pinned_by(view)
    name = claims["corpus"]["name"]
    if request.corpus is None:
        raise InputError(f"{view.entry.id}: it was calibrated on {name!r}: name the file: --corpus FILE")
    spec = with_columns_of(spec_of(parent.manifest, target=True), claims["corpus"])
    corpus = read_corpus(request.corpus, spec, progress=request.progress)
    found, expected = corpus.rows_sha256, claims["corpus"]["rows_sha256"]
    if found != expected:
        difference = f"found rows of sha256 {found}, expected {expected} ({name})"
        raise InputError(f"{request.corpus}: {difference}: name what {view.entry.id} was calibrated on: --corpus FILE")
    warnings = [f"its members are those of {parent.id}: `registry reproduce {parent.id}` trains them again"]
    recipe = Recipe.from_dict(parent.manifest["recipe"])
    recorded = record(corpus, request.corpus, recipe, EvidenceContents.of(claims), request.progress)
    again, stored = _predicted(parent, corpus), read_calibration(view.read(CALIBRATION_PATH))
    if stored.encoder is not None:
        again = with_encoders(again, corpus.groups["encoder"])
    agreement = _agreement(stored, again, spec.bounds, manifest["target"]["name"])
    if agreement.largest <= agreement.tolerance:
        again = replace(again, predictions=stored.predictions)
    method = Intervals.from_dict(manifest["intervals"]).calibration().method
    made = make(parent, view.entry.id, Measured(corpus, name, again, recorded, "offset" in claims, method))
    trained, recompressed = as_compressed(view, made)
    warnings += [f"{path}: the same content, compressed by another zlib" for path in recompressed]
    return Reproduction(trained, [agreement], warnings=warnings)


def _agreement(stored: Oof, again: Oof, bounds: tuple[float, float], unit: str) -> Agreement:
    """How far the members' predictions are from the stored ones; infinitely where they are of other rows."""
    tolerance, label = score_tolerance(stored, bounds), "members on the calibration's rows"
    if stored.predictions.shape != again.predictions.shape:
        return Agreement(label, math.inf, math.inf, tolerance, unit)
    apart = again.predictions - stored.predictions
    rms = float(np.sqrt(np.mean(np.square(apart))))
    return Agreement(label, float(np.abs(apart).max()), rms, tolerance, unit)
