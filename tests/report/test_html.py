"""test_html.py: the page of `registry report`: what it says, that it loads nothing, that texts stay texts."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, program
from places import ROOT
from sandbox import Sandbox
from thumbs import Thumbs, with_plugin

from registry_tool.errors import InputError
from registry_tool.hookspec import Axis, Chart, EntryView, Figure, Series, Table, hookimpl
from registry_tool.plugins.manager import load
from registry_tool.report.html import render_overview
from registry_tool.values import Evidence
from registry_tool.workflows import overview
from registry_tool.workflows.gate import gate
from registry_tool.workflows.loading import find_entry, usable, verified_entry

MODEL = ROOT / "model" / "registry.json"
VALID = ROOT / "tests" / "examples" / "valid"
VOID = {"meta", "br"}
ATTACK = '</style><script>alert(1)</script><img src=x onerror=alert(1)>" onload="alert(1)\' & '
HOSTILE = ATTACK + "\N{RIGHT-TO-LEFT OVERRIDE}"


class Parsed(HTMLParser):
    """A page's elements and texts; AssertionError where an element is not closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def text(self) -> str:
        """What can be read: everything but the style, on one line."""
        return " ".join(" ".join(text for text in self.texts if "{" not in text or "\n:root" not in text).split())


def report(path: Path, entry_id: str, plugins: Any = None) -> str:
    return render_overview(overview.gather(path, plugins or load(), entry_id))


@cache
def page(path: Path, entry_id: str) -> str:
    """Of a registry that no test changes."""
    return report(path, entry_id)


def shipped() -> list[Any]:
    registry = usable(MODEL).registry
    assert registry is not None
    return [pytest.param(MODEL, entry.id, id=entry.id) for entry in registry.entries]


def examples() -> list[Any]:
    found = []
    for path in sorted(VALID.glob("*/registry.json")):
        registry = usable(path).registry
        assert registry is not None
        found += [pytest.param(path, entry.id, id=path.parent.name) for entry in registry.entries]
    return found


