"""entry.py: the evidence that an open entry pins, read and recomputed once for all who ask. Judges nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from fr_ensemble.artifacts.calibrated import parent_problems
from fr_ensemble.artifacts.manifest import has_inputs, is_current, mu_range_of, spec_of, with_columns_of
from fr_ensemble.artifacts.paths import (
    BASELINES_PATH,
    CALIBRATION_FINGERPRINTS_PATH,
    CALIBRATION_INPUTS_PATH,
    CALIBRATION_PATH,
    FINGERPRINTS_PATH,
    INPUTS_PATH,
    LEFT_OUT_PATH,
    OOF_PATH,
    PARENT_PATH,
    summary_path,
)
from fr_ensemble.evidence.baselines import Baselines, baseline_problems, read_baselines
from fr_ensemble.evidence.calibration import (
    as_unseen,
    claim_problems,
    encoder_problems,
    named_of_calibration,
    read_calibration,
    score_problems,
    seen_problems,
    seen_warnings,
)
from fr_ensemble.evidence.fingerprints import read_fingerprints
from fr_ensemble.evidence.inputs import Inputs, read_inputs
from fr_ensemble.evidence.left_out import EncodersLeftOut, left_out_problems, read_left_out
from fr_ensemble.evidence.loso import Expected, FoldScores, recompute
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.shipped import (
    ShippedScores,
    evidence_warnings,
    figure_problems,
    fingerprint_problems,
    group_problems,
    input_problems,
    ratio_problems,
    row_problems,
    run_members,
    run_shipped,
    score_tolerance,
    with_inputs,
)
from fr_ensemble.evidence.summaries import read_summaries
from fr_ensemble.evidence.usable import usable_evidence
from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView
from registry_tool.strictjson import dump
from registry_tool.toolkit import first_names
from registry_tool.values import Json


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class EntryEvidence:
    """Out-of-fold predictions and their scores. They are shared, so their arrays are read-only."""

    oof: Oof
    scores: FoldScores

    @classmethod
    def of(cls, oof: Oof) -> EntryEvidence:
        return cls(oof, FoldScores.of(oof))


# Known by the very bytes they came from, compared whole, so that a file that changed is measured again; known as long
# as a view that read them is open.
_by_bytes: WeakValueDictionary[bytes, EntryEvidence] = WeakValueDictionary()
_by_view: WeakKeyDictionary[EntryView, EntryEvidence] = WeakKeyDictionary()


def evidence_of(view: EntryView) -> EntryEvidence:
    """What the entry pins at OOF_PATH. Raises KeyError where it pins nothing there, EvidenceProblem for bad bytes."""
    data = view.read(OOF_PATH)
    found = _by_bytes.get(data)
    if found is None:
        found = _by_bytes[data] = EntryEvidence.of(read_oof(data))
        _share(found.oof)
        _share(found.scores)
    _by_view[view] = found
    return found


def _share(part: Oof | FoldScores) -> None:
    """Make its arrays read-only."""
    for array in (getattr(part, field.name) for field in fields(part)):
        if isinstance(array, np.ndarray):
            array.setflags(write=False)


@dataclass(frozen=True, slots=True)
class CheckedEvidence:
    """What an entry's evidence shows. problems: every contradiction among its files, its manifest and its models.

    unfit: what is no contradiction, so that a smoke entry may have it, and promotes nothing whatever the policy.
    warnings: what was not judged and what looks odd. shipped: None where the evidence has no inputs to run models on.
    baselines: None where it has none.
    calibration: what the intervals are made of where the entry has `calibrated_from`, else None.
    """

    oof: Oof
    scores: FoldScores
    problems: tuple[str, ...]
    unfit: tuple[str, ...]
    warnings: tuple[str, ...]
    shipped: ShippedScores | None
    baselines: Baselines | None
    calibration: Oof | None = None

    @property
    def calibrated(self) -> Oof:
        """What the intervals are made of."""
        return self.calibration or self.oof


_checked: WeakKeyDictionary[EntryEvidence, dict[bytes, CheckedEvidence]] = WeakKeyDictionary()


def checked_evidence(view: EntryView) -> CheckedEvidence:
    """The entry's evidence, compared with itself, the manifest and what the shipped models give; once for all who ask.

    Raises InputError for an entry without evidence or with files that cannot be read.
    """
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: its manifest pins no evidence, expected {OOF_PATH}: train it again")
    with usable_evidence(view.entry.id, manifest):
        evidence = evidence_of(view)
        key = _content(view, manifest)
    known = _checked.setdefault(evidence, {})
    if key not in known:
        known[key] = _check(view, manifest, evidence)
    return known[key]


def _content(view: EntryView, manifest: Mapping[str, Json]) -> bytes:
    """A digest of the manifest and of every file that it pins. Raises KeyError for one that is not there."""
    sha = hashlib.sha256(dump(manifest))
    graphs = [member["onnx"] for member in manifest["members"]]
    for path in (*graphs, manifest["fused"]["onnx"], *(pin["path"] for pin in manifest["evidence"])):
        sha.update(hashlib.sha256(view.read(path)).digest())
    return sha.digest()


def _check(view: EntryView, manifest: Mapping[str, Json], found: EntryEvidence) -> CheckedEvidence:
    seeds = [member["seed"] for member in manifest["members"]]
    with usable_evidence(view.entry.id, manifest):
        files = {summary_path(seed): view.read(summary_path(seed)) for seed in seeds}
    summaries, misnamed = read_summaries(files)
    corpus, (low, high) = manifest["corpus"], manifest["target"]["range"]
    digests = (corpus["rows_sha256"], manifest["recipe_sha256"], corpus["sha256"])
    expected = Expected(seeds, *digests, target_range=(low, high))
    problems = [*misnamed, *recompute(found.oof, summaries, expected, found.scores).problems]
    oof = found.oof
    for name, value, claimed in (
        ("number of rows", len(oof.target), corpus["n_rows"]),
        ("set of sources", *_where_they_differ(oof.sources, corpus["sources"])),
        ("corpus file", bool(oof.corpus_sha256), bool(corpus["sha256"])),  # two digests that differ are found above
        ("range of mu", oof.mu_range, mu_range_of(manifest)),
        ("corpus", {summary.get("corpus") for summary in summaries.values()}, {corpus["name"]}),
    ):
        if value != claimed:
            problems.append(f"evidence of another {name}: found {value}, the manifest says {claimed}")
    shipped, more, warnings = _bound(view, manifest, oof)
    baselines = baselines_of(view)
    if baselines is not None:
        more += baseline_problems(manifest, baselines, oof)
    problems += more
    calibration = None
    if "calibration" in manifest:
        calibration, more, odd = _check_calibration(view, manifest, oof)
        problems, warnings = [*problems, *(f"calibration: {problem}" for problem in more)], [*warnings, *odd]
    unfit = group_problems(with_columns_of(spec_of(manifest, target=True), corpus))
    unfit += ratio_problems(shipped, oof) if shipped is not None else []
    answer = CheckedEvidence(oof, found.scores, tuple(problems), tuple(unfit), tuple(warnings), shipped, baselines)
    return replace(answer, calibration=calibration)


def _check_calibration(view: EntryView, manifest: Mapping[str, Json], trained: Oof) -> tuple[Oof, list[str], list[str]]:
    """What the intervals are made of, with what contradicts it, and what was not judged.

    The members give the pinned predictions for the pinned inputs, none of them was trained on those sources, and all
    else is the parent's. Raises InputError as `_bound`.
    """
    spec, claims = spec_of(manifest, target=True), manifest["calibration"]
    with usable_evidence(view.entry.id, manifest):
        problems = [*parent_problems(manifest, view.read(PARENT_PATH))]
        pinned = read_calibration(view.read(CALIBRATION_PATH))
        with named_of_calibration():
            inputs = read_inputs(view.read(CALIBRATION_INPUTS_PATH))
            fingerprints = read_fingerprints(view.read(CALIBRATION_FINGERPRINTS_PATH))
        known = read_fingerprints(view.read(FINGERPRINTS_PATH)) if "fingerprints" in manifest else None
    problems += claim_problems(manifest, pinned)
    problems += row_problems(claims, inputs, pinned, spec)
    problems += encoder_problems(inputs, pinned)
    problems += fingerprint_problems(claims, fingerprints, pinned, inputs if not problems else None, spec)
    pairs = fingerprints.compared()
    problems += [*pairs.problems(), *seen_problems(trained, known, pinned, fingerprints)]
    if inputs.n_rows == len(pinned.target):
        try:
            problems += score_problems(
                run_members(view, inputs, spec), inputs, pinned, score_tolerance(pinned, spec.bounds)
            )
        except EvidenceProblem as error:
            problems.append(str(error))
    calibrated = as_unseen(pinned, "offset" in claims)
    _share(calibrated)
    return calibrated, problems, seen_warnings(known, fingerprints)


def baselines_of(view: EntryView) -> Baselines | None:
    """The standard models beside the entry; None where it has none. Raises InputError for a file of another form."""
    manifest = view.manifest or {}
    if "baselines" not in manifest:
        return None
    with usable_evidence(view.entry.id, manifest):
        return read_baselines(view.read(BASELINES_PATH))


def left_out_of(view: EntryView) -> EncodersLeftOut | None:
    """Predictions of encoders that were left out; None where none were. Raises InputError as `baselines_of`."""
    manifest = view.manifest or {}
    if "encoders_left_out" not in manifest:
        return None
    with usable_evidence(view.entry.id, manifest):
        return read_left_out(view.read(LEFT_OUT_PATH))


def recorded_inputs(view: EntryView) -> Inputs:
    """The inputs of all rows of the evidence. Raises InputError where it has those of a sample, or none."""
    with usable_evidence(view.entry.id, view.manifest or {}):
        inputs = read_inputs(view.read(INPUTS_PATH))
    if not inputs.is_complete:
        found = f"{len(inputs.row)} of {inputs.n_rows} rows"
        raise InputError(f"{view.entry.id}: inputs.npz has {found}, expected all of them: evaluate both on other rows")
    return inputs


def _where_they_differ(found: Sequence[str], claimed: Sequence[str]) -> tuple[str, str]:
    """Two lists of sources in words, shortened to where they differ; equal words for equal lists."""
    if list(found) == list(claimed):
        return "", ""
    if {*found} == {*claimed}:
        return "them in another order", "its own"
    both = {*found} & {*claimed}
    others = ([name for name in names if name not in both] for names in (found, claimed))
    one, two = (first_names(names) or "no others" for names in others)
    return one, two


def _bound(
    view: EntryView, manifest: Mapping[str, Json], oof: Oof
) -> tuple[ShippedScores | None, list[str], list[str]]:
    """What binds the predictions to the shipped bytes and to different sources: scores, problems, warnings.

    Raises InputError for files that the manifest names and the entry does not pin, or that cannot be read.
    """
    spec, problems = with_columns_of(spec_of(manifest, target=True), manifest["corpus"]), list[str]()
    inputs, shipped, stored = None, None, None
    with usable_evidence(view.entry.id, manifest):
        if has_inputs(manifest):
            inputs = read_inputs(view.read(INPUTS_PATH))
            problems += input_problems(manifest, inputs, oof, spec)
        if "fingerprints" in manifest:
            stored = read_fingerprints(view.read(FINGERPRINTS_PATH))
            problems += fingerprint_problems(manifest, stored, oof, None if problems else inputs, spec)
        if inputs is not None and inputs.is_complete and not problems:
            stored = with_inputs(stored, inputs, oof, spec)
    if (left_out := left_out_of(view)) is not None:
        problems += left_out_problems(manifest, left_out, oof, inputs)
    pairs = None if stored is None else stored.compared()
    problems += [] if pairs is None else pairs.problems()
    if inputs is not None and inputs.n_rows != len(oof.target):
        return None, problems, []
    if inputs is not None:
        try:
            shipped = run_shipped(view, inputs, spec)
            problems += figure_problems(manifest, shipped, oof)
        except EvidenceProblem as error:
            problems.append(str(error))
    return shipped, problems, evidence_warnings(oof, inputs, pairs, spec)
