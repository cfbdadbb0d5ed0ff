"""html.py: a dossier as one self-contained page: no script, nothing loaded, every text escaped. Opens no file."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from registry_tool import __version__
from registry_tool.hookspec import Figure, Table
from registry_tool.report import svg
from registry_tool.report.markup import Markup, el, escape, join
from registry_tool.report.style import STYLE
from registry_tool.report.text import part, plain
from registry_tool.values import Artifact, Json, Severity, Verdict
from registry_tool.workflows.overview import Dossier

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
MARKS = {"good": "✓ ", "bad": "✕ ", "note": ""}
NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ?%)?|-|nan|absent")  # how a cell looks in a column of numbers


def page(dossier: Dossier) -> str:
    """The same dossier gives the same bytes: no time, no path of this machine."""
    entry = dossier.entry
    state = "smoke" if entry.smoke else "production"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{entry.id}: {state}, {_decision(dossier)[0]}"),
        el("style", Markup(STYLE)),
    )
    main = el("main", *_summary(dossier), *_verdict(dossier), *_evidence(dossier), *_checks(dossier), *_chain(dossier))
    versions = ", ".join(f"{name} {version}" for name, version in sorted(dossier.plugins.items()))
    made = f"Written by registry-tool {__version__} ({versions}) from the pinned files alone."
    footer = el("footer", made, class_="soft")
    return f"<!doctype html>\n{el('html', head, el('body', main, footer), lang='en')}\n"


# ---- what it is, and how it is judged -----------------------------------------------------------------------------


def _summary(dossier: Dossier) -> Iterator[Markup]:
    entry, manifest = dossier.entry, dossier.manifest
    word, tone = _decision(dossier)
    errors = sum(finding.severity is Severity.ERROR for finding in dossier.findings)
    doubtful = errors or tone == "bad"
    badges = [("smoke: not for use", "note") if entry.smoke else ("production", "bad" if doubtful else "good")]
    badges.append((MARKS[tone] + word, tone))
    badges.append((f"✕ {errors} error{'s' * (errors != 1)}", "bad") if errors else ("✓ validates", "good"))
    yield el("h1", entry.id)
    yield el("ul", *(el("li", text, class_=tone) for text, tone in badges), class_="badges")
    if description := entry.document.get("description"):
        yield el("p", description, class_="lead")
    target, corpus = part(manifest, "target", name=str, range=list), part(manifest, "corpus", sources=list)
    facts: dict[str, object] = {"Kind": el("code", entry.kind)}
    facts["Licence"] = entry.document.get("license", "not recorded")
    if target.get("range"):
        facts["Predicts"] = f"{target['name']}, {' to '.join(map(plain, target['range']))}"
    if isinstance(members := manifest.get("members"), list):
        facts["Members"] = len(members)
    if corpus:
        facts["Trained on"] = f"{plain(corpus.get('n_rows'))} rows of {len(corpus['sources'])} sources"
    yield _facts(facts)


def _decision(dossier: Dossier) -> tuple[str, str]:
    """The word for how it is judged, and its tone."""
    if dossier.policy.gate == "manual":
        return "decided by hand", "note"
    if dossier.judgement is None:
        return "not judged", "note"
    return dossier.judgement.verdict.decision, "good" if dossier.judgement.verdict.promotes else "bad"


def _verdict(dossier: Dossier) -> Iterator[Markup]:
    yield el("h2", "Verdict")
    yield el("p", _right(dossier))
    by_hand = dossier.policy.gate == "manual"
    if by_hand:
        yield el("p", "The policy of its kind leaves the decision to a person, who gives a reason.")
    elif dossier.judgement is None:
        yield el("p", f"Nothing could be judged: {dossier.unjudged}.")
    if dossier.judgement is None:
        return
    verdict = dossier.judgement.verdict
    how = "judged again for this page, from the pinned evidence"
    if verdict.promotes:
        yield el("p", el("strong", "PROMOTE", class_="good"), f", {how}: every rule of the policy is met.")
    elif not by_hand:
        missed = sum(not met for *_, met in _rules(verdict))
        rules = f"{missed} of {len(verdict.policy.rules)} rules missed" if verdict.policy.rules else "nothing to go by"
        yield el("p", el("strong", "HOLD", class_="bad"), f", {how}: {rules}. The reasons:")
        yield el("ul", *(el("li", reason) for reason in verdict.reasons), class_="reasons")
    if verdict.policy.incumbent:
        yield el("p", "Compared with ", el("code", verdict.policy.incumbent), ", as the policy says.")
    if verdict.policy.rules:
        results = {True: el("span", "✓ met", class_="good"), False: el("span", "✕ missed", class_="bad")}
        rows = [(el("code", name), found, asked, results[met]) for name, found, asked, met in _rules(verdict)]
        yield _table(("metric", "found", "rule", "result"), rows)
    ruled = {rule.metric for rule in verdict.policy.rules}
    metrics = sorted(verdict.metrics.items())
    if others := [(el("code", name), f"{value:.6g}") for name, value in metrics if name not in ruled]:
        yield _details(f"{len(others)} other metrics", _table(("metric", "found"), others))


def _right(dossier: Dossier) -> Markup:
    """By what right the entry is what the registry says it is."""
    entry, promotion = dossier.entry, part(dossier.entry.document, "promotion")
    if entry.smoke:
        if reason := part(entry.document, "demotion").get("reason"):
            return join("It was production and was taken back: ", el("q", reason))
        return join("Smoke: it is registered and checked, and no runtime should use it.")
    if promotion.get("manual"):
        return join("Production by a person's decision, as its policy has it: ", el("q", promotion.get("reason", "")))
    if "imported_from" in promotion:
        return join("Production since before its registry had promotions; it came from the registry with the sha256 ",
                    el("code", promotion["imported_from"]), ".")  # fmt: skip
    if "verdict" in promotion:
        return join("Production, on the verdict that its entry pins: ", el("code", promotion["verdict"]), ".")
    return join("Production, and its entry names no promotion: version 1 of a registry knows none.")


def _rules(verdict: Verdict) -> Iterator[tuple[str, str, str, bool]]:
    for rule in verdict.policy.rules:
        value = verdict.metrics.get(rule.metric)
        met = value is not None and rule.holds(value)
        yield rule.metric, "absent" if value is None else f"{value:.6f}", f"{rule.op} {rule.bound:g}", met


# ---- what its kind shows, and what validate finds -----------------------------------------------------------------


def _evidence(dossier: Dossier) -> Iterator[Markup]:
    if dossier.figures:
        yield el("h2", "Evidence" if dossier.judgement else "Model")
        figures = (_figure(figure, f"f{index}") for index, figure in enumerate(dossier.figures))
        yield el("div", *figures, class_="figures")


def _figure(figure: Figure, name: str) -> Markup:
    parts = [el("figcaption", el("h3", figure.title), figure.caption)]
    if figure.chart is not None:
        parts.append(svg.draw(figure.chart, name, figure.title))
    if figure.table is not None:
        table = _shaded(figure.table)
        parts.append(table if figure.chart is None else _details("The numbers", table))
    return el("figure", *parts, class_="wide" if figure.chart is None else None)


def _shaded(table: Table) -> Markup:
    header, *rows = table.rows
    shades = {(number - 1, column): 0.85 * shade for (number, column), shade in table.shades.items()}
    swatches = (
        el("li", el("span", class_="swatch", style=f"--shade:{0.85 * shade:.2f}"), text) for text, shade in table.legend
    )
    legend = el("ul", *swatches, class_="legend") if table.legend else ""
    return join(legend, _table(header, rows, shades))


def _checks(dossier: Dossier) -> Iterator[Markup]:
    yield el("h2", "Checks")
    command = el("code", "registry validate")
    if not dossier.findings:
        yield el("p", command, " finds nothing wrong with this entry.")
        return
    tones = {Severity.ERROR: "bad", Severity.WARNING: "note", Severity.NOTE: "soft"}
    yield el("p", command, " finds:")
    items = (
        el("li", el("strong", item.severity, class_=tones[item.severity]), " ", el("code", item.code), f": {item}")
        for item in dossier.findings
    )
    yield el("ul", *items, class_="reasons")


# ---- where it comes from ------------------------------------------------------------------------------------------


def _chain(dossier: Dossier) -> Iterator[Markup]:
    """From the registry's entry down to the data, each link with the digest that holds the next."""
    entry, manifest = dossier.entry, dossier.manifest
    yield el("h2", "Provenance")
    yield el("p", "Each link names the next by its sha256. All of them held when this page was written.")
    stands = _details("The entry as it stands", el("pre", el("code", _pretty(entry.to_dict()))))
    links = [_link("The entry in the registry", stands)]
    if dossier.verdict is not None:
        links.append(_link("Its verdict", _files([dossier.verdict])))
    first = [pin for pin in dossier.artifacts if pin.path == entry.path]
    others = [pin for pin in dossier.artifacts if pin.path != entry.path]
    name = "Its manifest" if entry.manifest else "Its model"
    links.append(_link(name, _files(first)))
    if others:
        folder = posixpath.dirname(entry.path) if entry.manifest else ""
        where = [el("p", "In the manifest's folder, ", el("code", folder), ":")] if folder else []
        links.append(_link(f"{len(others)} pinned file{'s' * (len(others) != 1)}", *where, _files(others, folder)))
    if dossier.judgement is not None and (digest := dossier.judgement.verdict.evidence_sha256):
        links.append(_link("The evidence, as one digest", _digest(digest)))
    if corpus := part(manifest, "corpus"):
        links.append(_link("The corpus", _document(corpus)))
    if recipe := part(manifest, "recipe"):
        digest = manifest.get("recipe_sha256")
        links.append(_link("The recipe", *([_digest(digest)] if isinstance(digest, str) else []), _document(recipe)))
    if isinstance(made := manifest.get("environment"), list) and all(isinstance(item, Mapping) for item in made):
        facts = {str(item.get("name")): item.get("version") for item in made}
        links.append(_link("The environment it was trained in", _document(facts)))
    yield el("ol", *links, class_="chain")


