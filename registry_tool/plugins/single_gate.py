"""single_gate.py: what the evidence of a single model shows, with the shipped bytes run again on its rows.

Metrics keep their formulas: another formula is another metric, and a new one takes the next number as its `since`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry_tool.archive import EvidenceProblem
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, GateRequest, MetricDescription, Table
from registry_tool.measures import plcc, rmse, srocc
from registry_tool.plugins.single_evidence import (
    SingleEvidence,
    evidence_path,
    int8_path,
    read_evidence,
    run_on,
    scaler_of,
)
from registry_tool.values import Evidence, Json, first_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]
    Scores = NDArray[Any]  # of a model, in its own type

# Other processors and releases of onnxruntime add float32 numbers in another order: below 1e-6 of the spread was seen.
PREDICTION_TOLERANCE = 1e-4  # of the span of the targets, or of the peak of pictures
MIN_SCALING_GAIN = 2.0  # how much smaller the error without the sidecar's scaler must be, for the graph to scale itself
MAX_SHARED_ROWS = 0.5  # share of a group's rows that another group may have, too
SSIM_WINDOW, SSIM_SIGMA, SSIM_K = 11, 1.5, (0.01, 0.03)  # Wang, Bovik, Sheikh, Simoncelli 2004
HELD_OUT = "rows: taken for unseen; nothing here shows that the model was not trained on them"
HIGHER_BETTER, LOWER_BETTER = "higher", "lower"
UNITS_OF_TARGET = "target units"


@dataclass(frozen=True, slots=True)
class SingleInputs:
    """What metrics are computed from. int8, other: what the int8 variant, and an incumbent, give for the rows."""

    evidence: SingleEvidence
    prediction: Scores
    int8: Scores | None = None
    other: Scores | None = None

    def over_groups(self, figure: Callable[[Float64, Float64], float], prediction: Scores | None = None) -> Float64:
        """A figure of predictions and targets in each group, (K,)."""
        import numpy as np

        found = self.prediction if prediction is None else prediction
        pairs = ((found[rows], self.evidence.target[rows]) for rows in self.evidence.rows_of())
        return np.array([figure(one.astype(np.float64), two.astype(np.float64)) for one, two in pairs])


@dataclass(frozen=True, slots=True)
class SingleMetric:
    """A number with a name. compute: NaN where the evidence cannot show it. pictures: None for both sorts of target."""

    name: str
    unit: str
    direction: str
    meaning: str
    compute: Callable[[SingleInputs], float] = field(repr=False)
    pictures: bool | None = None
    since: int = 1


def _metrics() -> Iterator[SingleMetric]:
    yield SingleMetric("n_rows", "rows", HIGHER_BETTER, "rows of the evidence", lambda m: len(m.evidence.target))
    yield SingleMetric("n_groups", "groups", HIGHER_BETTER, "groups of rows", lambda m: len(m.evidence.groups))
    yield SingleMetric("min_group_rows", "rows", HIGHER_BETTER, "rows of the smallest group", _smallest)
    meaning = "Pearson's correlation of scores and targets in each group, mean over groups"
    yield SingleMetric("mean_plcc", "", HIGHER_BETTER, meaning, lambda m: _mean(m.over_groups(plcc)), False)
    yield SingleMetric(
        "worst_group_plcc", "", HIGHER_BETTER, "the lowest group's PLCC", lambda m: _min(m.over_groups(plcc)), False
    )
    meaning = "Spearman's rank correlation in each group, mean over groups"
    yield SingleMetric("mean_srocc", "", HIGHER_BETTER, meaning, lambda m: _mean(m.over_groups(srocc)), False)
    meaning = "Pearson's correlation over all rows together; a group's offset lowers it"
    yield SingleMetric("pooled_plcc", "", HIGHER_BETTER, meaning, _pooled, False)
    meaning = "RMSE in each group, mean over groups"
    yield SingleMetric("mean_rmse", UNITS_OF_TARGET, LOWER_BETTER, meaning, lambda m: _mean(m.over_groups(_rmse)))
    meaning = "PSNR of each picture against its target, mean over a group, then over groups"
    yield SingleMetric("mean_psnr", "dB", HIGHER_BETTER, meaning, lambda m: _mean(_psnr(m)), True)
    yield SingleMetric(
        "worst_group_psnr", "dB", HIGHER_BETTER, "the lowest group's PSNR", lambda m: _min(_psnr(m)), True
    )
    meaning = "mean_psnr less that of the input picture itself: above 0 the filter is better than doing nothing"
    yield SingleMetric("psnr_gain", "dB", HIGHER_BETTER, meaning, _gain, True)
    meaning = "SSIM (Wang et al. 2004, planes of 11 x 11 or more), mean over a group, then over groups"
    yield SingleMetric("mean_ssim", "", HIGHER_BETTER, meaning, lambda m: _mean(_ssim(m)), True)
    yield SingleMetric("worst_group_ssim", "", HIGHER_BETTER, "the lowest group's SSIM", lambda m: _min(_ssim(m)), True)
    meaning = "mean_plcc less that of the int8 variant on the same rows"
    yield SingleMetric("int8_plcc_loss", "", LOWER_BETTER, meaning, _int8_loss, False)
    meaning = "1 less Pearson's correlation of the int8 variant's pictures with the model's"
    yield SingleMetric("int8_picture_loss", "", LOWER_BETTER, meaning, _int8_picture_loss, True)
    meaning = "mean_rmse less the incumbent's on the same rows: below 0 the entry is better"
    yield SingleMetric("rmse_vs_incumbent", UNITS_OF_TARGET, LOWER_BETTER, meaning, _rmse_vs_incumbent)


def _mean(values: Float64) -> float:
    return float(values.mean())


def _min(values: Float64) -> float:
    return float(values.min())


def _smallest(inputs: SingleInputs) -> float:
    return min(int(rows.sum()) for rows in inputs.evidence.rows_of())


def _pooled(inputs: SingleInputs) -> float:
    import numpy as np

    return plcc(*(one.reshape(-1).astype(np.float64) for one in (inputs.prediction, inputs.evidence.target)))


def _rmse(one: Scores, two: Scores) -> float:
    return rmse(one.reshape(-1), two.reshape(-1))


def _psnr(inputs: SingleInputs, prediction: Scores | None = None) -> Float64:
    return inputs.over_groups(lambda one, two: psnr(one, two, inputs.evidence.peak), prediction)


def psnr(pictures: Float64, targets: Float64, peak: float) -> float:
    """Mean over pictures (n, ...) of 10 log10(peak^2 / MSE), dB; equal pictures count as 100 dB."""
    import numpy as np

    errors = np.square(pictures - targets).reshape(len(targets), -1).mean(axis=1)
    return float(np.mean(10.0 * np.log10(peak * peak / np.maximum(errors, peak * peak * 1e-10))))


def _ssim(inputs: SingleInputs) -> Float64:
    return inputs.over_groups(lambda one, two: ssim(one, two, inputs.evidence.peak))


def ssim(pictures: Float64, targets: Float64, peak: float) -> float:
    """Mean SSIM of pictures (n, ..., height, width), over all planes; NaN for planes below the window."""
    import numpy as np

    if targets.ndim < 3 or min(targets.shape[-2:]) < SSIM_WINDOW:
        return math.nan
    x, y = (one.reshape(-1, *one.shape[-2:]) for one in (pictures, targets))
    c1, c2 = ((k * peak) ** 2 for k in SSIM_K)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def _blurred(planes: Float64) -> Float64:
    """Planes (m, height, width) under a Gaussian window, without their borders."""
    import numpy as np

    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    window /= window.sum()
    for axis in (1, 2):
        n = planes.shape[axis] - SSIM_WINDOW + 1
        parts = [w * planes.take(range(k, k + n), axis=axis) for k, w in enumerate(window)]
        planes = np.sum(parts, axis=0)
    return planes


def _gain(inputs: SingleInputs) -> float:
    evidence = inputs.evidence
    alike = [values for values in evidence.inputs.values() if values.shape == evidence.target.shape]
    return _mean(_psnr(inputs)) - _mean(_psnr(inputs, alike[0])) if alike else math.nan


def _int8_loss(inputs: SingleInputs) -> float:
    return math.nan if inputs.int8 is None else _mean(inputs.over_groups(plcc) - inputs.over_groups(plcc, inputs.int8))


def _int8_picture_loss(inputs: SingleInputs) -> float:
    import numpy as np

    if inputs.int8 is None:
        return math.nan
    return 1.0 - plcc(*(one.reshape(-1).astype(np.float64) for one in (inputs.int8, inputs.prediction)))


def _rmse_vs_incumbent(inputs: SingleInputs) -> float:
    if inputs.other is None:
        return math.nan
    return _mean(inputs.over_groups(_rmse) - inputs.over_groups(_rmse, inputs.other))


SINGLE_METRICS = {metric.name: metric for metric in _metrics()}
SINGLE_METRICS_VERSION = max(metric.since for metric in SINGLE_METRICS.values())
SINGLE_DESCRIPTIONS = tuple(
    MetricDescription(m.name, m.meaning, m.unit, m.direction, m.since) for m in SINGLE_METRICS.values()
)


def gate(view: EntryView, request: GateRequest) -> Evidence | None:
    """What the pinned evidence shows, the shipped model run again on its rows; None where the entry pins none."""
    if request.evidence is not None:
        raise InputError(
            f"{view.entry.id}: found files of evidence, expected the entry's own: `registry evidence {view.entry.id} "
            "--data FILE` makes it"
        )
    path = evidence_path(view)
    if path is None:
        return None
    try:
        evidence = read_evidence(view.read(path))
        prediction = _shaped(run_on(view, view.entry.onnx or "", evidence.inputs), evidence)
    except EvidenceProblem as error:
        return Evidence({}, (str(error),), sha256=evidence_sha256(view), metrics_version=SINGLE_METRICS_VERSION)
    int8, problems = _int8(view, evidence)
    other, lacking = _incumbent(request.incumbent, evidence)
    inputs = SingleInputs(evidence, prediction, int8, other)
    found = {
        name: float(metric.compute(inputs)) for name, metric in SINGLE_METRICS.items() if _is_for(metric, evidence)
    }
    metrics = {name: value for name, value in found.items() if math.isfinite(value)}
    problems += [*evidence_problems(view, evidence, prediction), *_over_budget(view, metrics), *lacking]
    details: dict[str, Json] = {"target": evidence.target_name, "groups": len(evidence.groups)}
    if other is not None and request.incumbent is not None:
        compared = {"entry": request.incumbent.entry.id, "difference": metrics.get("rmse_vs_incumbent")}
        details["against"] = {"incumbent": compared}
    return Evidence(
        metrics,
        tuple(problems),
        sha256=evidence_sha256(view),
        details=details,
        table=_table(inputs),
        metrics_version=SINGLE_METRICS_VERSION,
        since={name: SINGLE_METRICS[name].since for name in metrics},
        warnings=(HELD_OUT, *_unbudgeted(view)),
    )


def _is_for(metric: SingleMetric, evidence: SingleEvidence) -> bool:
    return metric.pictures in (None, evidence.is_picture)


def _shaped(prediction: Scores, evidence: SingleEvidence) -> Scores:
    """What the model gave in the targets' shape: a score may be (n,) or (n, 1)."""
    if prediction.size != evidence.target.size:
        found, expected = prediction.shape, evidence.target.shape
        raise EvidenceProblem(f"the model gives {found} for these rows, expected {expected} as the targets")
    return prediction.reshape(evidence.target.shape)


