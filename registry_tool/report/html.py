"""html.py: an entry as one self-contained page: no script, nothing loaded, every text escaped. Opens no file.

What the page says is put together here, as values; how it looks is in templates/.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry_tool.documents.manifest import Manifest
from registry_tool.findings import Severity, errors_of
from registry_tool.hookspec import Figure
from registry_tool.report import svg, templating
from registry_tool.report.audit import claimed
from registry_tool.report.text import part, plain, predicted
from registry_tool.toolkit import is_numeric
from registry_tool.values import Artifact, Json, Verdict, counted
from registry_tool.version import __version__
from registry_tool.workflows.overview import Overview

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
OUTCOME_MARKS = {"good": "✓ ", "bad": "✕ ", "note": ""}
SEVERITY_TONES = {Severity.ERROR: "bad", Severity.WARNING: "note", Severity.NOTE: "soft"}
STRONGEST_SHADE = 0.85  # of a cell's colour: text on it stays readable
SHORT_LIST = 8  # items of a list that are shown in place; longer ones fold away


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    code: bool = False
    tone: str = ""
    shade: float | None = None


@dataclass(frozen=True, slots=True)
class PageTable:
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns are aligned to the right."""
        return [is_numeric([row[column].text for row in self.rows]) for column in range(len(self.header))]


@dataclass(frozen=True, slots=True)
class Fact:
    """items: a document that folds away behind the text."""

    name: str
    text: str
    code: bool = False
    items: Json = None


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    tone: str


@dataclass(frozen=True, slots=True)
class Right:
    """By what right the entry is what the registry says it is: a sentence that ends in a quote or a name."""

    text: str
    quote: str | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    promotes: bool
    missed: str
    reasons: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str]
    incumbent: str | None
    rules: PageTable
    others: PageTable


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure; legend: of its table's shades."""

    title: str
    caption: str
    drawing: svg.Drawing | None
    table: PageTable | None
    legend: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class FindingRow:
    severity: str
    tone: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """Of the chain from the registry's entry down to the data."""

    title: str
    digest: str = ""
    folder: str = ""
    files: PageTable | None = None
    facts: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True)
class Page:
    id: str
    title: str
    description: str
    badges: Sequence[Badge]
    facts: Sequence[Fact]
    right: Right
    by_hand: bool
    unjudged: str
    verdict: Judged | None
    figures: Sequence[Shown]
    findings: Sequence[FindingRow]
    signed: PageTable
    signers: str
    history: PageTable
    entry: Json
    chain: Sequence[Link]
    made: str


def render_overview(overview: Overview) -> str:
    """The same overview gives the same bytes: no time, no path of this machine."""
    return templating.render("page.html.jinja", page=_page(overview), security=CONTENT_SECURITY_POLICY)


def _page(overview: Overview) -> Page:
    entry, by_hand = overview.entry, overview.policy.gate == "manual"
    state = "smoke" if entry.smoke else "production"
    verdict = overview.judgement.verdict if overview.judgement else None
    evidence = overview.judgement.evidence if overview.judgement else None
    versions = ", ".join(f"{name} {version}" for name, version in sorted(overview.plugins.items()))
    return Page(
        id=entry.id,
        title=f"{entry.id}: {state}, {_decision(overview)[0]}",
        description=str(entry.document.get("description", "")),
        badges=list(_badges(overview)),
        facts=list(_facts(overview)),
        right=_right(overview),
        by_hand=by_hand,
        unjudged="" if verdict else overview.unjudged,
        verdict=_judged(verdict, evidence.notes if evidence else ()) if verdict else None,
        figures=[_shown(figure, f"f{index}") for index, figure in enumerate(overview.figures)],
        findings=[FindingRow(str(f.severity), SEVERITY_TONES[f.severity], f.code, str(f)) for f in overview.findings],
        signed=_signed(overview),
        signers=counted(needed, "signer") if (needed := overview.policy.signatures_needed) else "",
        history=_history(overview),
        entry=entry.to_dict(),
        chain=list(_chain(overview)),
        made=f"Written by registry-tool {__version__} ({versions}) from the pinned files alone.",
    )


