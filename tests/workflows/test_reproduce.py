"""test_reproduce.py: what the core makes of a plugin that trains again, with a plugin of its own. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, Ran
from sandbox import Sandbox
from thumbs import with_plugin

from registry_tool.hookspec import (
    Agreement,
    EntryView,
    Kind,
    ReproduceRequest,
    Reproduction,
    Trained,
    TrainRequest,
    hookimpl,
)
from registry_tool.plugins.manager import Plugins
from registry_tool.workflows.train import train

SCHEMA = {"$id": "urn:test:note:1", "type": "object"}
AGREES = Agreement("score", 0.1, 0.1, 0.2, "vmaf")


class Notes:
    """Kind `note`: a text with a manifest; `again` is what training it again gives."""

    def __init__(self) -> None:
        self.environment = "1"
        self.trained = self.make(b"text")
        self.again: Reproduction | None = Reproduction(self.trained, [AGREES], {"ink": "the colour"}, ["/figure"])

    def make(self, text: bytes, **more: Any) -> Trained:
        environment = [{"name": "ink", "version": self.environment}]
        manifest: Mapping[str, Any] = {"id": "n", "note": {"path": "note.txt"}, "figure": {"a": [1.0, 2]}, "title": "x"}
        return Trained({"note.txt": text}, {**manifest, "environment": environment, **more})

    def train_again(self, text: bytes, **more: Any) -> None:
        assert self.again is not None
        self.again = replace(self.again, trained=self.make(text, **more))

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("note", "texts", SCHEMA)]

    @hookimpl
    def registry_train(self, request: Any) -> Trained:
        return self.trained

    @hookimpl
    def registry_reproduce(self, view: EntryView, request: ReproduceRequest) -> Reproduction | None:
        return self.again


@dataclass(frozen=True, slots=True)
class NoteBench:
    """A registry with one note, `n`, and the program that reproduces it."""

    box: Sandbox
    notes: Notes
    plugins: Plugins
    registry: Program

    def train(self) -> None:
        train(self.box.path, self.plugins, TrainRequest("note", "n"))

    def reproduce(self, *arguments: object) -> Ran:
        where = ("--registry", self.box.path)
        return self.registry("reproduce", *(arguments or ("n",)), *where, plugins=self.plugins)


@pytest.fixture
def bench(registry: Program, tmp_path: Path) -> NoteBench:
    notes = Notes()
    bench = NoteBench(Sandbox(tmp_path / "model" / "registry.json", "n"), notes, with_plugin(notes, "notes"), registry)
    bench.train()
    return bench


@pytest.mark.parametrize(
    ("text", "more", "environment", "code", "words"),
    [
        (b"text", {}, "1", 0, "to the same bytes"),
        (b"text", {}, "2", 0, "to the same bytes"),
        (b"text", {"later": 1}, "1", 0, "not recorded then, so not compared: /later"),
        (b"other", {}, "2", 0, "ink: then 1, now 2: may explain it: the colour"),
        (b"other", {}, "1", 1, "no difference between then and now explains it"),
        (b"other", {"figure": {"a": [1.5, 2]}}, "2", 0, "/figure/a/0: then 1.0, now 1.5 (follows"),
        (b"other", {"figure": {"a": [1.0]}}, "2", 0, "/figure/a: then [1.0, 2], now [1.0] (follows"),
        (b"text", {"title": "y"}, "2", 1, "/title: then 'x', now 'y' (nothing recorded"),
        (b"text", {"figure": {}}, "1", 1, "/figure/a: then [1.0, 2], now nothing"),
        (b"text", {"figures": 0, "figure": {"a": [True, 2]}}, "1", 1, "/figure/a/0: then 1.0, now True"),
    ],
)
def test_bytes_and_values_are_compared(
    bench: NoteBench, text: bytes, more: dict[str, Any], environment: str, code: int, words: str
) -> None:
    """A difference passes where the environment explains it and it follows from the weights."""
    bench.notes.environment = environment
    bench.notes.train_again(text, **more)
    ran = bench.reproduce()
    assert (ran.code, words in ran.out) == (code, True), ran.out
    assert f"  {'same   ' if text == b'text' else 'differs'} note.txt" in ran.out


@pytest.mark.parametrize("rms", [0.3, float("nan"), float("inf")])
def test_predictions_beyond_tolerance_are_refused(bench: NoteBench, rms: float) -> None:
    """Whatever the environment explains; no number is none either."""
    bench.notes.environment = "2"
    bench.notes.train_again(b"other")
    assert bench.notes.again is not None
    bench.notes.again = replace(bench.notes.again, agreements=[AGREES, replace(AGREES, rms=rms)])
    ran = bench.reproduce()
    assert (ran.code, "predictions differ beyond tolerance" in ran.out, ran.out.count("FAIL")) == (1, True, 1)


def test_rounding_of_a_value_is_no_other_value(bench: NoteBench) -> None:
    """A sum in another order passes where the environment differs, a thousandth does not."""
    for value, code in ((0.1 + 0.2, 0), (0.3003, 1)):
        bench.notes.environment, bench.notes.trained = "1", bench.notes.make(b"text", mean=0.3)
        bench.train()
        bench.notes.environment = "2"
        bench.notes.train_again(b"text", mean=value)
        assert bench.reproduce().code == code


def test_what_nothing_explains_is_shown_first(bench: NoteBench) -> None:
    """However many values follow from the weights; those are counted."""
    bench.notes.environment = "2"
    bench.notes.trained = bench.notes.make(b"text", figure={"a": [0.0] * 20})
    bench.train()
    bench.notes.train_again(b"other", figure={"a": [1.0] * 20}, title="y")
    lines = bench.reproduce().out.splitlines()
    assert lines[3] == "  /title: then 'x', now 'y' (nothing recorded explains it)"
    assert "  and 11 more values of the manifest: --format json" in lines


def test_what_agrees_with_nothing_is_not_reproduced(bench: NoteBench) -> None:
    """Other bytes of a plugin that compares no predictions, and files that one side lacks."""
    bench.notes.environment = "2"
    bench.notes.again = Reproduction(bench.notes.make(b"other"), (), {"ink": "the colour"})
    assert bench.reproduce().code == 1
    trained = bench.notes.make(b"text", more={"path": "more.txt"})
    bench.notes.again = Reproduction(replace(trained, files={**trained.files, "more.txt": b""}))
    ran = bench.reproduce()
    assert (ran.code, "differs more.txt" in ran.out) == (1, True)


def test_what_cannot_be_reproduced_is_one_line(bench: NoteBench) -> None:
    """A kind without the hook or with None, no such entry, a full --keep, an entry that does not validate."""
    ran = bench.reproduce("n", "--keep", bench.box.folder)
    assert (ran.code, "expected a new or empty folder" in ran.err) == (2, True)
    assert bench.reproduce("m").code == 2
    bench.notes.again = None
    ran = bench.reproduce()
    assert (ran.code, "the kind 'note' cannot be reproduced" in ran.err) == (2, True)
    bench.notes.again = Reproduction(Trained({"a.txt": b""}, {}))
    ran = bench.reproduce()
    assert (ran.code, "plugin notes: what it trained cannot be pinned" in ran.err) == (3, True)
    bench.box.edit_entry(manifest="n/elsewhere.json")
    assert bench.reproduce().code == 1


ENVIRONMENTS = (
    None,
    7,
    "numpy 1",
    [],
    {},
    {"numpy": "1"},
    ["numpy"],
    [["numpy", "1"]],
    [None],
    [{"name": "numpy"}],
    [{"version": "1"}],
    [{"name": ["a"], "version": {"b": 1}}],
    [{"name": "ink", "version": 2}],
)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=repr)
def test_an_environment_of_any_shape_is_no_failure(bench: NoteBench, environment: object) -> None:
    """What a manifest records at `environment` is its plugin's own: another shape stops nothing."""
    bench.notes.trained = bench.notes.make(b"text", environment=environment)
    bench.train()
    bench.notes.train_again(b"other")
    for form in ("text", "json"):
        ran = bench.reproduce("n", "--format", form)
        assert (ran.code, ran.err) == (0, "")  # `ink` is version 1 now, and was another or not recorded
    assert bench.registry("card", "n", "--registry", bench.box.path, plugins=bench.plugins).code == 0
