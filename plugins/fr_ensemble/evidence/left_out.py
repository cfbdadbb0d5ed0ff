"""left_out.py: predictions of encoders by models that had no row of them, their file, and what they show. Trains none:
training/left_out.py does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Mask
from fr_ensemble.corpus.vocabulary import encode, ffmpeg_name, vocabulary
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES, held_out_reach
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.oof import CONTROL_CHARACTERS, Oof
from fr_ensemble.evidence.statistics import coverage, rmse
from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays
from registry_tool.toolkit import Text
from registry_tool.values import Json, percent

LEFT_OUT_VERSION = 1
LEFT_OUT_FORMAT = ArchiveFormat(
    "encoders_left_out.npz",
    "Leave-one-encoder-out: each row predicted, once for each seed, by a model that saw neither its source nor its "
    "encoder.",
    {"seeds": "members", "rows": "rows of the corpus, in its order", "encoders": "encoders left out"},
    {
        "version": Array("i8", (), "Of this format: 1."),
        "rows_sha256": Array("U64", (), "sha256 of the rows, as in oof.npz."),
        "encoders": Array("U", ("encoders",), "As in the manifest."),
        "encoder": Array("i4", ("rows",), "Index into `encoders`."),
        "predictions": Array("f4", ("seeds", "rows"), "Predictions, in units of the target."),
    },
)
EVERY_ENCODER = "mean"


@dataclass(frozen=True, slots=True, eq=False)
class EncodersLeftOut:
    """n rows of E encoders, each predicted by S models that saw neither the row's source nor its encoder.

    Predictions are rounded to float32 when made, as the file stores them. Raises EvidenceProblem for shapes, indexes
    or numbers that mean nothing.
    """

    encoders: tuple[str, ...]
    encoder: Int64  # (n,), 0..E-1, every encoder has a row
    predictions: Float64  # (S, n), target units, representable in float32
    rows_sha256: str

    def __post_init__(self) -> None:
        file, names = LEFT_OUT_FORMAT.file, self.encoders
        if (
            len(names) < 2
            or len({*names}) != len(names)
            or not all(n and not CONTROL_CHARACTERS.search(n) for n in names)
        ):
            raise EvidenceProblem(f"{file} encoders: found {list(names)!r}, expected two or more different names")
        if self.predictions.ndim != 2 or self.predictions.shape[1:] != self.encoder.shape:
            found = f"{self.predictions.shape} and {self.encoder.shape}"
            raise EvidenceProblem(f"{file}: found the shapes {found}, expected seeds x rows and rows")
        if not np.array_equal(np.unique(self.encoder), np.arange(len(names))):
            raise EvidenceProblem(f"{file} encoder: expected numbers from 0 to {len(names) - 1}, each at least once")
        if not np.isfinite(self.predictions).all():
            raise EvidenceProblem(f"{file} predictions: expected finite numbers")
        object.__setattr__(self, "predictions", self.predictions.astype(np.float32).astype(np.float64))

    def are_of(self, oof: Oof) -> bool:
        """Whether they predict the rows of `oof`, seed by seed."""
        return self.rows_sha256 == oof.rows_sha256 and self.predictions.shape == oof.predictions.shape

    def as_oof(self, oof: Oof) -> Oof:
        """The rows of `oof` with these predictions."""
        return replace(oof, predictions=self.predictions)


def encoders_apart(encoder: Text, version: int) -> Text:
    """What a corpus calls its rows' encoders, one name for each that models can tell apart: of its slot, or its own."""
    slots, missing = encode(encoder.names, version)
    known = vocabulary(version)
    own = [
        (ffmpeg_name(name) or name) if name in missing else known[slot]
        for name, slot in zip(encoder.names, slots.tolist(), strict=True)
    ]
    names, place = np.unique([own[code] for code in encoder.codes], return_inverse=True)
    return Text(place.reshape(-1).astype(np.int64), tuple(map(str, names)))


def write_left_out(left_out: EncodersLeftOut) -> bytes:
    """`encoders_left_out.npz`; the same predictions give the same bytes."""
    values = {name: getattr(left_out, name) for name in ("rows_sha256", "encoders", "encoder", "predictions")}
    return write_arrays(LEFT_OUT_FORMAT, {"version": LEFT_OUT_VERSION, **values})


def read_left_out(data: bytes) -> EncodersLeftOut:
    """Raises EvidenceProblem for anything but what `write_left_out` writes."""
    arrays = read_arrays(LEFT_OUT_FORMAT, data)
    if (version := int(arrays["version"])) != LEFT_OUT_VERSION:
        raise EvidenceProblem(f"{LEFT_OUT_FORMAT.file}: found version {version}, expected {LEFT_OUT_VERSION}")
    names, encoder = tuple(map(str, arrays["encoders"])), arrays["encoder"].astype(np.int64)
    return EncodersLeftOut(names, encoder, arrays["predictions"].astype(np.float64), str(arrays["rows_sha256"]))