# ---- what it is, and how it is judged -----------------------------------------------------------------------------


def _decision(overview: Overview) -> tuple[str, str]:
    """The word for how it is judged, and its tone."""
    if overview.policy.gate == "manual":
        return "decided by hand", "note"
    if overview.judgement is None:
        return "not judged", "note"
    return overview.judgement.verdict.decision, "good" if overview.judgement.verdict.promotes else "bad"


def _badges(overview: Overview) -> Iterator[Badge]:
    word, tone = _decision(overview)
    errors = len(errors_of(overview.findings))
    if overview.entry.smoke:
        yield Badge("smoke: not for use", "note")
    else:
        yield Badge("production", "bad" if errors or tone == "bad" else "good")
    yield Badge(OUTCOME_MARKS[tone] + word, tone)
    yield Badge(f"✕ {counted(errors, 'error')}", "bad") if errors else Badge("✓ validates", "good")


def _facts(overview: Overview) -> Iterator[Fact]:
    entry, facts = overview.entry, Manifest.of(overview.manifest)
    yield Fact("Kind", entry.kind, code=True)
    yield Fact("Licence", str(entry.document.get("license", "not recorded")))
    if facts.target is not None:
        yield Fact("Predicts", predicted(facts.target))
    if facts.n_members is not None:
        yield Fact("Members", str(facts.n_members))
    if facts.corpus is not None:
        yield Fact("Trained on", f"{facts.corpus.n_rows} rows of {len(facts.corpus.sources)} sources")
    if facts.calibration is not None:
        yield Fact("Calibrated on", str(facts.calibration))


def _right(overview: Overview) -> Right:
    entry, promotion = overview.entry, part(overview.entry.document, "promotion")
    if entry.smoke:
        if reason := part(entry.document, "demotion").get("reason"):
            return Right("It was production and was taken back: ", quote=str(reason))
        return Right("Smoke: it is registered and checked, and no runtime should use it.")
    if promotion.get("manual"):
        reason = str(promotion.get("reason", ""))
        return Right("Production by a person's decision, as its policy has it: ", quote=reason)
    if "imported_from" in promotion:
        since = "Production since before its registry had promotions; it came from the registry with the sha256 "
        return Right(since, code=str(promotion["imported_from"]))
    if "verdict" in promotion:
        return Right("Production, on the verdict that its entry pins: ", code=str(promotion["verdict"]))
    return Right("Production, and its entry names no promotion: version 1 of a registry knows none.")


def _judged(verdict: Verdict, notes: Sequence[str]) -> Judged:
    rules = list(_rules(verdict))
    missed = sum(not met for *_, met in rules)
    ruled = {rule.metric for rule in verdict.policy.rules}
    results = {True: Cell("✓ met", tone="good"), False: Cell("✕ missed", tone="bad")}
    others = [(name, f"{value:.6g}") for name, value in sorted(verdict.metrics.items()) if name not in ruled]
    return Judged(
        verdict.promotes,
        f"{missed} of {len(rules)} rules missed" if rules else "the policy has no rules",
        verdict.reasons,
        verdict.warnings,
        notes,
        verdict.policy.incumbent,
        PageTable(
            ("metric", "found", "rule", "result"),
            [(Cell(name, code=True), Cell(found), Cell(asked), results[met]) for name, found, asked, met in rules],
        ),
        PageTable(("metric", "found"), [(Cell(name, code=True), Cell(found)) for name, found in others]),
    )


def _rules(verdict: Verdict) -> Iterator[tuple[str, str, str, bool]]:
    for rule in verdict.policy.rules:
        value = verdict.metrics.get(rule.metric)
        met = value is not None and rule.holds(value)
        yield rule.metric, "absent" if value is None else f"{value:.6f}", f"{rule.op} {rule.bound:g}", met


# ---- what its kind shows ------------------------------------------------------------------------------------------