def evidence_sha256(view: EntryView) -> str:
    """One digest of all that the evidence is of: the rows, the model, its sidecar, its weights, its int8 variant."""
    digest = hashlib.sha256()
    for path in sorted(view.paths):
        digest.update(hashlib.sha256(path.encode()).digest() + hashlib.sha256(view.read(path)).digest())
    return digest.hexdigest()


def evidence_problems(view: EntryView, evidence: SingleEvidence, prediction: Scores) -> Iterator[str]:
    """What contradicts the evidence, or what it is of. prediction: what the shipped model gives."""
    import numpy as np

    span = evidence.peak if evidence.is_picture else float(np.ptp(evidence.target))
    off = np.abs(prediction - evidence.prediction).reshape(len(prediction), -1).max(axis=1)
    if (off > PREDICTION_TOLERANCE * span).any():
        worst = int(off.argmax())
        yield f"prediction of row {worst}: the shipped model gives another one, {off[worst]:.6g} away"
    yield from _shared_rows(evidence)
    if not evidence.is_picture and scaler_of(view.manifest or {}) is not None:
        yield from _scaled_twice(view, evidence, prediction)


def _scaled_twice(view: EntryView, evidence: SingleEvidence, prediction: Scores) -> Iterator[str]:
    """Where the model does better on rows that are not scaled: its graph holds a scaler, and the sidecar another."""
    try:
        unscaled = _shaped(run_on(view, view.entry.onnx or "", evidence.inputs, scaled=False), evidence)
    except EvidenceProblem:
        return
    one, two = (_rmse(scores, evidence.target) for scores in (prediction, unscaled))
    if one > MIN_SCALING_GAIN * two:
        yield (
            f"feature_mean, feature_std: without the sidecar's scaler RMSE is {two:.4g}, with it {one:.4g}: the graph "
            "scales its inputs itself, and the sidecar would do it again"
        )


