"""test_golden.py: what every command prints, in every format, on the examples, the frozen registry and `model/`.

`make golden` writes tests/golden/ anew, after words were changed on purpose: look at the difference, and commit it. A
file is the transcript of a scene: what was typed, the exit code, standard output (indented), standard error (!), files
that were written (+). Masked are digests, versions, times, temporary folders, and figures of what may be trained anew.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from certificates import key_pair
from command_line import run

from registry_tool.cli import cli
from registry_tool.report import reporters

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
EXAMPLES = TESTS / "examples"
FROZEN = TESTS / "frozen" / "5e6a11a"
WRITE = os.environ.get("GOLDEN") == "write"

VALID = sorted(f"valid/{path.name}" for path in (EXAMPLES / "valid").iterdir())
INVALID = sorted(f"invalid/{path.name}" for path in (EXAMPLES / "invalid").iterdir())
SOME = ("digest-mismatch", "evidence-unusable", "folder-unused", "json-syntax", "kind-unknown", "onnx-not-finite")
SOME_INVALID = tuple(f"invalid/{name}" for name in SOME)
# The commands of which no run that succeeds is here, and why.
FAILING = {"fr-ensemble corpus build": "it needs an ffmpeg and minutes; tests/fr_ensemble runs it"}

MASKS = (
    (re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{12})\b"), "<hex>"),
    (re.compile(r"\b\d+\.\d+\.\d+(?:[-+.]?\w+)*"), "<version>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?"), "<time>"),
)
FIGURE = re.compile(
    r"(?<![\w.-])-?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)(?![\w.])|(?<= = )-?\d+(?![\w.])|(?<=\brandom)\d+"
)
PADDING = re.compile(r"(?<=\S) {2,}")


# ---- the transcript ---------------------------------------------------------------------------------------------


class Scene:
    """A scratch folder in a git repository of its own, and the transcript of what was typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines = folder.resolve(), list[str]()
        for name in ("valid", "invalid"):
            shutil.copytree(EXAMPLES / name, self.folder / name, symlinks=True)
        shutil.copytree(FROZEN, self.folder / "frozen")
        shutil.copytree(TESTS.parent / "model", self.folder / "model")
        self.git("init", "--quiet", "--initial-branch", "main")

    def run(self, *arguments: str, trained: bool = False, page: bool = False, files: Sequence[str] = ()) -> None:
        """Type `registry ARGUMENTS`. trained: its figures may change; page: it is HTML; files: what to show of it."""
        ran = run(self.folder, *arguments)
        self.lines += [f"$ registry {shlex.join(arguments)}", f"exit {ran.code}"]
        self._add("  ", words_of_page(ran.out) if page else ran.out, trained)
        self._add("! ", ran.err, trained)
        for name in files:
            path = self.folder / name
            self.lines.append(f"+ {self._masked(name, trained)}{'' if path.exists() else ': not there'}")
            if path.suffix in (".json", ".csv", ".jsonl", ".md", ".sarif", ".xml") and path.exists():
                self._add("+   ", path.read_text(encoding="utf-8"), trained)
        self.lines.append("")

    def git(self, *arguments: str, day: int = 1) -> None:
        """Run git as somebody, on a day of January 2026."""
        date = f"2026-01-{day:02}T12:00:00+00:00"
        environment = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_DATE": date,
        }
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, env=environment, check=True, capture_output=True)

    def commit(self, day: int, message: str) -> None:
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--message", message, day=day)

    def _add(self, prefix: str, text: str, trained: bool) -> None:
        self.lines += [f"{prefix}{line}".rstrip() for line in self._masked(text, trained).splitlines()]

    def _masked(self, text: str, trained: bool) -> str:
        text = text.replace(str(self.folder), "<folder>")
        for pattern, mask in MASKS:
            text = pattern.sub(mask, text)
        if not trained:
            return text
        try:
            return json.dumps(shape(json.loads(text)), indent=1, ensure_ascii=False)
        except ValueError:
            rows = [PADDING.sub("  ", FIGURE.sub("#", line)) for line in text.splitlines()]
            return "\n".join(folded(rows))


