"""exchangeable.py: whether new sources could be of the kind that an entry's evidence has, without their scores.

Two figures of each source: how far its rows are from those of training, and how much members differ on them, both as
for a source that they have not seen. If old and new sources are exchangeable, their order is chance: the rank of each
new one among the old ones (Vovk, Gammerman & Shafer 2005), and all together by Wilcoxon's rank sum, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import NormalDist

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.manifest import codec_block, has_inputs, is_current, scaler_of, spec_of
from fr_ensemble.artifacts.paths import INPUTS_PATH
from fr_ensemble.corpus.rows import read_batches
from fr_ensemble.evidence.inputs import read_inputs
from fr_ensemble.evidence.nearest import ReferenceRows, apart_from_others
from fr_ensemble.evidence.statistics import group_means, rank_sum_p, ranks
from fr_ensemble.evidence.usable import usable_evidence
from fr_ensemble.hooks.loaded import load_ensemble, predictions_of
from fr_ensemble.hooks.targets import check_features
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView, Progress, silent
from registry_tool.toolkit import text_table
from registry_tool.values import EMPTY, Json, percent

SIGNIFICANCE_LEVEL = 0.05
STATISTICS = {
    "distance": "distance to the rows of training, mean over rows",
    "sigma": "difference of the members, mean over rows",
}


@dataclass(slots=True)
class Sums:
    """A source's rows as they come in. Mutable: rows stream."""

    n_rows: int = 0
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATISTICS, 0.0))


def exchangeable(
    view: EntryView, corpus: Path, names: Mapping[str, str] = EMPTY, progress: Progress = silent
) -> dict[str, Json]:
    """The document of `fr-ensemble exchangeable --format json`. names: as of `read_rows`.

    Raises InputError for an entry whose evidence has no inputs, and for rows that do not name their sources.
    """
    manifest = view.manifest or {}
    if view.entry.kind != "fr_ensemble" or not is_current(manifest):
        raise InputError(
            f"{view.entry.id}: expected an entry of kind fr_ensemble with schema_version 2: train it again"
        )
    if not has_inputs(manifest):
        raise InputError(f"{view.entry.id}: its evidence has no inputs, expected some: train it with --evidence-inputs")
    check_features(view.entry.id, manifest, corpus)
    reference, known = _known(view, manifest)
    new = _new(view, corpus, names, reference, progress)
    statistics = [_judged(name, known[name], _means(new, name)) for name in STATISTICS]
    p = min(1.0, len(statistics) * min(item["p"] for item in statistics))  # Bonferroni
    return {
        "entry": view.entry.id,
        "corpus": corpus.name,
        "n_known": len(known["sigma"]),
        "n_new": len(new),
        "level": SIGNIFICANCE_LEVEL,
        "p": p,
        "refuted": p <= SIGNIFICANCE_LEVEL,
        "statistics": statistics,
        "sources": [
            {"src": name, "n_rows": sums.n_rows, **_ranked(sums, known)}
            for name, sums in sorted(new.items(), key=lambda item: item[0])
        ],
    }


def _known(view: EntryView, manifest: Mapping[str, Json]) -> tuple[ReferenceRows, dict[str, Float64]]:
    """Points of training, and by figure that of each of its sources, (K,), as if it were new."""
    oof, spec, scaler = predictions_of(view), spec_of(manifest, target=False), scaler_of(manifest)
    with usable_evidence(view.entry.id, view.manifest or {}):
        inputs = read_inputs(view.read(INPUTS_PATH))
        reference = ReferenceRows.of(inputs, oof.source, spec, scaler, 1.0 - SIGNIFICANCE_LEVEL)
        own = oof.source[inputs.row]
        apart = apart_from_others(inputs, oof.source, spec, scaler)
    k = len(oof.sources)
    distance = group_means(apart, own, k)
    return reference, {"distance": distance[np.isfinite(distance)], "sigma": group_means(oof.sigma, oof.source, k)}