def _shared_rows(evidence: SingleEvidence) -> Iterator[str]:
    """Groups that hold the same rows: one source under two names."""
    digests = []
    for rows in evidence.rows_of():
        parts = [values[rows].reshape(int(rows.sum()), -1) for values in evidence.inputs.values()]
        digests.append({b"".join(part[n].tobytes() for part in parts) for n in range(int(rows.sum()))})
    for place, own in enumerate(digests):
        for other in range(place):
            shared = len(own & digests[other])
            if shared > MAX_SHARED_ROWS * min(len(own), len(digests[other])):
                yield (
                    f"groups {evidence.groups[other]} and {evidence.groups[place]}: {shared} rows are the same: "
                    "one source under two names"
                )


def _int8(view: EntryView, evidence: SingleEvidence) -> tuple[Scores | None, list[str]]:
    """What the int8 variant gives for the rows; None without one."""
    path = int8_path(view)
    if path is None:
        return None, []
    try:
        return _shaped(run_on(view, path, evidence.inputs), evidence), []
    except EvidenceProblem as error:
        return None, [str(error)]


def _over_budget(view: EntryView, metrics: Mapping[str, float]) -> Iterator[str]:
    """Where the int8 variant loses more than the entry promises."""
    budget = view.entry.document.get("quant_accuracy_budget_plcc")
    for name in ("int8_plcc_loss", "int8_picture_loss"):
        if budget is not None and metrics.get(name, 0.0) > budget:
            yield f"{name}: found {metrics[name]:.6g}, the entry promises at most {budget:g}: quantise it again"


