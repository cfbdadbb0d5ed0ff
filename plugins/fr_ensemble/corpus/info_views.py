"""info_views.py: the document of `corpus info` for people: lines and charts. Counts nothing; see info.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from registry_tool.hookspec import Axis, Chart, Figure, Series
from registry_tool.toolkit import counted, text_table
from registry_tool.values import Json, percentage

SUMMARY_NAMES = ("min", "mean", "max")
MAX_SHOWN_PAIRS = 20  # pairs of sources in the table
MAX_CHART_SOURCES = 40  # the suspicious ones first, then those with the most rows


def lines(document: Mapping[str, Json]) -> list[str]:
    """The document for people."""
    target, record = document["target"], document["record"] or {}
    shown = [
        f"{document['corpus']}: {counted(document['n_rows'], 'row')}, {counted(len(document['sources']), 'source')}, "
        f"{counted(len(document['encoders']), 'encoder')}",
        f"target: {_summary(target)} {target['name']}{_by(target)}" if target else "target: no such column",
    ]
    if "ffmpeg" in record:
        shown.append(f"made with: ffmpeg {record['ffmpeg']}, libvmaf {record['libvmaf']}, model {record['model']}")
    elif "logs" in record:
        shown.append(f"made of: {counted(len(record['logs']), 'log')}")
    sources = [
        [name, str(s["n_rows"]), str(s["n_clips"] or "-"), str(len(s["encoders"])), _summary(s["target"])]
        for name, s in document["sources"].items()
    ]
    encoders = [
        [name, str(e["n_rows"]), "its own" if e["known"] else "unknown", _summary(e["target"])]
        for name, e in document["encoders"].items()
    ]
    shown += ["", *text_table([["source", "rows", "clips", "encoders", "target min/mean/max"], *sources])]
    shown += ["", *text_table([["encoder", "rows", "slot", "target min/mean/max"], *encoders])]
    features = [[name, _summary(numbers)] for name, numbers in document["features"].items()]
    shown += ["", *text_table([["feature", "min/mean/max"], *features]), ""]
    shown += _overlap_line(document["source_overlap"])
    odd = [*_oddities(document), *_leakage(document)]
    return [*shown, *(odd or ["nothing odd: no duplicates, no constant columns, no rows in two sources"])]


def _oddities(document: Mapping[str, Json]) -> list[str]:
    odd = []
    if document["missing_features"]:
        odd.append(f"missing features: {', '.join(document['missing_features'])}")
    if len(document["sources"]) < 2:
        odd.append("one source: leave-one-source-out needs at least two")
    if document["constant_columns"]:
        odd.append(f"constant columns: {', '.join(document['constant_columns'])}")
    if document["duplicate_rows"]:
        odd.append(f"duplicate rows: {document['duplicate_rows']} repeat another row of their source")
    if document["failed_rows"]:
        odd.append(
            f"failed encodes, left out: {counted(document['failed_rows'], 'row')} without a number for every score"
        )
    for about in document.get("unusable_rows", ()):
        found = repr(about["found"]) if isinstance(about["found"], str) else f"{about['found']:g}"
        odd.append(
            f"unusable: {counted(about['n_rows'], 'row')}, the first {about['first']}, column {about['column']}: found "
            f"{found}, expected {about['expected']}"
        )
    if document["conflicting_rows"]:
        found, name = document["conflicting_rows"], document["target"]["name"]
        odd.append(f"two models: {found} rows have the features of another row and another {name}: score all with one")
    return odd


def _overlap_line(found: Mapping[str, Json] | None) -> list[str]:
    """The greatest overlap, and how many pairs it is of."""
    if found is None:
        return []
    largest = max((pair["overlap"] for pair in found["pairs"]), default=0.0)
    pairs = found["n_judged"] + found["n_not_judged"]
    columns = ", ".join(found["columns"])
    return [
        f"{columns}: at most {percentage(largest)} in common, {found['n_judged']} of {pairs} pairs of sources judged",
        "",
    ]


def _overlap_hints(found: Mapping[str, Json] | None) -> list[str]:
    """Sources that are one, and sources that may be parts of one video."""
    if found is None:
        return []
    columns, hints = ", ".join(found["columns"]), []
    for pair in found["pairs"]:
        names = " and ".join(pair["sources"])
        if pair["judged"] == "one source":
            hints.append(
                f"leakage: {names} have {percentage(pair['overlap'])} of {columns} in common: they are one source"
            )
        elif pair["judged"] == "alike":
            hints.append(
                f"leakage: {columns} of {names} is distributed alike (Kolmogorov-Smirnov distance "
                f"{pair['distance']:.2f}): are they parts of one video?"
            )
    more = len(hints) - MAX_SHOWN_PAIRS
    return hints[:MAX_SHOWN_PAIRS] + [f"leakage: {more} more pairs of sources by {columns}"] * (more > 0)


def _leakage(document: Mapping[str, Json]) -> list[str]:
    """Hints that one video has two names."""
    hints = _overlap_hints(document["source_overlap"])
    for pair in document["shared_rows"][:MAX_SHOWN_PAIRS]:
        first, second = pair["sources"]
        hints.append(
            f"leakage: {first} and {second} have {pair['rows']} rows in common, "
            f"{percentage(pair['share'])} of the smaller: is it one video under two names?"
        )
    if more := len(document["shared_rows"]) - MAX_SHOWN_PAIRS:
        hints += [f"leakage: {more} more pairs of sources with rows in common"] if more > 0 else []
    hints += [f"leakage: are {' and '.join(group)} one source?" for group in document["similar_names"]]
    return hints


def _by(target: Mapping[str, Json]) -> str:
    if "definition" not in target:
        return ""
    return f" by {target['definition']}" + (f" (libvmaf {target['libvmaf']})" if "libvmaf" in target else "")


def _summary(numbers: Mapping[str, float] | None) -> str:
    return "/".join(f"{numbers[name]:.4g}" for name in SUMMARY_NAMES) if numbers else "-"


def figures(document: Mapping[str, Json]) -> list[Figure]:
    """How the target is spread over all rows, over sources (red: a hint of leakage) and over encoders."""
    target, sources, encoders = document["target"], document["sources"], document["encoders"]
    overlap = document["source_overlap"] or {"pairs": []}
    alike = [pair for pair in overlap["pairs"] if pair["judged"] != "different"]
    odd = {name for pair in (*document["shared_rows"], *alike) for name in pair["sources"]}
    odd |= {name for group in document["similar_names"] for name in group}
    shown = sorted(sources, key=lambda name: (name not in odd, -sources[name]["n_rows"], name))[:MAX_CHART_SOURCES]
    more = f", {len(sources) - len(shown)} more are not shown" if len(sources) > len(shown) else ""
    found = [] if target is None else [_histogram(target)]
    title = f"Sources (red: shares rows or a name){more}"
    found.append(_ladder(title, {name: sources[name] for name in shown}, odd, target))
    unknown = {name for name, about in encoders.items() if not about["known"]}
    return [*found, _ladder("Encoders (red: no slot of its own)", encoders, unknown, target)]


def _histogram(target: Mapping[str, Json]) -> Figure:
    bars = target["histogram"]
    low, width, counts = bars["from"], bars["width"], bars["counts"]
    middles = [low + width * (place + 0.5) for place in range(len(counts))]
    columns = Series("", middles, counts, "columns", thick=width, tone="first")
    across = Axis(target["name"], low, low + width * len(counts))
    return Figure(
        "Rows by target",
        "How many rows have a target in each bar.",
        Chart(across, Axis("rows", 0, 1.05 * max(counts)), [columns]),
    )


def _ladder(title: str, about: Mapping[str, Json], odd: Collection[str], target: Mapping[str, Json] | None) -> Figure:
    """A rung a name: least to greatest target with its mean, or the number of rows without one."""
    names = [f"{name}  {item['n_rows']}" for name, item in about.items()]
    series = []
    for tone, red in (("alarm", True), ("first", False)):
        rungs = [place for place, name in enumerate(about) if (name in odd) is red]
        items = [item for name, item in about.items() if (name in odd) is red]
        if target is None:
            counts = [item["n_rows"] for item in items]
            series.append(Series("", [0.0] * len(rungs), rungs, "spans", ends=counts, tone=tone))
        else:
            low, mean, high = ([item["target"][figure] for item in items] for figure in SUMMARY_NAMES)
            series.append(Series("", mean, rungs, tone="ink"))
            series.append(Series("", low, rungs, "spans", ends=high, thick=0.12, tone=tone))
    if target is None:
        across = Axis("rows", 0, 1.05 * max(item["n_rows"] for item in about.values()))
    else:
        low, high = target["min"], target["max"]
        room = 0.04 * (high - low) or 1.0
        across = Axis(f"{target['name']}: least, mean, greatest", low - room, high + room)
    return Figure(title, "Beside each name, its rows.", Chart(across, Axis.of_names("", names), series))