def _link(title: str, *parts: object) -> Markup:
    return el("li", el("h3", title), *parts)


def _files(pins: Iterable[Artifact], folder: str = "") -> Markup:
    """Files with size and digest; their paths are relative to the folder, where they are in it."""
    rows = ((pin.path.removeprefix(f"{folder}/"), f"{pin.size or 0:,}", pin.sha256) for pin in pins)
    return _table(("file", "bytes", "sha256"), [(el("code", name), size, el("code", sha)) for name, size, sha in rows])


def _digest(digest: str) -> Markup:
    return el("p", el("code", digest))


def _document(document: Mapping[str, Json]) -> Markup:
    """A part of the manifest, whose fields are its plugin's own: short values in place, long ones behind a click."""
    facts: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) > 8):
            facts[name] = _details(f"{len(value)} items", el("pre", el("code", _pretty(value))))
        else:
            text = (
                "none"
                if value is None
                else ", ".join(map(plain, value if isinstance(value, list | tuple) else [value]))
            )
            facts[name] = el("code", text) if "sha256" in name else text
    return _facts(facts)


def _pretty(value: Json) -> Markup:
    return Markup("\n".join(escape(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n")))


# ---- parts --------------------------------------------------------------------------------------------------------


def _facts(facts: Mapping[str, object]) -> Markup:
    return el("dl", *(join(el("dt", name), el("dd", value)) for name, value in facts.items()))


def _details(summary: str, *parts: object) -> Markup:
    return el("details", el("summary", summary), *parts)


def _table(
    header: Sequence[object], rows: Sequence[Sequence[object]], shades: Mapping[tuple[int, int], float] | None = None
) -> Markup:
    """The first column names the rows; a column of numbers stands to the right."""
    right = ["number" if all(NUMBER.fullmatch(str(row[i])) for row in rows) else None for i in range(len(header))]
    head = (el("th", cell, scope="col", class_=side) for cell, side in zip(header, right, strict=True))
    body = (
        el("tr", el("th", row[0], scope="row"), *(
            _cell(cell, side, (shades or {}).get((number, column)))
            for column, (cell, side) in enumerate(zip(row[1:], right[1:], strict=True), start=1)
        ))
        for number, row in enumerate(rows)
    )  # fmt: skip
    return el("div", el("table", el("thead", el("tr", *head)), el("tbody", *body)), class_="scroll", tabindex="0")


def _cell(cell: object, side: str | None, shade: float | None) -> Markup:
    if shade is None:
        return el("td", cell, class_=side)
    return el("td", cell, class_=f"{side or ''} heat".strip(), style=f"--shade:{shade:.2f}")