def shape(value: Any) -> Any:
    """A document without its figures: a float is #, and what repeats in a list is said once."""
    if isinstance(value, dict):
        if value.keys() == {"name", "version"}:  # of the environment
            return {"name": value["name"], "version": "<version>"}
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return folded([shape(item) for item in value])
    return "#" if isinstance(value, float) else value


def folded(items: list[Any]) -> list[Any]:
    """Runs of equal items, each once and how often."""
    done: list[Any] = []
    for item in items:
        if len(done) > 1 and done[-2] == item and isinstance(done[-1], _Times):
            done[-1] = _Times(done[-1].n + 1)
        elif done and done[-1] == item and item:
            done.append(_Times(2))
        else:
            done.append(item)
    return done


class _Times(str):
    n: int

    def __new__(cls, n: int) -> _Times:
        text = super().__new__(cls, f"... {n} of these")
        text.n = n
        return text


class _Words(HTMLParser):
    """What a person reads on a page; drawings are named, not told."""

    ENDS = frozenset(("h1", "h2", "h3", "h4", "p", "li", "tr", "dt", "dd", "caption", "figcaption", "summary", "title"))

    def __init__(self) -> None:
        super().__init__()
        self.text, self.inside = "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "svg"):
            self.inside.append(tag)
            self.text += "[drawing]\n" if tag == "svg" else ""
        elif tag in ("td", "th"):
            self.text += " | "

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "svg"):
            self.inside.pop()
        elif tag in self.ENDS and not self.inside:
            self.text += "\n"

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text += re.sub(r"\s+", " ", data)


def words_of_page(page: str) -> str:
    reader = _Words()
    reader.feed(page)
    return "\n".join(line.strip() for line in reader.text.splitlines() if line.strip())


# ---- the scenes -------------------------------------------------------------------------------------------------

SCENES: dict[str, Callable[[Scene], None]] = {}
MODELS = ("fr_vmaf_ensemble_v1", "fr_vmaf_outlier_v1")


