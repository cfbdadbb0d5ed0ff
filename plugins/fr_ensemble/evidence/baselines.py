"""baselines.py: out-of-fold predictions of standard models on the entry's folds, their file, and what they show beside
the entry's. Trains none: training/baselines.py does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from fr_ensemble.arrays import Float32, Float64
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES, held_out_reach
from fr_ensemble.evidence.comparisons import ErrorComparison
from fr_ensemble.evidence.oof import Oof, remembered
from fr_ensemble.evidence.statistics import coverage, interval_scores, plcc, rmse
from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays
from registry_tool.toolkit import ROUNDING
from registry_tool.values import Json, percent

BASELINE_PREFIX = "baseline_"  # of a baseline's name where it is compared with
COMPARED_LEVEL = 0.8  # nominal coverage of the intervals that are compared


@dataclass(frozen=True, slots=True)
class BaselineModel:
    """tolerance: how far (RMS) another machine's predictions may be, of the target's standard deviation."""

    meaning: str
    tolerance: float


BASELINES: Mapping[str, BaselineModel] = MappingProxyType(
    {
        "ridge": BaselineModel("ridge regression", 1e-5),  # one linear system
        "gradient_boosting": BaselineModel("gradient boosting", 0.02),  # a tie between two splits moves some rows
        "extra_trees": BaselineModel("extremely randomised trees", 0.02),
        "gaussian_process": BaselineModel("a Gaussian process", 0.02),  # where an optimiser stops
    }
)
BASELINES_VERSION = 1
BASELINES_FORMAT = ArchiveFormat(
    "baselines.npz",
    "Standard models on the same folds: each row predicted by a model that did not see the row's source.",
    {"baselines": "models", "rows": "rows of the corpus, in its order"},
    {
        "version": Array("i8", (), "Of this format: 1."),
        "rows_sha256": Array("U64", (), "sha256 of the rows, as in oof.npz."),
        "names": Array("U", ("baselines",), "As in the manifest."),
        "mean": Array("f4", ("baselines", "rows"), "Predictions, in units of the target."),
        "spread": Array("f4", ("baselines", "rows"), "Standard deviation that the model itself gives; 0: it has none."),
    },
)


@dataclass(frozen=True, slots=True, eq=False)
class Baselines:
    """B standard models on n rows of a corpus. Raises EvidenceProblem for shapes or numbers that mean nothing."""

    names: tuple[str, ...]
    mean: Float32  # (B, n), target units
    spread: Float32  # (B, n), >= 0
    rows_sha256: str

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names) or not all(self.names):
            raise EvidenceProblem(f"baselines.npz names: found {list(self.names)}, expected different names")
        if self.mean.shape != self.spread.shape or len(self.mean) != len(self.names):
            found = f"{self.mean.shape} and {self.spread.shape}"
            raise EvidenceProblem(f"baselines.npz: found the shapes {found}, expected two of {len(self.names)} models")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.spread).all() and (self.spread >= 0.0).all()):
            raise EvidenceProblem("baselines.npz: expected finite numbers, and no spread below 0")

    def fields(self, target: Float64) -> list[dict[str, Json]]:
        """As in the manifest."""
        return [{"name": name, "tolerance": tolerance_of(name, target)} for name in self.names]

    def are_of(self, oof: Oof) -> bool:
        """Whether they predict the rows of `oof`."""
        return self.rows_sha256 == oof.rows_sha256 and self.mean.shape[1] == len(oof.target)

    def as_oof(self, place: int, oof: Oof) -> Oof:
        """Baseline number `place` as an ensemble of two members with its mean and spread, on the rows of `oof`."""
        mean, spread = (values[place].astype(np.float64) for values in (self.mean, self.spread))
        members = mean + np.array([[-1.0], [1.0]]) * spread / np.sqrt(2.0)
        return replace(oof, seeds=(0, 1), predictions=members)


def tolerance_of(name: str, target: Float64) -> float:
    """How far (RMS, target units) a baseline may be on another machine. Raises KeyError for an unknown name."""
    return BASELINES[name].tolerance * float(np.std(target))


def write_baselines(baselines: Baselines) -> bytes:
    """`baselines.npz`; the same predictions give the same bytes."""
    values = {name: getattr(baselines, name) for name in ("rows_sha256", "names", "mean", "spread")}
    return write_arrays(BASELINES_FORMAT, {"version": BASELINES_VERSION, **values})


def read_baselines(data: bytes) -> Baselines:
    """Raises EvidenceProblem for anything but what `write_baselines` writes."""
    arrays = read_arrays(BASELINES_FORMAT, data)
    if int(arrays["version"]) != BASELINES_VERSION:
        raise EvidenceProblem(f"baselines.npz: found version {int(arrays['version'])}, expected {BASELINES_VERSION}")
    names = tuple(map(str, arrays["names"]))
    return Baselines(names, arrays["mean"], arrays["spread"], str(arrays["rows_sha256"]))


def baseline_problems(manifest: Mapping[str, Json], baselines: Baselines, oof: Oof) -> Iterator[str]:
    """Where baselines are not those of the manifest, or not on the rows of the predictions."""
    claimed = {item["name"]: item["tolerance"] for item in manifest["baselines"]}
    if [*claimed] != [*baselines.names]:
        yield f"baselines.npz names: found {', '.join(baselines.names)}, the manifest says {', '.join(claimed)}"
    if not baselines.are_of(oof):
        found = f"found {baselines.mean.shape[1]} rows of sha256 {baselines.rows_sha256}"
        yield f"baselines.npz: {found}, expected {len(oof.target)} of {oof.rows_sha256}: baselines of other rows"
    for name, tolerance in claimed.items():
        if name in BASELINES and not ROUNDING.holds(tolerance, tolerance_of(name, oof.target)):
            expected = f"{tolerance_of(name, oof.target):.6g}"
            yield f"baseline {name}: found a tolerance of {tolerance:.6g}, the targets give {expected}"


def compare_with_baselines(oof: Oof, baselines: Baselines | None) -> dict[str, ErrorComparison]:
    """By BASELINE_PREFIX and name, each baseline that this program knows; none without baselines of its rows."""
    if baselines is None or not baselines.are_of(oof):
        return {}
    return {
        f"{BASELINE_PREFIX}{name}": ErrorComparison.on(oof, baselines.as_oof(place, oof).mu)
        for place, name in enumerate(baselines.names)
        if name in BASELINES
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """Means over sources, of held-out rows, each source's interval calibrated on the others; NaN: too few sources."""

    plcc: float
    rmse: float  # target units
    coverage: float  # at the level asked for
    score: float  # interval score, target units