def _unbudgeted(view: EntryView) -> Iterator[str]:
    if int8_path(view) is not None and "quant_accuracy_budget_plcc" not in view.entry.document:
        yield "int8 variant: measured, not judged: the entry has no quant_accuracy_budget_plcc"


def _incumbent(incumbent: EntryView | None, evidence: SingleEvidence) -> tuple[Scores | None, list[str]]:
    """What an incumbent gives for the entry's rows; what keeps it from that is a problem."""
    if incumbent is None:
        return None, []
    place = f"incumbent {incumbent.entry.id}"
    ports = [port.name for port in incumbent.onnx(incumbent.entry.onnx or "").inputs]
    if missing := [name for name in ports if name not in evidence.inputs]:
        return None, [f"{place}: it reads {first_names(missing)}, which the rows do not have"]
    try:
        inputs = {name: evidence.inputs[name] for name in ports}
        return _shaped(run_on(incumbent, incumbent.entry.onnx or "", inputs), evidence), []
    except EvidenceProblem as error:
        return None, [f"{place}: {error}"]


def _table(inputs: SingleInputs) -> Table:
    """The groups for people."""
    if inputs.evidence.is_picture:
        named: dict[str, Float64] = {"psnr": _psnr(inputs), "ssim": _ssim(inputs)}
    else:
        named = {"plcc": inputs.over_groups(plcc), "srocc": inputs.over_groups(srocc)}
    named["rmse"] = inputs.over_groups(_rmse)
    rows = [
        [name, str(int(rows.sum())), *(_cell(values[place]) for values in named.values())]
        for place, (name, rows) in enumerate(zip(inputs.evidence.groups, inputs.evidence.rows_of(), strict=True))
    ]
    return Table([["group", "rows", *named], *rows])


def _cell(value: float) -> str:
    """A figure for people; that of a group which has none is a dash."""
    return f"{value:.4f}" if math.isfinite(value) else "-"