def scene(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
    SCENES[play.__name__.replace("_", "-")] = play
    return play


def reports(result: str) -> list[str]:
    """The formats that show a result beside text and JSON: a new one needs no edit here."""
    return [form for form in reporters.choices(result) if form not in ("text", "json")]


@scene
def validate_examples(at: Scene) -> None:
    for number, example in enumerate((*VALID, *INVALID)):
        at.run("validate", example, "--format", "json", "-o", f"{number}.json", files=[f"{number}.json"])


@scene
def init(at: Scene) -> None:
    at.run("init", files=["model/registry.json"])
    at.run("init", "new", files=["new/registry.json", "new/.gitattributes"])
    at.run("list", "--registry", "new")


@scene
def validate(at: Scene) -> None:
    at.run("validate", "--level", "quick", *VALID, *INVALID)
    at.run("validate", "valid/manual", *SOME_INVALID)
    for form in reports("validations"):
        at.run("validate", "valid/manual", "invalid/json-syntax", "invalid/onnx-not-finite", "--format", form)
    at.run("validate", "invalid/folder-unused", "--strict")
    for registry in ("model", "frozen/model"):
        at.run("validate", registry)
        at.run("validate", registry, "--format", "json")
    at.run("validate", "valid/smoke", "valid/manual", "--format", "json")
    at.run("validate", "--changed", "valid/smoke/m.onnx", "frozen/rows.csv")
    at.run("validate", "no/such/folder")
    at.run("validate")


@scene
def list_(at: Scene) -> None:
    for example in (*VALID, *INVALID):
        at.run("list", "--registry", example)
    for registry in (*VALID, *SOME_INVALID, "frozen/model", "model"):
        at.run("list", "--registry", registry, "--format", "json")
    at.run("list", "--registry", "frozen/model")
    at.run("list", "--registry", "model")
    at.run("list")


@scene
def show(at: Scene) -> None:
    for example in (*VALID, *SOME_INVALID):
        at.run("show", "m", "--registry", example)
        at.run("show", "m", "--registry", example, "--format", "json")
    for form in ("text", "json"):
        at.run("show", "promoted", "--registry", "frozen/model", "--format", form)
        at.run("show", MODELS[0], "--registry", "model", "--format", form, trained=True)
    at.run("show", "prometed", "--registry", "frozen/model")


@scene
def paths(at: Scene) -> None:
    for example in (*VALID, *SOME_INVALID):
        at.run("paths", "m", "--registry", example)
        at.run("paths", "m", "--allow-smoke", "--registry", example, "--format", "json")
    at.run("paths", "promoted", "--registry", "frozen/model")
    at.run("paths", "held", "--registry", "frozen/model")


@scene
def card(at: Scene) -> None:
    for example in (*VALID, *SOME_INVALID):
        at.run("card", "m", "--registry", example)
    for entry in ("promoted", "held", "single"):
        at.run("card", entry, "--registry", "frozen/model")
    for entry in MODELS:
        at.run("card", entry, "--registry", "model", trained=True)
    at.run("card", "m", "--registry", "valid/manual", "-o", "m.md", files=["m.md"])


@scene
def report(at: Scene) -> None:
    for example in ("valid/manual", "valid/smoke", *SOME_INVALID):
        at.run("report", "m", "--registry", example, page=True)
    for entry in ("promoted", "held"):
        at.run("report", entry, "--registry", "frozen/model", page=True)
    for entry in MODELS:
        at.run("report", entry, "--registry", "model", page=True, trained=True)
    at.run("report", "m", "--registry", "valid/smoke", "-o", "m.html", files=["m.html"])


@scene
def rule(at: Scene) -> None:
    for form in ("json", *reports("rules")):
        at.run("rule", "size-mismatch", "--format", form)
    for code in ("digest-mismatch", "verdict-holds", "ensemble-members", "no-such-code"):
        at.run("rule", code)


@scene
def plugins(at: Scene) -> None:
    at.run("plugins")
    at.run("plugins", "--format", "json")


@scene
def schema(at: Scene) -> None:
    at.run("schema")
    at.run("schema", "verdict")
    at.run("schema", "no-such-kind")
    at.run("schema", "-o", "valid/smoke/schemas", "--registry", "valid/smoke", files=["valid/smoke/registry.json"])


@scene
def prune(at: Scene) -> None:
    at.run("prune", "--dry-run", "--registry", "invalid/folder-unused")
    at.run("prune", "--registry", "invalid/folder-unused")
    for registry in ("invalid/folder-unused", "frozen/model", "valid/version-1-smoke", "invalid/json-syntax"):
        at.run("prune", "--registry", registry)


TRAIN = ("train", "fr_ensemble", "--seeds", "0,1", "--epochs", "2", "--hidden", "4", "--license", "MIT")


@scene
def add(at: Scene) -> None:
    words = ("--kind", "nr", "--id", "a", "--registry", "new/registry.json")
    model = "valid/smoke/m.onnx"
    at.run("add", model, *words, "--license", "MIT", files=["new/registry.json", "new/.gitattributes"])
    at.run("add", model, *words)
    at.run("add", model, *words, "--update", "--description", "A model.", files=["new/registry.json"])
    at.run("add", model, "--kind", "fr_ensemble", "--id", "b", "--registry", "new/registry.json")
    at.run("add", "invalid/onnx-domain/m.onnx", "--kind", "nr", "--id", "b", "--registry", "new/registry.json")
    at.run("add", "none.onnx", "--kind", "nr", "--id", "b", "--registry", "new/registry.json")
    at.run("validate", "new")


@scene
def evidence(at: Scene) -> None:
    at.run("add", "valid/smoke/m.onnx", "--kind", "nr", "--id", "a", "--registry", "new/registry.json")
    features = np.arange(72, dtype=np.float32).reshape(12, 6) ** 0.5
    np.savez(at.folder / "rows.npz", features=features, mos=features.sum(axis=1), src=["one", "two", "three"] * 4)
    words = ("--data", "rows.npz", "--target", "mos", "--registry", "new")
    at.run("evidence", "a", *words, files=["new/registry.json"])
    at.run("evidence", "a", "--data", "none.csv", "--registry", "new")
    at.run("evidence", "a", "--data", "rows.npz", "--registry", "new")
    at.run("evidence", "promoted", "--data", "rows.npz", "--registry", "frozen/model")
    at.run("gate", "a", "--registry", "new", trained=True)


@scene
def export(at: Scene) -> None:
    at.run("export", "promoted", "--registry", "frozen/model", "-o", "public", files=["public/registry.json"])
    at.run("export", "held", "--registry", "frozen/model", "-o", "other")
    at.run("export", "promoted", "--registry", "frozen/model", "-o", "valid")
    at.run("validate", "public")


@scene
def train(at: Scene) -> None:
    new = ("--registry", "new/registry.json")
    at.run(*TRAIN, "--id", "a", "--corpus", "frozen/clean.csv", *new, trained=True, files=["new/registry.json"])
    registered = json.loads((at.folder / "new" / "registry.json").read_bytes())
    manifest = Path("new", registered["models"][0]["manifest"])
    at.run("show", "a", "--registry", "new", trained=True, files=[str(manifest)])
    at.run("validate", "new")
    at.run("gate", "a", "--registry", "new", trained=True)
    at.run(
        *TRAIN,
        *["--id", "a", "--corpus", "frozen/noisy.csv", "--target", "mos", "--interval", "split"],
        *new,
        trained=True,
    )
    at.run("prune", "--registry", "new")
    at.run(*TRAIN, "--id", "probe", "--smoke", *new, trained=True)
    at.run(*TRAIN, "--id", "promoted", "--corpus", "frozen/clean.csv", "--registry", "frozen/model")
    at.run(*TRAIN, "--id", "b", "--corpus", "frozen/none.csv", *new)
    at.run(*TRAIN, "--id", "b", "--corpus", "frozen/clean.csv", "--target", "psnr", *new)
    at.run(*TRAIN, "--id", "B b", "--corpus", "frozen/clean.csv", *new)
    at.run(*TRAIN, "--id", "b", "--corpus", "frozen/clean.csv", "--trainer", "wide", *new)
    at.run("train", "fr", "--id", "b")
    at.run("train")


@scene
def reproduce(at: Scene) -> None:
    corpus = ("--corpus", "frozen/clean.csv", "--registry", "new/registry.json")
    at.run(*TRAIN, "--id", "a", *corpus, trained=True)
    at.run("reproduce", "a", *corpus, "--exact", trained=True)
    at.run("reproduce", "a", *corpus, "--format", "json", trained=True)
    at.run("reproduce", "a", "--corpus", "frozen/noisy.csv", "--registry", "new")
    at.run("reproduce", "single", "--registry", "frozen/model")


@scene
def calibrate(at: Scene) -> None:
    into = ("--registry", "frozen/model")
    at.run("calibrate", "promoted", "--corpus", "frozen/rows.csv", "--id", "own", "--offset", *into, trained=True)
    at.run("gate", "own", *into, trained=True)
    at.run("calibrate", "promoted", "--corpus", "frozen/clean.csv", "--id", "own", *into)
    at.run("calibrate", "promoted", "--corpus", "frozen/rows.csv", "--id", "promoted", *into)
    at.run("calibrate", "probe", "--corpus", "frozen/rows.csv", "--id", "own", *into)
    at.run("calibrate", "single", "--corpus", "frozen/rows.csv", "--id", "own", *into)


@scene
def evaluate(at: Scene) -> None:
    rows = ("--corpus", "frozen/rows.csv", "--registry", "frozen/model")
    for form in ("text", "json"):
        at.run("evaluate", "promoted", *rows, "--format", form, trained=True)
    at.run(
        "evaluate", "promoted", *rows, "--by", "src,encoder", "--levels", "0.9", "--against", "demoted", trained=True
    )
    at.run("evaluate", "promoted", "--smoke", "--registry", "frozen/model", trained=True)
    at.run("evaluate", "promoted", "--corpus", "frozen/clean.csv", "--registry", "frozen/model", trained=True)
    at.run("evaluate", "promoted", "--registry", "frozen/model")
    at.run("evaluate", "promoted", *rows, "--levels", "1.5")
    at.run("evaluate", "promoted", *rows, "--by", "colour")
    at.run("evaluate", "single", *rows)
    at.run("evaluate", "m", "--smoke", "--registry", "invalid/digest-mismatch")


@scene
def predict(at: Scene) -> None:
    few = (at.folder / "frozen" / "rows.csv").read_text(encoding="utf-8").splitlines()[:4]
    (at.folder / "few.csv").write_text("\n".join(few) + "\n", encoding="utf-8")
    rows = ("--corpus", "few.csv", "--registry", "frozen/model")
    for form in ("csv", "jsonl"):
        at.run("predict", "promoted", *rows, "--levels", "0.5,0.95", "--format", form, trained=True)
    at.run("predict", "held", *rows, "--format", "parquet", "-o", "scores.parquet", files=["scores.parquet"])
    at.run("predict", "promoted", *rows, "-o", "scores.csv", trained=True, files=["scores.csv"])
    at.run("predict", "promoted", *rows, "--levels", "0", trained=True)
    at.run("predict", "promoted", *rows, "-o", "scores.txt", trained=True)
    at.run("predict", "single", *rows)
    at.run("predict", "promoted", "--corpus", "none.csv", "--registry", "frozen/model")
    at.run("predict", "m", "--corpus", "few.csv", "--registry", "invalid/digest-mismatch")


@scene
def gate(at: Scene) -> None:
    for example in (*VALID, *SOME_INVALID):
        at.run("gate", "m", "--registry", example)
    for example in ("valid/smoke", "valid/manual", "valid/version-1-smoke", "invalid/evidence-unusable"):
        at.run("gate", "m", "--registry", example, "--format", "json")
    for entry in ("promoted", "demoted", "held", "probe"):
        at.run("gate", entry, "--registry", "frozen/model")
        at.run("gate", entry, "--registry", "frozen/model", "--format", "json", trained=True)
    for form in reports("verdicts"):
        at.run("gate", "held", "--registry", "frozen/model", "--format", form)
    for entry in MODELS:
        at.run("gate", entry, "--registry", "model", trained=True)
        at.run("gate", entry, "--registry", "model", "--format", "json", trained=True)
    at.run(
        *["gate", "demoted", "--against", "promoted", "--registry", "frozen/model", "-o", "verdict.json"],
        trained=True,
        files=["verdict.json"],
    )
    at.run("gate", "held", "--against", "promoted", "--registry", "frozen/model")
    [evidence] = sorted((at.folder / "frozen" / "model" / "promoted").glob("*/evidence"))
    folder = str(evidence.relative_to(at.folder))
    at.run("gate", "--evidence", folder, "--kind", "fr_ensemble")
    at.run(
        "gate",
        "promoted",
        "--evidence",
        folder,
        *["--registry", "frozen/model", "--corpus", "frozen/clean.csv", "--format", "json"],
        trained=True,
    )
    at.run("gate", "--registry", "frozen/model")
    at.run("gate", "--evidence", "valid", "--kind", "fr_ensemble")


@scene
def gate_base(at: Scene) -> None:
    for registry in ("valid/manual", "frozen/model"):
        document = (at.folder / registry / "registry.json").read_bytes()
        entry = "m" if "valid" in registry else "promoted"
        run(at.folder, "flip", entry, "--demote", "--reason", "x", "--registry", registry)
        at.commit(1, "before")
        (at.folder / registry / "registry.json").write_bytes(document)
        at.commit(2, "flipped")
        for form in ("text", "json", *reports("verdicts")):
            at.run("gate", "--base", "HEAD~1", "--registry", registry, "--format", form, trained=form == "json")
        at.run("gate", "--base", "HEAD", "--registry", registry)
    at.run("gate", "--base", "no-such-branch", "--registry", "frozen/model")


@scene
def ci(at: Scene) -> None:
    """Both steps in one run, each output; then a list of known findings, and what cannot be judged."""
    at.run("ci", "--registry", "frozen/model")
    at.commit(1, "start")
    at.run("known-findings", "write", "--registry", "invalid/license-missing", files=["known-findings.json"])
    at.commit(2, "list what is known")
    documents = ("--sarif", "out.sarif", "--junit", "out.xml", "--json", "out.json", "--summary", "out.md")
    files = ["out.sarif", "out.xml", "out.json", "out.md"]
    known = ("--known-findings", "known-findings.json", "--strict")
    at.run("ci", "--registry", "invalid/license-missing", "--base", "HEAD", *known, *documents, files=files)
    at.run("ci", "--registry", "frozen/model", "--base", "gone", "--github", *documents, files=files)
    at.run("ci", "--registry", "frozen/model", "--require-base")


@scene
def metrics(at: Scene) -> None:
    at.run("metrics")
    at.run("metrics", "fr_ensemble", "--format", "json")
    at.run("metrics", "gone")


@scene
def compare(at: Scene) -> None:
    at.run("compare", *MODELS, "--registry", "model", trained=True)
    at.run("compare", *MODELS, "--registry", "model", "--format", "json", trained=True)
    at.run("compare", "promoted", "gone", "--registry", "frozen/model")


@scene
def flip(at: Scene) -> None:
    for example in ("valid/demoted", "valid/manual", "valid/smoke", "valid/version-1-smoke", *SOME_INVALID[:2]):
        at.run("flip", "m", "--registry", example)
    frozen = ("--registry", "frozen/model")
    at.run("flip", "held", *frozen)
    at.run("flip", "held", *frozen, "--format", "json", trained=True)
    at.run("flip", "probe", *frozen)
    at.run("flip", "demoted", *frozen, files=["frozen/model/registry.json"])
    at.run("flip", "demoted", *frozen)
    at.run("repromote", "demoted", *frozen)
    at.run("repromote", "demoted", *frozen, "--format", "json", trained=True)
    at.run("repromote", "held", *frozen)
    at.run("flip", "demoted", "--demote", *frozen)
    at.run("flip", "demoted", "--demote", "--reason", "drifts", *frozen)
    at.run("flip", "demoted", *frozen, "--format", "json", trained=True)
    at.run("flip", "promoted", "--demote", "--reason", "drifts", *frozen, "--format", "json")
    at.run("flip", "single", "--demote", "--reason", "drifts", *frozen)
    at.run("flip", "single", *frozen)
    at.run("flip", "single", "--reason", "by eye", *frozen)
    at.run("flip", "held", "--reason", "by eye", *frozen)
    at.run("flip", "hold", *frozen)
    at.run("list", *frozen)


@scene
def migrate(at: Scene) -> None:
    old = [example for example in (*VALID, *INVALID) if is_old(EXAMPLES / example / "registry.json")]
    for number, example in enumerate(old):
        at.run("migrate", example, "-o", f"json{number}", "--format", "json", files=[f"json{number}/registry.json"])
    for number, example in enumerate(old[::4]):
        at.run("migrate", example, "-o", f"text{number}", "--skip-broken")
    at.run("migrate", "invalid/digest-mismatch--version-1", "-o", "broken")
    at.run("migrate", "valid/smoke", "-o", "new")
    at.run("migrate", old[0], "-o", "valid")
    at.run("migrate", "invalid/json-syntax", "-o", "new")


def is_old(registry: Path) -> bool:
    try:
        return json.loads(registry.read_bytes()).get("schema_version", 0) in (0, 1)
    except (ValueError, AttributeError):
        return False


@scene
def history(at: Scene) -> None:
    for day, state in enumerate(("smoke", "manual", "demoted"), 1):
        shutil.rmtree(at.folder / "kept", ignore_errors=True)
        shutil.copytree(at.folder / "valid" / state, at.folder / "kept")
        at.commit(day, state)
    for form in ("text", "json"):
        at.run("history", "m", "--registry", "kept", "--format", form)
        at.run("history", "--as-of", "2026-01-02", "--registry", "kept", "--format", form)
        at.run("history", "m", "--as-of", "2026-01-03", "--registry", "kept", "--format", form)
    at.run("history", "--registry", "kept")
    at.run("history", "n", "--registry", "kept")
    at.run("history", "m", "--as-of", "tomorrow", "--registry", "kept")


@scene
def plugin_new(at: Scene) -> None:
    at.run("plugin", "new", "thumbs")
    made = sorted(str(path.relative_to(at.folder)) for path in (at.folder / "registry-thumbs").rglob("*.*"))
    at.run("plugin", "new", "thumbs", files=[name for name in made if not name.endswith((".md", ".csv"))])
    at.run("plugin", "new", "Thumbs up")
    at.run("plugin")


@scene
def signatures(at: Scene) -> None:
    """A folder signed and verified, then changed; the fingerprints of keys are masked."""
    pair, other = key_pair(at.folder, "ci"), key_pair(at.folder, "other")
    (at.folder / "dist").mkdir()
    (at.folder / "dist" / "model.onnx").write_bytes(b"model")
    at.run("sign", "--path", "dist", "--key", pair.private.name, "--bundle", "dist.sig")
    at.run("sign", "--path", "dist", "--key", pair.public.name, "--bundle", "dist.sig")
    verify = ("verify-signature", "--path", "dist", "--bundle", "dist.sig", "--public-key")
    for form in ("text", "json"):
        at.run(*verify, pair.public.name, "--format", form)
    at.run(*verify, other.public.name)
    (at.folder / "dist" / "model.onnx").write_bytes(b"other")
    at.run(*verify, pair.public.name)


@scene
def attestations(at: Scene) -> None:
    """The verdict of a production entry attested and verified, and its bill of materials."""
    pair, frozen = key_pair(at.folder, "ci"), ("--registry", "frozen/model")
    at.run("attest", "held", "--key", pair.private.name, *frozen)
    at.run("attest", "promoted", "--key", pair.private.name, *frozen)
    verify = ("verify-attestation", "promoted", "--public-key", pair.public.name, *frozen)
    for form in ("text", "json"):
        at.run(*verify, "--format", form)
    at.run("verify-attestation", "promoted", *frozen)
    at.run("bom", "promoted", *frozen, trained=True)
    at.run("bom", "promoted", *frozen, "--format", "cyclonedx", "-o", "bom.json")


@scene
def fr_ensemble_corpus(at: Scene) -> None:
    corpus = ("fr-ensemble", "corpus")
    for form in ("text", "json"):
        at.run(*corpus, "info", "frozen/clean.csv", "--format", form)
    at.run(*corpus, "info", "frozen/noisy.csv", "--target", "psnr")
    at.run(*corpus, "info", "none.csv")
    at.run(*corpus, "split", "frozen/clean.csv", "--train", "train.csv", "--aside", "aside.csv")
    at.run(*corpus, "split", "frozen/clean.csv", "--train", "train.csv", "--aside", "train.csv")
    names = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2", "vmaf")
    frames = [{"frameNum": n, "metrics": dict.fromkeys(names, 0.5 + n / 8)} for n in range(2)]
    logs = at.folder / "logs"
    logs.mkdir()
    (logs / "a_libx264_23.json").write_text(json.dumps({"version": "2.3.1", "frames": frames}), encoding="utf-8")
    (logs / "b_libx265_30.csv").write_text(f"Frame,{','.join(names)}\n0{',0.5' * len(names)}\n", encoding="utf-8")
    pattern = ("--pattern", "{src}_{encoder}_{crf}.json", "--vmaf-model", "vmaf_v0.6.1")
    at.run(*corpus, "import", "logs/a_libx264_23.json", *pattern, "-o", "a.csv", files=["a.csv"])
    of_csv = ("--pattern", "{src}_{encoder}_{crf}.csv", *pattern[2:])
    at.run(*corpus, "import", "logs", *of_csv, "-o", "b.jsonl", files=["b.jsonl"])
    at.run(*corpus, "import", "logs/a_libx264_23.json", *pattern[:2], "-o", "b.csv")
    (logs / "c_libx264_23.json").write_text('{"frames": []}', encoding="utf-8")
    at.run(*corpus, "import", "logs/a_libx264_23.json", "logs/c_libx264_23.json", *pattern, "-o", "c.csv")
    at.run(*corpus, "import", "logs", "-o", "d.csv")
    at.run(*corpus, "build", "-o", "e.parquet", "--encoders", "libx264", "--crf", "20")
    at.run(*corpus, "build", "none.y4m", "-o", "e.parquet", "--encoders", "libx264", "--crf", "20")
    patterns = (*corpus, "build", "--test-patterns", "-o", "e.parquet")
    at.run(*patterns, "--encoders", "libx264", "--crf", "20", "--ffmpeg", "no/ffmpeg")
    at.run(*corpus)


@scene
def fr_ensemble_exchangeable(at: Scene) -> None:
    exchangeable = ("fr-ensemble", "exchangeable")
    rows = ("--corpus", "frozen/rows.csv", "--registry", "frozen/model")
    new = ("--registry", "new/registry.json")
    at.run(*TRAIN, "--id", "a", "--corpus", "frozen/clean.csv", *new, trained=True)
    for form in ("text", "json"):
        at.run(*exchangeable, "a", "--corpus", "frozen/rows.csv", *new, "--format", form, trained=True)
    at.run(*exchangeable, "promoted", *rows)
    at.run(*exchangeable, "single", *rows)


@scene
def fr_ensemble_recommend(at: Scene) -> None:
    recommend = ("fr-ensemble", "recommend")
    rows = ("--corpus", "frozen/rows.csv", "--registry", "frozen/model")
    for form in ("text", "json"):
        at.run(*recommend, "promoted", *rows, "--target", "80", "--format", form, trained=True)
    at.run(*recommend, "promoted", *rows, "--target", "80", "--by", "source", "--confidence", "0.8", trained=True)
    at.run(*recommend, "promoted", *rows, "--target", "101")
    at.run(*recommend, "promoted", *rows, "--target", "80", "--cost", "price")
    at.run(*recommend, "single", *rows, "--target", "80")


@scene
def usage(at: Scene) -> None:
    for arguments in ((), ("--help",), ("--version",), ("valdate",), ("validate", "--levl", "quick"), ("fr-ensemble",)):
        at.run(*arguments)


# ---- the tests --------------------------------------------------------------------------------------------------


def kept(name: str) -> Path:
    return GOLDEN / f"{name.strip('-')}.txt"


@pytest.mark.parametrize("name", SCENES)
def test_what_is_printed_is_what_was_printed(name: str, tmp_path: Path) -> None:
    """Line by line."""
    at = Scene(tmp_path)
    SCENES[name](at)
    if WRITE:
        kept(name).parent.mkdir(exist_ok=True)
        kept(name).write_text("\n".join(at.lines), encoding="utf-8", newline="\n")
        return
    stored = kept(name).read_text(encoding="utf-8").split("\n") if kept(name).exists() else []
    changed = list(difflib.unified_diff(stored, at.lines, f"tests/golden/{kept(name).name}", "now", lineterm="", n=1))
    if changed:
        more = [f"... and {len(changed) - 60} more lines"] if len(changed) > 60 else []
        pytest.fail("\n".join([*changed[:60], *more, "Where that is meant: make golden"]), pytrace=False)


def test_no_file_is_left_over() -> None:
    """Each file in tests/golden/ is a scene's."""
    assert {path.name for path in GOLDEN.iterdir()} == {kept(name).name for name in SCENES}


def commands(group: click.Group, ctx: click.Context, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=ctx, info_name=name), (*path, name))
        else:
            yield " ".join((*path, name)), command


