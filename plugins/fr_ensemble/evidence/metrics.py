"""metrics.py: the metrics that a policy may name, all in METRICS: what each means and how it follows from evidence.

A metric whose formula changes takes a new name. One that is added takes the next number as its `since`, so that the
evidence and the verdicts of older releases, which could not store it, stay valid. Judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.baselines import BASELINE_PREFIX, BASELINES
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES, held_out_shares
from fr_ensemble.evidence.comparisons import ErrorComparison
from fr_ensemble.evidence.intervals import EncoderIntervals
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.quantiles import NOMINAL_LEVELS, Calibration
from fr_ensemble.evidence.shipped import ShippedScores
from fr_ensemble.evidence.statistics import bootstrap_interval, plcc, standard_error, t_interval
from registry_tool.hookspec import MetricDescription
from registry_tool.values import percent

ONE_SIDED_Z = 1.64  # standard errors that a true coverage exceeds its estimate by in one case of 20
TARGET_UNITS = "target units"
HIGHER, LOWER = "higher", "lower"
NEEDS_FOLDS, NEEDS_PREDICTIONS, NEEDS_INPUTS, NEEDS_BASELINES = "folds", "predictions", "inputs", "baselines"
NEEDS_CALIBRATION, NEEDS_ENCODERS = "calibration", "encoders"
COMPARISON_NAMES = {  # what an entry's errors are compared with, in words
    "vmaf": "plain VMAF through a logistic curve fitted on the other sources",
    "incumbent": "the incumbent",
}
INTERVAL_ENDS = {"low": "lower end", "high": "upper end"}  # of a metric's name -> in words
STORED_PREFIX = "loso_"  # of a metric's name in a manifest's `eval`


@dataclass(frozen=True)
class MetricInputs:
    """What metrics are computed from. Summaries alone give scores and nothing else.

    comparisons: by name, as in COMPARISON_NAMES or of a baseline. calibrated: the predictions that `registry
    calibrate` made the intervals of, None for other entries. Arrays are computed once, when a metric first asks.
    """

    scores: FoldScores
    oof: Oof | None = None
    calibration: Calibration | None = None
    comparisons: Mapping[str, ErrorComparison] = field(default_factory=dict)
    shipped: ShippedScores | None = None
    calibrated: Oof | None = None

    @cached_property
    def seed_plcc(self) -> Float64:
        """Each seed's mean PLCC over folds, (S,)."""
        mean: Float64 = self.scores.plcc.mean(axis=1)
        return mean

    @cached_property
    def plcc_bounds(self) -> tuple[float, float]:
        return bootstrap_interval(self.scores.plcc.mean(axis=0)) if self.oof is not None else (math.nan, math.nan)

    @cached_property
    def plcc_t_bounds(self) -> tuple[float, float]:
        return t_interval(self.scores.plcc.mean(axis=0)) if self.oof is not None else (math.nan, math.nan)

    @property
    def baselines(self) -> list[ErrorComparison]:
        """With each baseline."""
        return [one for name, one in self.comparisons.items() if name.startswith(BASELINE_PREFIX)]

    @cached_property
    def coverage(self) -> Mapping[float, Float64]:
        """By level, each source's share of rows inside where the other sources calibrate, (K,)."""
        return self._coverage(self.oof)

    @cached_property
    def calibration_coverage(self) -> Mapping[float, Float64]:
        """The same of the sources of `registry calibrate`."""
        return self._coverage(self.calibrated)

    @cached_property
    def encoder_coverage(self) -> Mapping[float, list[Float64]]:
        """By level, of each encoder that is calibrated apart: each source's share of its rows inside, (K,)."""
        if self.calibrated is None or self.calibrated.encoder is None or self.calibration is None:
            return {}
        apart = EncoderIntervals.of(self.calibrated, [self.calibration], NOMINAL_LEVELS).calibrations.values()
        return {
            level: [np.array([*own.quantile(level).coverage.values()]) for (own,) in apart] for level in NOMINAL_LEVELS
        }

    def _coverage(self, oof: Oof | None) -> Mapping[float, Float64]:
        stored = self.calibration
        if oof is None or stored is None or len(oof.sources) < MIN_COVERAGE_SOURCES or len(oof.seeds) < 2:
            return {}
        shares = held_out_shares(oof, stored.method, NOMINAL_LEVELS, stored.range)
        return dict(zip(NOMINAL_LEVELS, shares, strict=True))


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with a name. compute: its value for some evidence; NaN where the evidence cannot show it.

    needs: the evidence that it takes: one of the NEEDS_, or a name of COMPARISON_NAMES.
    since: the metrics_version that brought it.
    in_manifest: whether training stores it, at `eval`, under STORED_PREFIX and its name; it then needs folds alone.
    """

    name: str
    unit: str
    direction: str
    meaning: str
    needs: str
    since: int
    compute: Callable[[MetricInputs], float] = field(repr=False)
    in_manifest: bool = False


def _fold_metrics() -> Iterator[Metric]:
    """What the folds show, by seed and source."""
    stored = partial(Metric, needs=NEEDS_FOLDS, in_manifest=True)
    first = partial(stored, since=1)
    meaning = "Pearson's correlation in each fold, mean over folds, then over seeds"
    yield first("mean_plcc", "", HIGHER, meaning, compute=lambda m: m.seed_plcc.mean())
    meaning = "largest less smallest of the seeds' mean PLCC"
    yield first("plcc_spread", "", LOWER, meaning, compute=lambda m: m.seed_plcc.max() - m.seed_plcc.min())
    yield first("min_seed_plcc", "", HIGHER, "the lowest seed's mean PLCC", compute=lambda m: m.seed_plcc.min())
    meaning = "the lowest of the folds' PLCC, each a mean over seeds"
    yield first("worst_fold_plcc", "", HIGHER, meaning, compute=lambda m: m.scores.plcc.mean(axis=0).min())
    meaning = "Spearman's rank correlation in each fold, mean over folds and seeds"
    yield first("mean_srocc", "", HIGHER, meaning, compute=lambda m: m.scores.srocc.mean())
    meaning = "RMSE in each fold, mean over folds and seeds"
    yield first("mean_rmse", TARGET_UNITS, LOWER, meaning, compute=lambda m: m.scores.rmse.mean())
    yield first("n_seeds", "seeds", HIGHER, "different seeds", compute=lambda m: len(set(m.scores.seeds)))
    yield first("n_folds", "folds", HIGHER, "held-out sources", compute=lambda m: len(m.scores.folds))
    yield first("n_rows", "rows", HIGHER, "rows of all folds", compute=lambda m: sum(m.scores.n))
    meaning = "rows of the smallest fold"
    yield stored("min_fold_rows", "rows", HIGHER, meaning, since=3, compute=lambda m: min(m.scores.n))


def _source_metrics() -> Iterator[Metric]:
    """How well the scores hold on the next source."""
    of_plcc = partial(Metric, unit="", direction=HIGHER, needs=NEEDS_PREDICTIONS)
    meaning = "the 95 % bootstrap interval over sources of mean_plcc"
    yield from _ends("mean_plcc", meaning, partial(of_plcc, since=2), lambda m: m.plcc_bounds)
    meaning = (
        "the 95 % interval over sources of mean_plcc by Student's t, which may reach beyond 1; none below six sources"
    )
    yield from _ends("mean_plcc_t", meaning, partial(of_plcc, since=4), lambda m: m.plcc_t_bounds)
    meaning = "median sigma by the target's standard deviation; near 0 the ensemble has collapsed"
    yield Metric("sigma_ratio", "", HIGHER, meaning, NEEDS_PREDICTIONS, 2, _sigma_ratio)
    meaning = "Pearson's correlation over all held-out rows together, the lowest seed's; a source's offset lowers it"
    yield Metric("pooled_plcc", "", HIGHER, meaning, NEEDS_PREDICTIONS, 3, _pooled_plcc)
    share = "share of a source's rows inside their {level} % interval, calibrated on the other sources"
    yield from _coverage_metrics("coverage", share, NEEDS_PREDICTIONS, 2, lambda m: m.coverage)


def _calibration_metrics() -> Iterator[Metric]:
    """The sources that `registry calibrate` made the intervals of; absent for an entry that it did not make."""
    meaning = "sources that the intervals are calibrated on, none of which was trained on"
    yield Metric("calibration_n_sources", "sources", HIGHER, meaning, NEEDS_CALIBRATION, 5, _n_calibrated)
    share = "of those sources, the share of one's rows inside their {level} % interval, calibrated on the others"
    yield from _coverage_metrics("calibration_coverage", share, NEEDS_CALIBRATION, 5, lambda m: m.calibration_coverage)


def _encoder_metrics() -> Iterator[Metric]:
    """Encoders that `registry calibrate --by-encoder` calibrated apart; absent where it did none."""
    of_encoder = partial(Metric, unit="", direction=HIGHER, needs=NEEDS_ENCODERS, since=6)  # no older evidence has any
    for level in NOMINAL_LEVELS:
        name = f"calibration_encoder_coverage_{percent(level)}"
        meaning = (
            f"of the encoders calibrated apart the least share of an encoder's rows inside its {percent(level)} % "
            "interval, calibrated on the other sources, a mean over sources"
        )
        yield of_encoder(name, meaning=meaning, compute=partial(_of_encoders, _covered, level))
        meaning = (
            f"the least of such a share plus {ONE_SIDED_Z:g} standard errors over sources: below {level:g} the claim"
        )
        meaning += " is refuted for one encoder at least, at 5 % each; a bound, which may be above 1"
        yield of_encoder(f"{name}_upper", meaning=meaning, compute=partial(_of_encoders, _covered_upper, level))


def _refuted_metrics() -> Iterator[Metric]:
    """How many nominal levels the sources refute."""
    levels = ", ".join(percent(level) for level in NOMINAL_LEVELS)
    for prefix, needs, shares, sources in (
        ("", NEEDS_PREDICTIONS, lambda m: m.coverage, "held-out sources"),
        ("calibration_", NEEDS_CALIBRATION, lambda m: m.calibration_coverage, "the calibration's sources"),
    ):
        meaning = f"how many of the levels {levels} % the {sources.removeprefix('the ')} refute at 5 % each"
        compute = partial(_n_refuted, shares)
        yield Metric(f"{prefix}refuted_levels", "levels", LOWER, meaning, needs, 6, compute)


def _coverage_metrics(
    prefix: str, share: str, needs: str, since: int, shares: Callable[[MetricInputs], Mapping[float, Float64]]
) -> Iterator[Metric]:
    """Of each level: the mean over sources, with a bound from above, and the worst source. shares: by level, (K,)."""
    for level in NOMINAL_LEVELS:
        name = f"{prefix}_{percent(level)}"
        upper = f"{name} plus {ONE_SIDED_Z:g} standard errors over sources: below {level:g} the claim is refuted at 5 %"
        upper += "; a bound, which may be above 1"
        for end, meaning, figure in (
            ("", f"{share.format(level=percent(level))}, mean over sources", _covered),
            ("_upper", upper, _covered_upper),
            ("_worst", f"{name} of the worst source", _worst),
        ):
            yield Metric(f"{name}{end}", "", HIGHER, meaning, needs, since, partial(_of_shares, figure, level, shares))


def _input_metrics() -> Iterator[Metric]:
    """What the shipped ensemble gives for the rows of its evidence."""
    ratio = "RMSE of the shipped mu by that of the held-out mu on the same rows, each a mean over sources"
    over = "above 1 the shipped models are not those that were judged"
    for is_complete, name in ((True, "in_sample_ratio"), (False, "sample_in_sample_ratio")):
        rows = "" if is_complete else "on a sample of the rows, where the evidence has no more: "
        of = partial(_in_sample_ratio, is_complete)
        yield Metric(name, "", LOWER, f"{rows}{ratio}; {over}", NEEDS_INPUTS, 4, of)


def _comparison_metrics() -> Iterator[Metric]:
    """Errors beside a baseline's on the same rows."""
    for other, words in COMPARISON_NAMES.items():
        of_other = partial(Metric, unit=TARGET_UNITS, direction=LOWER, needs=other)
        name = f"rmse_vs_{other}"
        meaning = f"RMSE of mu less that of {words}, mean over sources: below 0 the entry is better"
        yield of_other(name, meaning=meaning, since=2, compute=partial(_difference, other))
        meaning = f"the 95 % paired bootstrap interval over sources of {name}"
        yield from _ends(name, meaning, partial(of_other, since=2), partial(_bounds, other))
        meaning = f"the 95 % interval over sources of {name} by Student's t; none below six sources"
        yield from _ends(f"{name}_t", meaning, partial(of_other, since=4), partial(_t_bounds, other))


