"""calibration.py: what the intervals of a calibrated entry are made of, and what they can promise. Runs no model.

Its members are its parent's; `calibration.npz` has what they give for rows of sources that none of them was trained on.
An offset is one number for all rows: the mean over sources of what targets exceed mu by (ITU-T P.1401's first order
without slope, each source weighing alike). The rows of a source are scored by the offset of the other sources, so that
scores are those of an unseen source: by an offset of its own they would be too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.manifest import has_inputs, mu_range_of
from fr_ensemble.artifacts.paths import (
    CALIBRATION_INPUTS_PATH,
    CALIBRATION_PATH,
    CALIBRATION_PREFIX,
    INPUTS_PATH,
    OOF_PATH,
)
from fr_ensemble.corpus.fingerprints import TOO_MANY_SHARE, Fingerprints
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.vocabulary import encoder_name
from fr_ensemble.evidence.inputs import Inputs, read_inputs
from fr_ensemble.evidence.methods import INTERVAL_METHODS, TWO_SIDED
from fr_ensemble.evidence.oof import OOF_FORMAT, Oof, mean_of, read_oof, used_names, write_oof
from fr_ensemble.evidence.problems import copied_targets, range_problems
from fr_ensemble.evidence.quantiles import NOMINAL_LEVELS
from fr_ensemble.evidence.statistics import group_means
from registry_tool.archive import Array, EvidenceProblem
from registry_tool.toolkit import Text, first_names
from registry_tool.values import Json, percent, percentage

CALIBRATION_FORMAT = replace(
    OOF_FORMAT,
    axes={**OOF_FORMAT.axes, "encoders": "encoders"},
    arrays={
        **OOF_FORMAT.arrays,
        "encoders": Array(
            "U",
            ("encoders",),
            "Where intervals are calibrated by encoder: the encoders' names, each once, in ffmpeg's spelling.",
            optional=True,
        ),
        "encoder": Array("i4", ("rows",), "Index into `encoders`.", optional=True),
    },
    file="calibration.npz",
    meaning="Of an entry with `calibrated_from`: each row of the corpus at `calibration`, whose sources no member was "
    "trained on, predicted by each member, without the offset. `calibration_inputs.npz` and "
    "`calibration_fingerprints.npz` beside it have the arrays of `inputs.npz` and `fingerprints.npz`; `parent.json` is "
    "the manifest of the entry at `calibrated_from`.",
)
MAX_STATED_SOURCES = 2000  # up to which it is said how many sources a level takes
SAME_NAMES_SHOWN = 3


def calibrated_on(manifest: Mapping[str, Json], read: Callable[[str], bytes]) -> Oof:
    """The predictions that an entry's intervals are made of: out-of-fold ones, or those of unseen sources.

    read: the bytes of a pinned file. Raises EvidenceProblem for bytes that are none.
    """
    if "calibration" not in manifest:
        return read_oof(read(OOF_PATH))
    return as_unseen(read_calibration(read(CALIBRATION_PATH)), "offset" in manifest["calibration"])


def inputs_calibrated_on(manifest: Mapping[str, Json], read: Callable[[str], bytes]) -> Inputs | None:
    """The inputs of those rows; None where the evidence has none. Raises what `calibrated_on` raises."""
    if "calibration" not in manifest:
        return read_inputs(read(INPUTS_PATH)) if has_inputs(manifest) else None
    with named_of_calibration():
        return read_inputs(read(CALIBRATION_INPUTS_PATH)) if has_inputs(manifest["calibration"]) else None


@contextmanager
def named_of_calibration() -> Iterator[None]:
    """A problem of inputs or fingerprints, which begins with the file's name, names the calibration's file."""
    try:
        yield
    except EvidenceProblem as error:
        raise EvidenceProblem(f"{CALIBRATION_PREFIX}{error}") from error


def predictions_of(corpus: Corpus, manifest: Mapping[str, Json], scores: Float64) -> Oof:
    """What the members (S, n) give for a corpus, without an offset."""
    seeds = [member["seed"] for member in manifest["members"]]
    return Oof.of(corpus, seeds, scores, manifest["recipe_sha256"], mu_range=mu_range_of(manifest))


def by_encoder_name(encoder: Text) -> Text:
    """The same encoders, each under one name, in alphabetical order."""
    names, place = np.unique([encoder_name(name) for name in encoder.names], return_inverse=True)
    used, codes = used_names(tuple(map(str, names)), place.reshape(-1)[encoder.codes])
    return Text(codes, used)


def with_encoders(pinned: Oof, encoder: Text) -> Oof:
    """The same, which tell the encoder of each row, so that intervals are calibrated by encoder."""
    apart = by_encoder_name(encoder)
    return replace(pinned, encoders=apart.names, encoder=apart.codes)


def write_calibration(pinned: Oof) -> bytes:
    return write_oof(pinned, CALIBRATION_FORMAT)


def read_calibration(data: bytes) -> Oof:
    """Raises EvidenceProblem for anything but what `write_calibration` writes."""
    return read_oof(data, CALIBRATION_FORMAT)


def offset_in(pinned: Oof) -> float:
    """The mean over sources of what targets exceed mu by, target units; a number that float32 holds."""
    return float(np.float32(_excess(pinned).mean()))


def as_unseen(pinned: Oof, has_offset: bool) -> Oof:
    """The predictions as an unseen source would get them: each source's with the offset of the others."""
    if not has_offset:
        return pinned
    excess, k = _excess(pinned), len(pinned.sources)
    others = (excess.sum() - excess) / max(k - 1, 1)
    return replace(pinned, predictions=pinned.predictions + others[pinned.source])