@remembered
def standing(oof: Oof, method: str, bounds: tuple[float, float], level: float = COMPARED_LEVEL) -> Standing:
    """What an ensemble reaches on its folds, by an interval method. bounds: of the target."""
    rows = [oof.source == g for g in range(len(oof.sources))]
    covered, scored = float("nan"), float("nan")
    if len(rows) >= MIN_COVERAGE_SOURCES:
        reach = held_out_reach(oof, method, level)
        lower, upper = (np.clip(oof.mu + side * reach, *bounds) for side in (-1.0, 1.0))
        covered = float(np.mean([coverage(oof.target[r], lower[r], upper[r]) for r in rows]))
        scores = interval_scores(oof.target, lower, upper, level)
        scored = float(np.mean([scores[r].mean() for r in rows]))
    correlation = float(np.mean([plcc(oof.mu[r], oof.target[r]) for r in rows]))
    return Standing(correlation, float(np.mean([rmse(oof.mu[r], oof.target[r]) for r in rows])), covered, scored)


def standings(
    oof: Oof, baselines: Baselines, method: str, bounds: tuple[float, float], level: float = COMPARED_LEVEL
) -> dict[str, Standing]:
    """The ensemble first, then each baseline, by one interval method."""
    others = {name: baselines.as_oof(place, oof) for place, name in enumerate(baselines.names)}
    return {name: standing(one, method, bounds, level) for name, one in {"ensemble": oof, **others}.items()}


def standings_table(found: Mapping[str, Standing], level: float = COMPARED_LEVEL) -> Sequence[Sequence[str]]:
    """For people, header first."""
    shown = percent(level)
    rows = [["on held-out sources", "plcc", "rmse", f"cover {shown} %", f"score {shown} %"]]
    for name, one in found.items():
        cells = (f"{one.plcc:.4f}", f"{one.rmse:.4g}", f"{one.coverage:.3f}", f"{one.score:.4g}")
        rows.append([name.replace("_", " "), *("-" if text == "nan" else text for text in cells)])
    return rows