def _baseline_metrics() -> Iterator[Metric]:
    """Errors beside those of standard models on the same folds; ends by Student's t alone, which hold their level."""
    of_baseline = partial(Metric, unit=TARGET_UNITS, direction=LOWER, needs=NEEDS_BASELINES, since=5)
    for baseline, model in BASELINES.items():
        other = f"{BASELINE_PREFIX}{baseline}"
        name = f"rmse_vs_{other}"
        meaning = f"RMSE of mu less that of {model.meaning}, mean over sources: below 0 the entry is better"
        yield of_baseline(name, meaning=meaning, compute=partial(_difference, other))
        meaning = f"the 95 % interval over sources of {name} by Student's t; none below six sources"
        yield from _ends(f"{name}_t", meaning, of_baseline, partial(_t_bounds, other))
    name = f"rmse_vs_{BASELINE_PREFIX}best"
    meaning = "the largest of these differences, which is that from the best baseline: below 0 the entry beats them all"
    yield of_baseline(name, meaning=meaning, compute=_difference_from_best)
    meaning = "the largest lower end, each at 95 % for all baselines together (Bonferroni): above 0 one is better"
    yield of_baseline(f"{name}_t_low", meaning=meaning, compute=_best_t_low)
    meaning = "the largest upper end, each at 95 %: below 0 the entry beats every baseline (Berger 1982)"
    yield of_baseline(f"{name}_t_high", meaning=meaning, compute=_best_t_high)