def _new(
    view: EntryView, corpus: Path, names: Mapping[str, str], reference: ReferenceRows, progress: Progress
) -> dict[str, Sums]:
    manifest, ensemble = load_ensemble(view)
    spec, scaler, found = spec_of(manifest, target=False, names=names), scaler_of(manifest), dict[str, Sums]()
    for rows in read_batches(corpus, spec, progress=progress):
        if rows.source is None:
            raise InputError(f"{corpus}: found no column src, expected one: a source is what is judged: add it")
        _, sigma = ensemble.predict(rows.features, codec_block(rows.codec, rows.conditioning, spec.n_slots))
        values = {"distance": reference.distance((rows.numeric - scaler.mean) / scaler.std), "sigma": sigma}
        for code, name in enumerate(rows.source.names):
            own = rows.source.codes == code
            if own.any():
                sums = found.setdefault(name, Sums())
                sums.n_rows += int(own.sum())
                for figure, value in values.items():
                    sums.totals[figure] += float(value[own].sum())
    return found


def _means(new: Mapping[str, Sums], name: str) -> Float64:
    return np.array([sums.totals[name] / sums.n_rows for sums in new.values()])


def _ranked(sums: Sums, known: Mapping[str, Float64]) -> dict[str, Json]:
    """A source's figures, each with p: the share of the known ones and itself that are as large."""
    found = {name: sums.totals[name] / sums.n_rows for name in STATISTICS}
    shares = {f"{name}_p": (1 + int((known[name] >= found[name]).sum())) / (len(known[name]) + 1) for name in found}
    return {**found, **shares}


def _judged(name: str, known: Float64, new: Float64) -> dict[str, Json]:
    """p: that so many of the largest figures are the new sources', were their order chance. power: of this test."""
    k, m = len(known), len(new)
    return {
        "name": name,
        "meaning": STATISTICS[name],
        "p": rank_sum_p(known, new),
        "smallest_p": 1.0 / math.comb(k + m, m),
        "power": power(k, m, SIGNIFICANCE_LEVEL / len(STATISTICS)),
        "known_mean": float(known.mean()),
        "new_mean": float(new.mean()),
        "mean_rank": float(ranks(np.concatenate([known, new]))[k:].mean()),
    }


def power(k: int, m: int, level: float) -> float:
    """How often a shift of m new sources by one standard deviation of the k known ones is told (Noether 1987)."""
    if 1.0 / math.comb(k + m, m) > level:
        return 0.0
    normal, share = NormalDist(), m / (k + m)
    beyond = normal.cdf(1.0 / math.sqrt(2.0)) - 0.5
    reach = math.sqrt(12.0 * share * (1.0 - share) * (k + m)) * beyond
    return normal.cdf(reach - normal.inv_cdf(1.0 - level))


def lines(document: Mapping[str, Json]) -> list[str]:
    """The document for people: the sources, then what they show together."""
    header = ["source", "rows", *chain.from_iterable([name, "p"] for name in STATISTICS)]
    rows = [
        [
            item["src"],
            str(item["n_rows"]),
            *chain.from_iterable([f"{item[name]:.4f}", f"{item[f'{name}_p']:.3f}"] for name in STATISTICS),
        ]
        for item in document["sources"]
    ]
    return [*text_table([header, *rows]), *_together(document)]


def _together(document: Mapping[str, Json]) -> Sequence[str]:
    k, m, level = document["n_known"], document["n_new"], document["level"]
    verdict = "refuted" if document["refuted"] else "not refuted"
    each = ", ".join(f"{item['name']} p {item['p']:.3f}" for item in document["statistics"])
    power_of = document["statistics"][0]["power"]
    return [
        f"{m} new sources beside {k} of the evidence: being of one kind is {verdict} at {percent(level)} % ({each})",
        f"a shift by one standard deviation between sources is told in {power_of * 100:.0f} % of cases"
        if power_of
        else "so few sources can show nothing: take more",
    ]