def _excess(pinned: Oof) -> Float64:
    """Mean of target less the members' mean, a source each, (K,)."""
    return group_means(pinned.target - mean_of(pinned.predictions), pinned.source, len(pinned.sources))


# ---- what a manifest says of them ------------------------------------------------------------------------------------


def claim_problems(manifest: Mapping[str, Json], pinned: Oof) -> Iterator[str]:
    """Where the pinned predictions are not of the rows, the members and the offset that the manifest names."""
    claims, (low, high) = manifest["calibration"], manifest["target"]["range"]
    corpus = claims["corpus"]
    for name, found, claimed in (
        ("seeds", list(pinned.seeds), [member["seed"] for member in manifest["members"]]),
        ("range of mu", pinned.mu_range, mu_range_of(manifest)),
        ("recipe_sha256", pinned.recipe_sha256, manifest["recipe_sha256"]),
        ("rows_sha256", pinned.rows_sha256, corpus["rows_sha256"]),
        ("corpus sha256", pinned.corpus_sha256, corpus["sha256"]),
        ("n_rows", len(pinned.target), corpus["n_rows"]),
        ("sources", list(pinned.sources), list(corpus["sources"])),
    ):
        if found != claimed:
            yield f"calibration.npz {name}: found {found}, the manifest says {claimed}"
    if "offset" in claims and claims["offset"] != (offset := offset_in(pinned)):
        yield f"offset: found {claims['offset']}, the predictions give {offset}"
    yield from range_problems(pinned.target, pinned.source, pinned.sources, (low, high))
    yield from copied_targets(pinned.target, pinned.source, pinned.sources)


def encoder_problems(inputs: Inputs, pinned: Oof) -> Iterator[str]:
    """Where rows are calibrated as rows of another encoder than theirs. inputs: of rows of the same corpus."""
    if pinned.encoders is None or pinned.encoder is None or inputs.n_rows != len(pinned.target):
        return
    stored, recorded = ([encoder_name(name) for name in names] for names in (pinned.encoders, inputs.encoders))
    if len({*stored}) != len(stored):
        yield f"calibration.npz encoders: found {first_names(pinned.encoders)}, expected one name for each encoder"
        return
    numbers = {name: code for code, name in enumerate(stored)}
    expected = np.array([numbers.get(name, -1) for name in recorded], np.int64)[inputs.encoder]
    wrong = np.flatnonzero(pinned.encoder[inputs.row] != expected).tolist()
    if wrong:
        row, name = int(inputs.row[wrong[0]]), inputs.encoders[inputs.encoder[wrong[0]]]
        found = pinned.encoders[pinned.encoder[row]]
        yield f"calibration.npz encoder: row {row}: found {found}, calibration_inputs.npz has {name}"