def _ends(
    name: str, meaning: str, metric: Callable[..., Metric], bounds: Callable[[MetricInputs], tuple[float, float]]
) -> Iterator[Metric]:
    """Both ends of an interval. meaning: of the interval. metric: makes one."""
    for place, (end, words) in enumerate(INTERVAL_ENDS.items()):
        yield metric(f"{name}_{end}", meaning=f"{words} of {meaning}", compute=partial(_end, bounds, place))


def _end(bounds: Callable[[MetricInputs], tuple[float, float]], place: int, inputs: MetricInputs) -> float:
    return bounds(inputs)[place]


def _difference_from_best(inputs: MetricInputs) -> float:
    return max((comparison.difference for comparison in inputs.baselines), default=math.nan)


def _best_t_low(inputs: MetricInputs) -> float:
    level = 1.0 - 0.05 / max(len(inputs.baselines), 1)
    return max((comparison.t_bounds_at(level)[0] for comparison in inputs.baselines), default=math.nan)


def _best_t_high(inputs: MetricInputs) -> float:
    return max((comparison.t_bounds[1] for comparison in inputs.baselines), default=math.nan)


def _in_sample_ratio(is_complete: bool, inputs: MetricInputs) -> float:
    shipped, oof = inputs.shipped, inputs.oof
    if shipped is None or oof is None or shipped.is_complete is not is_complete:
        return math.nan
    return shipped.in_sample_ratio(oof)