def left_out_problems(
    manifest: Mapping[str, Json], left_out: EncodersLeftOut, oof: Oof, inputs: Inputs | None
) -> Iterator[str]:
    """Where they are not the manifest's, not on the rows of the predictions, or where one encoder counts as two."""
    file, claimed = LEFT_OUT_FORMAT.file, manifest["encoders_left_out"]
    if [*left_out.encoders] != claimed:
        yield f"{file} encoders: found {', '.join(left_out.encoders)}, the manifest says {', '.join(claimed)}"
    if not left_out.are_of(oof):
        found = "{} seeds and {} rows".format(*left_out.predictions.shape)
        expected = "{} and {}".format(*oof.predictions.shape)
        yield (
            f"{file}: found {found} of sha256 {left_out.rows_sha256}, expected {expected} of {oof.rows_sha256}: "
            "predictions of other rows"
        )
        return
    if inputs is None or inputs.n_rows != len(left_out.encoder):
        return
    of_rows = left_out.encoder[inputs.row]
    for code, name in enumerate(inputs.encoders):
        if len(found_codes := np.unique(of_rows[inputs.encoder == code])) > 1:
            names = " and ".join(left_out.encoders[found_code] for found_code in found_codes)
            yield f"{file} encoder: found rows of {name!r} under {names}, expected one of them"


@dataclass(frozen=True, slots=True)
class EncoderStanding:
    """An encoder's rows, means over their sources: of models trained on it, and of models that it was left out of.

    coverage: at a level, by intervals that are calibrated on the other sources; NaN where those are too few.
    """

    n_rows: int
    n_sources: int
    known_rmse: float  # target units
    rmse: float  # target units
    known_coverage: float
    coverage: float


def encoder_standings(oof: Oof, left_out: EncodersLeftOut, method: str, level: float) -> dict[str, EncoderStanding]:
    """Each encoder's, the largest error first; then, as EVERY_ENCODER, their means over encoders."""
    other = left_out.as_oof(oof)
    reaches = [np.full(len(oof.target), math.nan)] * 2
    if len(oof.sources) >= MIN_COVERAGE_SOURCES:
        reaches = [held_out_reach(oof, method, level, sigma=one.sigma) for one in (oof, other)]
    found = {}
    for code, name in enumerate(left_out.encoders):
        own = left_out.encoder == code
        groups = [own & (oof.source == g) for g in np.unique(oof.source[own])]
        errors = [float(np.mean([rmse(one.mu[r], oof.target[r]) for r in groups])) for one in (oof, other)]
        inside = [
            float(np.mean([_inside(one, reach, r) for r in groups]))
            for one, reach in zip((oof, other), reaches, strict=True)
        ]
        found[name] = EncoderStanding(int(own.sum()), len(groups), *errors, *inside)
    ordered = dict(sorted(found.items(), key=lambda item: -item[1].rmse))
    names = ("known_rmse", "rmse", "known_coverage", "coverage")
    means = [float(np.mean([getattr(one, name) for one in found.values()])) for name in names]
    return ordered | {EVERY_ENCODER: EncoderStanding(len(oof.target), len(oof.sources), *means)}


def _inside(oof: Oof, reach: Float64, rows: Mask) -> float:
    if np.isnan(reach[rows]).any():
        return math.nan
    return coverage(oof.target[rows], oof.mu[rows] - reach[rows], oof.mu[rows] + reach[rows])


def standings_rows(found: Mapping[str, EncoderStanding], level: float) -> Sequence[Sequence[str]]:
    """For people, header first."""
    inside = f"in {percent(level)} %"
    rows = [["encoder", "rows", "sources", "RMSE, trained on", "left out", f"{inside}, trained on", "left out"]]
    for name, one in found.items():
        shares = ("-" if math.isnan(share) else f"{share * 100:.1f} %" for share in (one.known_coverage, one.coverage))
        errors = (f"{error:.4g}" for error in (one.known_rmse, one.rmse))
        rows.append([name, str(one.n_rows), str(one.n_sources), *errors, *shares])
    return rows


def standing_line(one: EncoderStanding, unit: str, level: float) -> str:
    """The mean over encoders in one line."""
    line = f"RMSE {one.rmse:.4g} {unit} ({one.known_rmse:.4g} where trained on)"
    if math.isnan(one.coverage):
        return line
    return f"{line}, {one.coverage * 100:.1f} % in the {percent(level)} % interval ({one.known_coverage * 100:.1f} %)"