@pytest.mark.parametrize(("path", "entry_id"), [*shipped(), *examples()])
def test_a_page_stands_alone(path: Path, entry_id: str) -> None:
    """Every valid entry has a page: well-formed, with no script, no link and nothing that is loaded from elsewhere."""
    text = page(path, entry_id)
    parsed = Parsed(text)
    assert parsed.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "img", "base", "form", "a", "image"})
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("href", "src", "xlink:href", "action")}
    assert not re.search(r"url\(|@import|https?:", text)
    policies = [a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert entry_id in parsed.text
    assert len(text) < 2**20


@pytest.mark.parametrize(("path", "entry_id"), shipped())
def test_a_page_serves_those_who_do_not_see_it(path: Path, entry_id: str) -> None:
    """Every chart has a title and a description, every table heads for its columns and rows, and ids are unique."""
    parsed = Parsed(page(path, entry_id))
    charts = [a for tag, a in parsed.elements if tag == "svg" and a.get("role") == "img"]
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(charts) == 6
    assert len(ids) == len(set(ids))
    assert all(name in ids for chart in charts for name in chart["aria-labelledby"].split())
    tags = [tag for tag, _ in parsed.elements]
    scopes = [a["scope"] for tag, a in parsed.elements if tag == "th"]
    assert scopes.count("row") == tags.count("tr") - tags.count("table")  # every row but the head
    assert [a["lang"] for tag, a in parsed.elements if tag == "html"] == ["en"]
    focused = [a for _, a in parsed.elements if "tabindex" in a]
    assert [(a["tabindex"], a["role"], a["aria-label"] != "") for a in focused] == [("0", "group", True)] * len(focused)
    assert len(focused) == tags.count("table")  # what may scroll can be scrolled by keys; the order is the page's own
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize(("path", "entry_id"), shipped())
def test_it_says_what_the_gate_says(path: Path, entry_id: str) -> None:
    """State, verdict, each rule with its figure, each reason, and each digest of the chain stand on the page."""
    text = Parsed(page(path, entry_id)).text
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    verdict = gate(path, load(), entry_id).verdict
    assert ("production" in text.split("Verdict")[0]) is entry.is_production
    assert ("✓ PROMOTE" in text, "✕ HOLD" in text) == (verdict.promotes, not verdict.promotes)
    for rule in verdict.policy.rules:
        met = "✓ met" if rule.holds(verdict.metrics[rule.metric]) else "✕ missed"
        assert f"{rule.metric} {verdict.metrics[rule.metric]:.6f} {rule.op} {rule.bound:g} {met}" in text
    for reason in verdict.reasons:
        assert reason in text
    with verified_entry(loaded, load(), entry_id) as view:
        files = {name: (artifact.sha256, len(view.read(name))) for name, artifact in view.artifacts.items()}
        corpus = (view.manifest or {})["corpus"]
    for name, (digest, size) in files.items():
        assert re.search(rf"{re.escape(name)} {size:,} {digest}", text), name
    assert {str(verdict.evidence_sha256), corpus["rows_sha256"], corpus["sha256"]} <= set(text.split())
    if entry.promotion:
        assert entry.promotion["sha256"] in text
    assert "finds nothing wrong with this entry" in text


def test_what_the_gate_can_see_is_on_the_page() -> None:
    """How often the rules would hold a model as good as this one, what rise they see, and the best baseline."""
    judgement = gate(MODEL, load(), "fr_vmaf_ensemble_v1")
    text = Parsed(page(MODEL, "fr_vmaf_ensemble_v1")).text.split("What the gate can see")[1].split("Evidence")[0]
    assert judgement.evidence is not None
    assert [note for note in judgement.evidence.notes if note in text] == [*judgement.evidence.notes]
    for words in ("exactly this good is held", "smallest rise in RMSE", "best baseline"):
        assert words in text


def test_an_unsigned_entry_says_so(production: Sandbox) -> None:
    """Without a signature the page says that there is none, and how many the policy asks for."""
    assert "pins no signature and no attestation; its policy asks for none." in page_text(production)
    production.edit(_ask_for_signers)
    assert "pins no signature and no attestation; its policy asks for 2 signers." in page_text(production)


def page_text(sandbox: Sandbox) -> str:
    return Parsed(report(sandbox.path, "tiny")).text


def _ask_for_signers(document: dict[str, Any]) -> None:
    document["policies"]["fr_ensemble"]["signatures"] = 2


def test_the_picture_of_the_documents_is_of_the_page() -> None:
    """What makes docs/report.png shows the page from its beginning, and from a figure that the page has."""
    spec = importlib.util.spec_from_file_location("generate_picture", ROOT / "docs" / "generate_picture.py")
    assert spec is not None
    assert spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    text = page(MODEL, picture.ENTRY)
    beginning, figure = re.findall(r'src="report\.html([^"]*)"', picture.halves(text))
    shown = re.search(rf'id="{figure[1:]}".*?<h3>(.*?)</h3>', text)
    assert shown is not None
    assert (beginning, shown[1]) == ("", picture.SHOWN)


def test_a_long_table_scrolls_under_its_head(thumb: Sandbox) -> None:
    """A table of 200 rows has all of them, in a part of the page of its own; one of five has no such part."""

    def figures(self: object, view: EntryView) -> list[Figure]:
        return [
            Figure(f"of {n}", "c", table=Table([("source", "x"), *((f"s{i}", "1") for i in range(n))]))
            for n in (5, 200)
        ]

    plugins = with_plugin(type("Long", (Thumbs,), {"registry_figures": hookimpl(figures)})())
    parsed = Parsed(report(thumb.path, "t", plugins))
    css = {a["aria-label"]: a["class"] for _, a in parsed.elements if a.get("aria-label", "").startswith("of ")}
    assert css == {"of 5": "scroll", "of 200": "scroll tall"}
    assert {"s0", "s199"} <= set(parsed.texts)


def test_the_same_entry_gives_the_same_bytes(production: Sandbox, tmp_path: Path) -> None:
    """Two processes with other hash seeds, from other folders, to a file and to standard output, write one page."""
    copy = production.copy(tmp_path / "elsewhere")
    out = tmp_path / "report.html"
    program("report", "tiny", "--registry", production.path, "-o", out, env=os.environ | {"PYTHONHASHSEED": "1"})
    printed = program("report", "tiny", "--registry", copy.path, env=os.environ | {"PYTHONHASHSEED": "2"}).stdout
    assert out.read_text(encoding="utf-8") == printed


def test_what_cannot_be_trusted_is_not_shown(production: Sandbox, registry: Program, tmp_path: Path) -> None:
    """A file whose digest does not hold: one line, exit 1, no page; an unknown id: exit 2."""
    evidence = production.artifacts / "evidence" / "oof.npz"
    evidence.write_bytes(evidence.read_bytes() + b"\0")
    out = tmp_path / "report.html"
    ran = registry("report", "tiny", "--registry", production.path, "-o", out)
    assert (ran.code, ran.out, ran.err.count("\n"), out.exists()) == (1, "", 1, False)
    assert "oof.npz" in ran.err
    assert registry("report", "nobody", "--registry", production.path).code == 2


def test_production_without_right_is_no_green_page(production: Sandbox) -> None:
    """A verdict that judges another manifest, or a policy loosened since, is an error on the page."""
    production.forge_verdict(manifest_sha256="0" * 64)
    text = Parsed(report(production.path, "tiny")).text
    assert "✕ 1 error" in text
    assert "verdict-other" in text
    assert "✓ validates" not in text


def test_a_raised_bar_holds_production(production: Sandbox) -> None:
    """Production that its registry's policy no longer promotes: HOLD with the reason."""
    production.edit(_raise_bar)
    text = Parsed(report(production.path, "tiny")).text
    assert "✕ HOLD" in text
    assert "1 of 1 rules missed" in text
    assert "n_seeds >= 50: found 3" in text


def _raise_bar(document: dict[str, Any]) -> None:
    document["policies"]["fr_ensemble"] = {"rules": [{"metric": "n_seeds", "op": ">=", "bound": 50}]}


def test_what_a_manifest_says_is_spelt_out(production: Sandbox) -> None:
    """Corpus, recipe and environment stand in the chain in words; nothing is `null`, and long lists fold away."""
    text = Parsed(report(production.path, "tiny")).text
    for words in ("record none", "decoupled_weight_decay false", "epochs 30", "seeds 0, 1, 2", "trainer compiled"):
        assert words in text.split("Provenance")[1]


def test_random_rows_are_held(random_rows: Sandbox) -> None:
    """A run on random rows has a page that says so."""
    assert "the model was trained on random rows" in Parsed(report(random_rows.path, "tiny")).text


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("manual", ["decided by hand", "compared by eye"]),
        ("migrated", ["not judged", "it came from the registry with the sha256"]),
        ("demoted", ["smoke: not for use", "It was production and was taken back"]),
        ("smoke", ["smoke: not for use", "it pins no evidence"]),
        ("version-1-production", ["not judged", "its entry names no promotion"]),
    ],
)
def test_kinds_without_a_gate(example: str, words: list[str]) -> None:
    """A single model's page says by what right it is what it is, and shows the graph's inputs and outputs."""
    text = Parsed(report(VALID / example / "registry.json", "m")).text
    for word in [*words, "input features float32 N x 6", "output score float32 N x 1", "m.onnx"]:
        assert word in text


