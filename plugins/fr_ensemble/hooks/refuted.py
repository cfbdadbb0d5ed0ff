"""refuted.py: which levels labelled rows refute, for all of them and for one encoder's, in words. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.calibrating import MIN_COVERAGE_SOURCES
from fr_ensemble.evidence.calibration import by_encoder_name
from fr_ensemble.evidence.metrics import ONE_SIDED_Z
from fr_ensemble.evidence.statistics import group_means, standard_error, student_t_quantile
from registry_tool.values import MAX_NAMES_SHOWN, Json, first_names, percent

REFUTED_AT = 0.05  # how often a level that holds may be refuted by chance; for all encoders together


def refuted_levels(over: Mapping[str, Json], by_encoder: Mapping[float, list[str]], origin: str) -> Iterator[str]:
    """What to say of levels that are refuted, and what to do.

    over: `over_sources` of the document of an evaluation. by_encoder: of `refuted_encoders`, which is said of levels
    alone that all rows do not refute. origin: the entry that can be calibrated.
    """
    found = dict(_refuted(over))
    encoders = [line for level, lines in by_encoder.items() if level not in found for line in lines]
    yield from (*found.values(), *encoders)
    if found:
        yield f"intervals from sources like these: `registry calibrate {origin} --corpus FILE --id NEW`"
    if encoders:
        why = "intervals of each encoder"
        yield f"{why}: `registry calibrate {origin} --corpus FILE --id NEW --by-encoder`, of sources like these"


def _refuted(over: Mapping[str, Json]) -> Iterator[tuple[float, str]]:
    """Where the coverage of new sources is below nominal by more than chance: one-sided, at 5 %."""
    enough = over["n_sources"] >= MIN_COVERAGE_SOURCES
    for item in over["levels"] if enough else ():
        covered, error = item["coverage"], item["coverage_se"]
        if covered + ONE_SIDED_Z * error < item["level"]:
            found = f"coverage is {covered:.3f} +- {error:.3f} over {over['n_sources']} sources"
            reason = "rows are made or scored unlike the calibration's, so that its bounds are too narrow for them"
            yield item["level"], f"{percent(item['level'])} % is refuted: {found}: {reason}"


def refuted_encoders(corpus: Corpus, bounds: Mapping[float, tuple[Float64, Float64]]) -> dict[float, list[str]]:
    """Levels that the rows of one encoder refute, where there are several: level -> words on each such encoder.

    By Student's t over the sources that have such rows, at 5 % for all encoders together (Bonferroni). bounds: by
    level, lower and upper, (n,) each.
    """
    encoder, found = by_encoder_name(corpus.groups["encoder"]), dict[float, dict[str, tuple[float, str]]]()
    confidence = 1.0 - REFUTED_AT / len(encoder.names)
    inside = {level: (lower <= corpus.target) & (corpus.target <= upper) for level, (lower, upper) in bounds.items()}
    for code, name in enumerate(encoder.names) if len(encoder.names) > 1 else ():
        rows = encoder.codes == code
        used, source = np.unique(corpus.source[rows], return_inverse=True)
        for level, is_inside in inside.items() if len(used) >= MIN_COVERAGE_SOURCES else ():
            shares = group_means(is_inside[rows], source.reshape(-1), len(used))
            t = student_t_quantile(confidence, len(shares) - 1)
            if shares.mean() + t * standard_error(shares) < level:
                figure = f"{shares.mean():.3f} +- {standard_error(shares):.3f} over {len(shares)} sources"
                found.setdefault(level, {})[name] = (float(shares.mean()), figure)
    return {level: _lines(level, of_level) for level, of_level in found.items()}


def _lines(level: float, covered: Mapping[str, tuple[float, str]]) -> list[str]:
    """A line for each encoder that refutes a level; for many one, the worst first. covered: as a number, in words."""
    claim = f"{percent(level)} % is refuted for rows of"
    if len(covered) <= MAX_NAMES_SHOWN:
        return [f"{claim} {name}: coverage is {figure}" for name, (_, figure) in covered.items()]
    worst_first = sorted(covered, key=lambda name: covered[name])
    return [f"{claim} {first_names(worst_first)}: coverage is {covered[worst_first[0]][1]} for the first"]