def _shown(figure: Figure, name: str) -> Shown:
    drawing = svg.draw(figure.chart, name, figure.title) if figure.chart is not None else None
    if figure.table is None:
        return Shown(figure.title, figure.caption, drawing, None, ())
    header, *rows = figure.table.rows
    shades = {cell: STRONGEST_SHADE * shade for cell, shade in figure.table.shades.items()}
    cells = [
        [Cell(text, shade=shades.get((number, column))) for column, text in enumerate(row)]
        for number, row in enumerate(rows, start=1)
    ]
    legend = [(text, STRONGEST_SHADE * shade) for text, shade in figure.table.legend]
    return Shown(figure.title, figure.caption, drawing, PageTable(header, cells), legend)


# ---- who signed and changed it ------------------------------------------------------------------------------------


def _signed(overview: Overview) -> PageTable:
    """Signatures and attestations, and whether a signer of the policy made them."""
    rows = []
    for one in overview.signed:
        known = one.signer is not None
        signer = f"✓ {one.signer}" if known else f"{claimed(one.data) or 'unknown'}, not verified: {one.reason}"
        tone = Cell(signer, tone="good" if known else "note")
        rows.append((Cell(one.path, code=True), Cell(one.words), tone, Cell(one.sha256, code=True)))
    return PageTable(("file", "over", "signed by", "sha256"), rows)


def _history(overview: Overview) -> PageTable:
    events = overview.history.events if overview.history is not None else ()
    rows = []
    for event in events:
        tone = "bad" if event.who.status == "B" else "good" if event.who.status == "G" else ""
        people = (Cell(event.who.author), Cell(event.who.committer), Cell(event.who.signed, tone=tone))
        rows.append((Cell(event.when), Cell(event.action), *people, Cell(event.commit[:12], code=True)))
    return PageTable(("when (UTC)", "what", "author", "committer", "commit signature", "commit"), rows)


# ---- where it comes from ------------------------------------------------------------------------------------------


def _chain(overview: Overview) -> Iterator[Link]:
    """From the registry's entry down to the data, each link with the digest that holds the next."""
    entry, manifest = overview.entry, overview.manifest
    if overview.verdict is not None:
        yield Link("Its verdict", files=_files([overview.verdict]))
    first = [pin for pin in overview.artifacts if pin.path == entry.path]
    others = [pin for pin in overview.artifacts if pin.path != entry.path]
    yield Link("Its manifest" if entry.manifest else "Its model", files=_files(first))
    if others:
        folder = posixpath.dirname(entry.path) if entry.manifest else ""
        yield Link(counted(len(others), "pinned file"), "", folder, _files(others, folder))
    if overview.judgement is not None and (digest := overview.judgement.verdict.evidence_sha256):
        yield Link("The evidence, as one digest", digest)
    if corpus := part(manifest, "corpus"):
        yield Link("The corpus", facts=list(_document(corpus)))
    if recipe := part(manifest, "recipe"):
        yield Link("The recipe", str(manifest.get("recipe_sha256") or ""), facts=list(_document(recipe)))
    if environment := Manifest.of(manifest).environment:
        yield Link("The environment it was trained in", facts=list(_document(environment)))


def _files(pins: Sequence[Artifact], folder: str = "") -> PageTable:
    """Files with size and digest; their paths are relative to the folder, where they are in it."""
    rows = [
        (Cell(pin.path.removeprefix(f"{folder}/"), code=True), Cell(f"{pin.size or 0:,}"), Cell(pin.sha256, code=True))
        for pin in pins
    ]
    return PageTable(("file", "bytes", "sha256"), rows)


def _document(document: Mapping[str, Json]) -> Iterator[Fact]:
    """A part of the manifest, whose fields are its plugin's own: short values in place, long ones behind a click."""
    for name, value in document.items():
        if isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) > SHORT_LIST):
            yield Fact(name, f"{len(value)} items", items=value)
        elif value is None:
            yield Fact(name, "none")
        else:
            text = ", ".join(map(plain, value if isinstance(value, list | tuple) else [value]))
            yield Fact(name, text, code="sha256" in name)