def score_problems(scores: Float64, inputs: Inputs, pinned: Oof, tolerance: float) -> Iterator[str]:
    """Where the members (S, m) do not give the pinned predictions. tolerance: target units, of another processor."""
    stored = pinned.predictions[:, inputs.row]
    if stored.shape != scores.shape:
        yield f"calibration.npz: found predictions of {len(stored)} members, expected {len(scores)}"
        return
    apart = np.abs(scores - stored)
    if (worst := float(apart.max())) > tolerance:
        seed, row = np.unravel_index(int(apart.argmax()), apart.shape)
        found = f"found {stored[seed, row]:.6g}, member {seed} gives {scores[seed, row]:.6g}, off by {worst:.3g}"
        yield f"calibration.npz predictions: row {inputs.row[row]}: {found}: expected at most {tolerance:.3g}"


# ---- what so many sources can promise --------------------------------------------------------------------------------


def is_promised(method: str, n_sources: int, level: float) -> bool:
    """Whether a method guarantees this level for a new source, when it is calibrated on so many."""
    rule = INTERVAL_METHODS[method]
    if rule.warning is not None or n_sources < 1:
        return False
    z = np.arange(1.0, n_sources + 1.0)
    found = rule.quantile(rule.scores(z, np.arange(n_sources)), level, TWO_SIDED)
    return bool(np.isfinite(found.q)) and not found.guarantee.startswith("none")


def promise(method: str, n_sources: int, levels: Sequence[float] = NOMINAL_LEVELS) -> list[str]:
    """Which levels so many sources can promise, for people, one line for those and one for the others."""
    held = [level for level in levels if is_promised(method, n_sources, level)]
    lines = [f"intervals of {_percents(held)} are guaranteed for a new source of the same kind"] if held else []
    if others := [level for level in levels if level not in held]:
        needed = [(level, sources_for(method, level)) for level in others]
        takes = ", ".join(f"{percent(level)} % takes {n} sources" for level, n in needed if n is not None)
        lines.append(f"no guarantee at {_percents(others)}{': ' if takes else ''}{takes}")
    return lines


def sources_for(method: str, level: float) -> int | None:
    """The least number of sources for which a level is promised; None where there is none up to MAX_STATED_SOURCES."""
    if not is_promised(method, MAX_STATED_SOURCES, level):
        return None
    low, high = 0, MAX_STATED_SOURCES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_promised(method, middle, level) else (middle, high)
    return high


def _percents(levels: Sequence[float]) -> str:
    return ", ".join(map(percent, levels)) + " %"


# ---- whether the members have seen the rows --------------------------------------------------------------------------


def seen_problems(trained: Oof, known: Fingerprints | None, new: Oof, fingerprints: Fingerprints) -> list[str]:
    """Sources that the members were trained on: by name, by their reference or rows of inputs, by their targets.

    trained, known: of the parent's evidence; None where it has no fingerprints. new, fingerprints: of the calibration.
    """
    if same := sorted({*trained.sources} & {*new.sources}):
        names = ", ".join(same[:SAME_NAMES_SHOWN]) + (", ..." if len(same) > SAME_NAMES_SHOWN else "")
        problems = [f"sources {names}: the members were trained on sources of these names"]
    else:
        problems = []
    shared = fingerprints.shared_with(known) if known is not None else []
    if shared is None:
        problems.append(TOO_MANY_SHARE)
    for pair in shared or ():
        one, two = pair.sources
        found = f"found {percentage(pair.overlap or 0)} of its values in {two}, which the members were trained on"
        problems.append(f"source {one}: {found}")
    k = len(trained.sources)
    target = np.concatenate([trained.target, new.target])
    source = np.concatenate([trained.source, new.source + k])
    names_of_all = [*(f"{name} (trained on)" for name in trained.sources), *new.sources]
    return problems + [line for line in copied_targets(target, source, names_of_all) if line.count("(trained on)") == 1]


def seen_warnings(known: Fingerprints | None, fingerprints: Fingerprints) -> list[str]:
    """What could not be judged of it, a line at most."""
    if known is None:
        return [
            "sources that no member was trained on: judged by names and targets alone: its parent has no fingerprints"
        ]
    if not {*known.columns} & {*fingerprints.columns}:
        return ["sources that no member was trained on: judged by names, targets and equal rows of inputs alone"]
    return []
