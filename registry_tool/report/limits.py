"""limits.py: where a model does not hold, as its documents say: for cards and bills of materials. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from registry_tool.documents.manifest import Manifest
from registry_tool.report.text import part, plain
from registry_tool.values import Entry, Json, first_names, percent
from registry_tool.workflows.gate import Judgement

SOURCES_SHOWN = 8  # of their names


def limits(entry: Entry, manifest: Mapping[str, Json], judgement: Judgement | None) -> Iterator[str]:
    """One sentence each; nothing that the documents do not say."""
    if entry.smoke:
        yield "It is a smoke entry: a load-path probe that no gate promoted."
    known = Manifest.of(manifest)
    if known.random_rows:
        yield "It was trained on random rows: its numbers mean nothing."
    if known.target is not None and len(known.target.range) == 2:
        low, high = map(plain, known.target.range)
        yield f"It predicts {known.target.name} from {low} to {high}; a prediction outside is cut."
    if encoders := trained_encoders(manifest):
        yield f"It learned from rows of {', '.join(encoders)}; rows of other encoders are unlike any that it saw."
    if known.corpus is not None:
        sources = known.corpus.sources
        named = f" ({first_names([f'`{plain(name)}`' for name in sources], SOURCES_SHOWN)})" if sources else ""
        yield f"It learned from {len(sources)} sources{named}; content unlike theirs is outside what was measured."
    yield from _of_calibration(known)
    yield from _of_inputs(known, manifest)
    if levels := unguaranteed_levels(manifest):
        yield f"Its intervals at {', '.join(levels)} have no guarantee: the sources are too few for them."
    yield from _of_encoders(manifest)
    if judgement is not None and judgement.verdict.summary_only:
        yield "Its evidence is a summary without predictions: it cannot be computed again."
    if judgement is not None:
        yield from (f"The gate holds it: {reason}." for reason in judgement.verdict.reasons)


def _of_inputs(known: Manifest, manifest: Mapping[str, Json]) -> Iterator[str]:
    for name, low, high in input_ranges(manifest):
        ends = f"{plain(low)} alone" if low == high else f"from {plain(low)} to {plain(high)}"
        yield f"Training saw {name} {ends}; `registry predict` marks rows outside."
    if "fused" in manifest and known.corpus is not None and not part(manifest, "evidence_inputs").get("n_rows"):
        yield "Its evidence has no inputs: `registry predict` cannot mark rows that are far from those of training."


def _of_calibration(known: Manifest) -> Iterator[str]:
    if known.calibration is not None:
        count = len(known.calibration.corpus.sources)
        yield f"Its intervals are calibrated on {count} other sources; they hold for sources of that kind alone."


def _of_encoders(manifest: Mapping[str, Json]) -> Iterator[str]:
    """Where the intervals of encoders are calibrated apart."""
    items = part(part(manifest, "intervals"), "by_encoder", encoders=list).get("encoders", [])
    own = {str(item["name"]): item for item in items if part({"item": item}, "item", name=str, calibrations=list)}
    if own:
        yield f"Rows of {', '.join(own)} have intervals of their encoder's rows alone; all other rows have pooled ones."
    bare = {name: levels for name, item in own.items() if (levels := _bare_levels(item["calibrations"]))}
    for name, levels in bare.items():
        yield f"The intervals of {name} at {', '.join(levels)} have no guarantee: its sources are too few for them."


def trained_encoders(manifest: Mapping[str, Json]) -> list[str]:
    """The encoders of the corpus with their rows, else those that made it, where it records them; [] where neither."""
    counted = part(manifest, "corpus").get("encoders")
    if isinstance(counted, list | tuple) and counted:
        return [f"{item['name']} ({item['n_rows']})" for item in counted if isinstance(item, Mapping)]
    record = part(part(manifest, "corpus"), "record", settings=dict)
    encoders = record.get("settings", {}).get("encoders")
    return sorted(map(str, encoders)) if isinstance(encoders, Mapping | list) else []


def unguaranteed_levels(manifest: Mapping[str, Json]) -> list[str]:
    """Levels of the rows' two-sided intervals that the manifest says no guarantee of, such as 95 %."""
    return _bare_levels(part(manifest, "intervals").get("calibrations"))


def _bare_levels(calibrations: Json) -> list[str]:
    """The same of such a list of calibrations."""
    first = calibrations[0] if isinstance(calibrations, list | tuple) and calibrations else {}
    levels = first.get("levels") if isinstance(first, Mapping) else {}
    found = levels.items() if isinstance(levels, Mapping) else ()
    return [
        f"{percent(float(level))} %"
        for level, quantile in found
        if isinstance(quantile, Mapping) and str(quantile.get("guarantee")).startswith("none") and quantile.get("q")
    ]


def input_ranges(manifest: Mapping[str, Json]) -> Iterator[tuple[str, Json, Json]]:
    """(input, lowest, highest value in training), then the same of what the corpus says of its video."""
    found = (part(manifest, "intervals").get("input_ranges"), part(manifest, "corpus").get("ranges"))
    for item in chain.from_iterable(ranges for ranges in found if isinstance(ranges, list | tuple)):
        if isinstance(item, Mapping) and isinstance(item.get("range"), list | tuple) and len(item["range"]) == 2:
            yield str(item.get("name")), *item["range"]