@functools.cache
def all_commands() -> dict[str, click.Command]:
    with click.Context(cli, info_name="registry") as ctx:
        return dict(commands(cli, ctx, ()))


def typed() -> list[tuple[str, list[str], int]]:
    """What the stored transcripts typed: (the line, its words, the exit code)."""
    lines = [line for path in GOLDEN.iterdir() for line in path.read_text(encoding="utf-8").split("\n")]
    return [
        (line, shlex.split(line)[2:], int(after.removeprefix("exit ")))
        for line, after in itertools.pairwise(lines)
        if line.startswith("$ registry")
    ]


def test_every_command_is_typed_in_every_format() -> None:
    """A new command, or a new format of one, wants a scene; and one run at least that did what was asked."""
    missing, runs = [], typed()
    for name, command in all_commands().items():
        words = name.split()
        formats = [
            choice
            for option in command.params
            if "--format" in option.opts and isinstance(option.type, click.Choice)
            for choice in option.type.choices
        ]
        mine = [(given, code) for _, given, code in runs if given[: len(words)] == words]
        wanted = {
            (form, form in (formats[0], "text") or f"--format {form}" in " ".join(given))
            for form in formats
            for given, _ in mine
        }
        missing += [f"{name} --format {form}" for form in formats if (form, True) not in wanted]
        if not any(code in (0, 1) for _, code in mine) and name not in FAILING:
            missing.append(name)
        assert mine, f"{name}: write a scene"
    assert missing == []


def test_every_example_is_validated() -> None:
    """Each folder of tests/examples has its findings here."""
    given = {word for _, words, _ in typed() if words[:1] == ["validate"] for word in words}
    assert {*VALID, *INVALID} <= given
    assert len(INVALID) > 50
