"""recommend_views.py: the document of `recommend` for people: lines and charts. Answers nothing; see recommend.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fr_ensemble.corpus.vocabulary import encoder_name
from fr_ensemble.queries.recommend import BOUND, CHOICE, SEQUENCE
from registry_tool.hookspec import Axis, Chart, Figure, Series
from registry_tool.toolkit import text_table
from registry_tool.values import MAX_NAMES_SHOWN, Json, counted, first_names, percent

MAX_CHARTS = 12
FLAGGED_ROWS = 0.5  # share of a clip's rows from which a flag is shown of it


def lines(document: Mapping[str, Json]) -> list[str]:
    """The document for people: a line a source (and encoder)."""
    cost, target, confidence = document["cost"]["column"], document["target"], document["confidence"]
    rows = []
    for group in document["groups"]:
        best = max(group["encodes"], key=lambda encode: encode["assured"])
        shown = next((e for e in group["encodes"] if e["clip"] == group["recommended"]), best)
        setting = " ".join(f"{name}={_plain(value)}" for name, value in shown["setting"].items()) or "-"
        flags = " ".join(name for name, count in shown["flags"].items() if count >= FLAGGED_ROWS * shown["n_rows"])
        cells = [setting, f"{shown['cost']:g}", f"{shown['mu']:.2f}", f"{shown['assured']:.2f}", flags or "-"]
        answer = group["recommended"] or f"none of {len(group['encodes'])}; the best:"
        rows.append([group["src"], shown["encoder"], answer, *cells])
    header = ["source", "encoder", "cheapest encode", "setting", cost, "mu", "lower bound", "flags"]
    asked = (
        f"{target['statistic']} {target['name']} of a clip at least {target['at_least']:g}, at {percent(confidence)} %"
    )
    return [asked, *_rules(document), *text_table([header, *rows])]


def _rules(document: Mapping[str, Json]) -> Iterator[str]:
    """By what encodes are chosen, and what that promises; of encoders that are calibrated apart, each by its own."""
    apart, level = {one["encoder"]: one for one in document.get("by_encoder", ())}, percent(document["confidence"])
    by_name: dict[str, list[Mapping[str, Json]]] = {}
    for group in document["groups"]:
        name = encoder_name(group["encoder"] or "")
        by_name.setdefault(name if group["encoder"] is not None and name in apart else "", []).append(group)
    for names in _said_together({name: apart.get(name, document) for name in sorted(by_name)}):
        groups = [group for name in names for group in by_name[name]]
        lines = _reasons(apart.get(names[0], document), groups, level)
        yield from (f"{first_names(names)}: {line}" if names != [""] else line for line in lines)
    if apart and any(group["encoder"] is None for group in document["groups"]):
        shown = " or ".join(apart) if len(apart) <= MAX_NAMES_SHOWN else first_names(apart)
        yield f"the lower bound of an encode by {shown} is that of its encoder's rows"


def _said_together(known: Mapping[str, Mapping[str, Json]]) -> Iterator[list[str]]:
    """Names of encoders whose lines would differ in their counts alone, where they are many; else each by itself."""
    alike: dict[str, list[str]] = {}
    for name, one in known.items():
        bound, choice = {**one["bound"], "q": one["bound"]["q"] is None, "floor": None}, one.get("choice")
        promise = choice and (choice["rule"], choice["guarantee"], choice["n_sources"])
        alike.setdefault(repr((name == "", bound, promise)), []).append(name)
    for names in alike.values():
        yield from [names] if len(names) > MAX_NAMES_SHOWN else ([name] for name in names)


def _reasons(known: Mapping[str, Json], groups: Sequence[Mapping[str, Json]], level: str) -> Iterator[str]:
    """Of the answers of these groups. known: has `bound` and, where choices can be made, `choice`."""
    bound, choice, rules = known["bound"], known.get("choice"), {group["rule"] for group in groups}
    by_bound = f"lower bound of clips ({bound['rule']}; guarantee: {bound['guarantee']})"
    if CHOICE in rules and choice is not None:
        promise = f"{choice['rule']} over {choice['n_sources']} sources; guarantee: {choice['guarantee']}"
        yield f"{_answers(groups, CHOICE)} by controlled choice ({promise})"
    if BOUND in rules:
        why = "the evidence does not tell the encoders of its clips"
        if choice is not None:
            why = f"{choice['n_sources']} sources are too few to control choices at {level} %"
        yield f"{_answers(groups, BOUND)} by the {by_bound}: {why}"
    if SEQUENCE in rules:
        why = "their encodes are nearer to each other than those that choices are calibrated on"
        yield f"{_answers(groups, SEQUENCE)} by the {by_bound}, which all dearer ones reach, too: {why}"
    if bound["q"] is None and rules != {CHOICE}:
        yield f"no bound at {level} %: too few sources to calibrate on; ask for less"


def _answers(groups: Sequence[Mapping[str, Json]], rule: str) -> str:
    """`3 answers`, `1 answer (2 without one)`: of the groups by a rule, in how many an encode reaches the target."""
    found = [group["recommended"] is not None for group in groups if group["rule"] == rule]
    without = found.count(False)
    return counted(found.count(True), "answer") + (f" ({without} without one)" if without else "")


def _plain(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figures(document: Mapping[str, Json]) -> list[Figure]:
    """A chart a source: for each encoder mu against the cost, down to its lower bound, and what is recommended."""
    sources = list(dict.fromkeys(group["src"] for group in document["groups"]))[:MAX_CHARTS]
    return [_figure(document, src, [group for group in document["groups"] if group["src"] == src]) for src in sources]


def title(document: Mapping[str, Json]) -> str:
    """Of its picture."""
    more = len({group["src"] for group in document["groups"]}) - MAX_CHARTS
    shading = f"mu down to the {percent(document['confidence'])} % lower bound"
    left_out = f"; {more} more sources are not shown" if more > 0 else ""
    return f"{document['entry']} on {document['corpus']}: {shading}{left_out}"


def _figure(document: Mapping[str, Json], src: str, groups: Sequence[Mapping[str, Json]]) -> Figure:
    target, cost = document["target"], document["cost"]
    chosen = {group["recommended"] for group in groups}
    encodes = [encode for group in groups for encode in group["encodes"]]
    costs = [encode["cost"] for encode in encodes]
    across = _costs(cost["column"], costs, log=cost["cheaper"] == "lower" and min(costs) > 0)
    best = [encode for encode in encodes if encode["clip"] in chosen]
    at_least = target["at_least"]
    series = [
        Series("recommended", _each(best, "cost"), _each(best, "lower"), "stars", tone="ink"),
        Series(f"at least {at_least:g}", (across.low, across.high), (at_least, at_least), "guide"),
    ]
    curves: dict[str, list[Mapping[str, Json]]] = {}
    for encode in encodes:
        curves.setdefault(encode["encoder"], []).append(encode)
    for encoder, of_it in curves.items():
        mu, lower = _each(of_it, "mu"), _each(of_it, "lower")
        series.append(Series(encoder, _each(of_it, "cost"), mu, "line", ends=lower))
    heights = [at_least, *_each(encodes, "mu"), *_each(encodes, "lower")]
    room = 0.05 * (max(heights) - min(heights)) or 1.0
    up = Axis(f"{target['statistic']} {target['name']}", min(heights) - room, max(heights) + room)
    caption = (
        f"{document['entry']}: {target['statistic']} {target['name']} of each encode, shaded down to its lower bound."
    )
    return Figure(src, caption, Chart(across, up, series))


def _each(encodes: Sequence[Mapping[str, Json]], name: str) -> list[float]:
    return [encode[name] for encode in encodes]


def _costs(column: str, costs: Sequence[float], *, log: bool) -> Axis:
    low, high = min(costs), max(costs)
    if log:
        return Axis(column, low / 1.1, high * 1.1, log=True)
    room = 0.04 * (high - low) or 1.0
    return Axis(column, low - room, high + room)