def test_a_kind_that_nobody_owns(thumb: Sandbox) -> None:
    """The page is written, and the finding stands on it."""
    text = Parsed(report(thumb.path, "t")).text
    assert "kind-unknown" in text
    assert "✕ 1 error" in text


class Hostile(Thumbs):
    """A kind whose every text is an attack."""

    @hookimpl
    def registry_gate(self, view: EntryView, request: object) -> Evidence:
        return Evidence({HOSTILE: 0.4, "score": 0.4}, (HOSTILE,), sha256="0" * 64)

    @hookimpl
    def registry_figures(self, view: EntryView) -> list[Figure]:
        axis = Axis(HOSTILE, 0, 1)
        marks = ("points", "line", "guide")
        chart = Chart(axis, axis, [Series(HOSTILE, [0.2, 0.4], [0.1, 0.9], mark) for mark in marks])
        table = Table([(HOSTILE, "b"), (HOSTILE, "1")], {(1, 1): 0.5}, [(HOSTILE, 0.5)])
        return [Figure(HOSTILE, HOSTILE, chart, table)]


def test_hostile_texts_stay_texts(thumb: Sandbox) -> None:
    """Markup in a description, a licence or anything a plugin says is shown as it is typed, and does nothing."""
    thumb.edit_entry(description=ATTACK, license=ATTACK)
    written = report(thumb.path, "t", with_plugin(Hostile()))
    parsed = Parsed(written)
    assert parsed.tags.isdisjoint({"script", "img"})
    assert not {name for _, attributes in parsed.elements for name in attributes if name.startswith("on")}
    assert parsed.texts.count(ATTACK) == 2
    assert parsed.texts.count(ATTACK + "\\u202e") >= 10  # what would turn the page's text round is spelt out
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in written
    assert [tag for tag, _ in parsed.elements].count("style") == 1


def test_evidence_that_cannot_be_shown(thumb: Sandbox) -> None:
    """What the plugin objects to stands in the place of its figures."""

    def figures(self: object, view: EntryView) -> list[Figure]:
        raise InputError("t: no predictions, expected some: train it again")

    plugins = with_plugin(type("Poor", (Thumbs,), {"registry_figures": hookimpl(figures)})())
    assert "It cannot be shown: t: no predictions" in Parsed(report(thumb.path, "t", plugins)).text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Table([]),
        lambda: Table([("a", "b"), ("1",)]),
        lambda: Table([("a",)], {(0, 0): 1.5}),
        lambda: Table([("a",)], legend=[("a", math.nan)]),
        lambda: Axis("a", 1, 1),
        lambda: Axis("a", 0, math.inf),
        lambda: Axis("a", 0, 1, log=True),
        lambda: Series("a", [1], [1, 2]),
        lambda: Series("a", [1], [1], bars=[1, 2]),
        lambda: Series("a", [1], [math.nan]),
        lambda: Series("a", [1], [1], mark="pie"),
    ],
)
def test_figures_that_mean_nothing(wrong: Any) -> None:
    """A figure is checked when it is made: shapes, shades, bounds, finite numbers, known marks."""
    with pytest.raises(ValueError, match="found"):
        wrong()