def _pooled_plcc(inputs: MetricInputs) -> float:
    oof = inputs.oof
    return math.nan if oof is None else min(plcc(seed, oof.target) for seed in oof.predictions)


def _sigma_ratio(inputs: MetricInputs) -> float:
    oof = inputs.oof
    if oof is None or len(oof.seeds) < 2 or not (spread := float(np.std(oof.target))) > 0.0:
        return math.nan
    return float(np.median(oof.sigma)) / spread


def _n_calibrated(inputs: MetricInputs) -> float:
    return math.nan if inputs.calibrated is None else len(inputs.calibrated.sources)


def _of_shares(
    figure: Callable[[Float64], float],
    level: float,
    shares: Callable[[MetricInputs], Mapping[float, Float64]],
    inputs: MetricInputs,
) -> float:
    of_sources = shares(inputs).get(level)
    return math.nan if of_sources is None else figure(of_sources)


def _of_encoders(figure: Callable[[Float64], float], level: float, inputs: MetricInputs) -> float:
    """The least over encoders."""
    return min(map(figure, inputs.encoder_coverage.get(level, ())), default=math.nan)


def _covered(shares: Float64) -> float:
    return float(shares.mean())


def _covered_upper(shares: Float64) -> float:
    """Above 1 it stays as it is: no nominal level is above 1, so that clipping it would decide nothing."""
    return float(shares.mean()) + ONE_SIDED_Z * standard_error(shares)


def _n_refuted(shares: Callable[[MetricInputs], Mapping[float, Float64]], inputs: MetricInputs) -> float:
    """NaN where coverage cannot be measured."""
    found = shares(inputs)
    return float(sum(_covered_upper(of_level) < level for level, of_level in found.items())) if found else math.nan


def _worst(shares: Float64) -> float:
    return float(shares.min())


def _difference(other: str, inputs: MetricInputs) -> float:
    comparison = inputs.comparisons.get(other)
    return math.nan if comparison is None else comparison.difference


def _bounds(other: str, inputs: MetricInputs) -> tuple[float, float]:
    comparison = inputs.comparisons.get(other)
    return (math.nan, math.nan) if comparison is None else comparison.bounds


def _t_bounds(other: str, inputs: MetricInputs) -> tuple[float, float]:
    comparison = inputs.comparisons.get(other)
    return (math.nan, math.nan) if comparison is None else comparison.t_bounds


_GROUPS = (
    *(_fold_metrics, _source_metrics, _input_metrics, _calibration_metrics, _comparison_metrics, _baseline_metrics),
    *(_refuted_metrics, _encoder_metrics),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for group in _GROUPS for metric in group()})
DESCRIPTIONS = tuple(MetricDescription(m.name, m.meaning, m.unit, m.direction, m.since) for m in METRICS.values())
METRICS_VERSION = max(metric.since for metric in METRICS.values())


def compute_metrics(inputs: MetricInputs) -> dict[str, float]:
    """Each metric that is a finite number; one that is not is left out, and passes no rule."""
    values = {name: float(metric.compute(inputs)) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}
