"""test_frozen.py: registries that older programs wrote stay valid, are judged equally, and give the same figures.

tests/frozen/README.md says what is there. A later program may add figures and warnings; what was stored comes again.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from fr_ensemble.artifacts.recipe import RELEASES, TRAINER_VERSION

FROZEN = Path(__file__).parent / "frozen"
COMMITS = sorted(path.parent.parent for path in FROZEN.glob("*/model/registry.json"))
EXACT = ("entry", "verdict", "manifest_sha256", "evidence_sha256", "summary_only", "policy", "reasons")


def entries(commit: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((commit / "model" / "registry.json").read_text(encoding="utf-8"))
    return {entry["id"]: entry for entry in document["models"]}


def said(command: str) -> list[Any]:
    """Of each commit what it said to a command: (commit, file)."""
    found = [(commit, path) for commit in COMMITS for path in sorted((commit / "said").glob(f"{command}-*"))]
    return [pytest.param(commit, path, id=f"{commit.name}-{path.stem}") for commit, path in found]


def verdicts(decision: str) -> list[Any]:
    """The entries of each commit that its own gate judged so: (commit, ID)."""
    return [
        pytest.param(commit, path.stem.removeprefix("gate-"), id=f"{commit.name}-{path.stem}")
        for commit, path in (given.values for given in said("gate"))
        if "-against-" not in path.stem and json.loads(path.read_bytes())["verdict"] == decision
    ]


@pytest.fixture(params=COMMITS, ids=lambda path: path.name)
def commit(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def copy(commit: Path, tmp_path: Path) -> Path:
    return shutil.copytree(commit, tmp_path / "copy")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure and word in a document, with its place."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{name}/{key}")
    else:
        yield name, value


def differences(stored: Any, now: Any, relative: float, absolute: float) -> list[str]:
    """Name by name what was stored and does not come again. What is new is no difference."""
    found = dict(leaves(now))
    return [
        f"{name}: stored {value!r}, now {found.get(name, 'nothing')!r}"
        for name, value in leaves(stored)
        if name not in found or not equal(value, found[name], relative, absolute)
    ]


def equal(stored: Any, now: Any, relative: float, absolute: float) -> bool:
    if isinstance(stored, float) and isinstance(now, int | float):
        return math.isclose(stored, now, rel_tol=relative, abs_tol=absolute)
    return bool(stored == now and type(stored) is type(now))


def test_there_is_one_of_each_decision() -> None:
    """What this file demands is demanded of something: one PROMOTE in production, one HOLD in smoke at least."""
    for commit in COMMITS:
        assert any(not entry["smoke"] and "verdict" in entry["promotion"] for entry in entries(commit).values())
    assert {given.values[0] for given in verdicts("PROMOTE")} == set(COMMITS) != set()
    assert {given.values[0] for given in verdicts("HOLD")} == set(COMMITS)


def test_a_difference_is_seen() -> None:
    """The comparison itself: a changed, a missing and a mistyped figure are named, a new one is not."""
    stored = {"a": 1.0, "b": {"c": [2.0, "x"]}, "d": True}
    assert differences(stored, {"a": 1 + 1e-12, "b": {"c": [2.0, "x"], "new": 1}, "d": True}, 1e-9, 1e-9) == []
    assert len(differences(stored, {"a": 1 + 1e-6, "b": {"c": [2.0, "x"]}, "d": True}, 1e-9, 1e-9)) == 1
    assert len(differences(stored, {"a": None, "b": {"c": [2.0]}, "d": 1}, 1e-9, 1e-9)) == 3


def test_it_validates(commit: Path) -> None:
    """Without an error, at the full level."""
    ran = run(commit, "validate", "model", "--format", "json")
    found = json.loads(ran.out)
    assert [finding for finding in found["findings"] if finding["severity"] == "error"] == []
    assert (ran.code, found["level"], found["entries"]) == (0, "full", len(entries(commit)))


def test_it_validates_quickly(commit: Path) -> None:
    """At the quick level, too."""
    assert run(commit, "validate", "model", "--level", "quick").code == 0


@pytest.mark.parametrize(("commit", "path"), said("gate"))
def test_it_gates_equally(commit: Path, path: Path) -> None:
    """The same decision for the same reasons, and each stored metric recomputed."""
    stored = json.loads(path.read_bytes())
    entry, _, incumbent = path.stem.removeprefix("gate-").partition("-against-")
    ran = run(
        commit,
        "gate",
        entry,
        *(["--against", incumbent] if incumbent else []),
        "--registry",
        "model",
        "--format",
        "json",
    )
    now = json.loads(ran.out)
    assert ran.code == (0 if stored["verdict"] == "PROMOTE" else 1)
    assert {name: now[name] for name in EXACT} == {name: stored[name] for name in EXACT}
    assert len(stored["metrics"]) > 10
    assert differences(stored["metrics"], now["metrics"], 1e-9, 1e-9) == []


@pytest.mark.parametrize(("commit", "entry"), verdicts("HOLD"))
def test_a_flip_of_what_is_held_is_refused(commit: Path, entry: str, tmp_path: Path) -> None:
    """With exit code 1, and not a byte of the registry changes."""
    folder = copy(commit, tmp_path)
    before = (folder / "model" / "registry.json").read_bytes()
    assert run(folder, "flip", entry, "--registry", "model").code == 1
    assert (folder / "model" / "registry.json").read_bytes() == before


def test_what_is_promotable_flips_and_what_is_production_is_demoted(commit: Path, tmp_path: Path) -> None:
    """Today's program writes into the old registry, and finds it valid afterwards."""
    folder = copy(commit, tmp_path)
    for given in verdicts("PROMOTE"):
        of, entry = given.values
        if of == commit:
            smoke = entries(folder)[str(entry)]["smoke"]
            assert (
                run(
                    folder, "flip", entry, "--registry", "model", *(() if smoke else ("--demote", "--reason", "drifts"))
                ).code
                == 0
            )
            assert entries(folder)[str(entry)]["smoke"] is not smoke
    assert run(folder, "validate", "model").code == 0


def test_it_is_listed(commit: Path) -> None:
    """Every entry with its state."""
    listed = json.loads(run(commit, "list", "--registry", "model", "--format", "json").out)
    assert {row["id"]: row["smoke"] for row in listed} == {i: entry["smoke"] for i, entry in entries(commit).items()}
    assert run(commit, "list", "--registry", "model").code == 0


@pytest.mark.parametrize("command", ["show", "card", "report"])
def test_each_entry_can_be_looked_at(commit: Path, command: str) -> None:
    """Pages for people."""
    for entry in entries(commit):
        ran = run(commit, command, entry, "--registry", "model")
        assert (ran.code, ran.err) == (0, "")
        assert entry in ran.out


@pytest.mark.parametrize(("commit", "path"), said("predict"))
def test_it_predicts_equally(commit: Path, path: Path) -> None:
    """Row by row and column by column, as far as float32 on another processor allows."""
    entry = path.stem.removeprefix("predict-")
    ran = run(commit, "predict", entry, "--corpus", "rows.csv", "--registry", "model", "--format", "csv")
    assert ran.code == 0
    renamed = {"lower": "lower_95", "upper": "upper_95"}  # release 0.2.0 names bounds by their level always
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    stored = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
    now = list(csv.DictReader(ran.out.splitlines()))
    assert len(stored) == len(now) > 10
    assert differences([*map(typed, stored)], [*map(typed, now)], 1e-4, 1e-3) == []


def typed(row: dict[str, str]) -> dict[str, Any]:
    return {name: number(value) for name, value in row.items()}


def number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize(("commit", "path"), [*said("evaluate"), *said("recommend")])
def test_it_measures_equally(commit: Path, path: Path) -> None:
    """Figures on new rows, name by name."""
    command, _, entry = path.stem.partition("-")
    rows = ("--corpus", "rows.csv", "--registry", "model", "--format", "json")
    if command == "evaluate":
        ran = run(commit, "evaluate", entry, "--levels", "0.5,0.95", *rows)
    else:
        ran = run(commit, "fr-ensemble", "recommend", entry, "--target", "80", *rows)
    assert ran.code == 0
    assert differences(json.loads(path.read_bytes()), json.loads(ran.out), 1e-4, 1e-3) == []


def test_it_can_be_trained_again(commit: Path) -> None:
    """The recipe of an older program is read: it gives the same models, or the line names the release that does."""
    ran = run(commit, "reproduce", "absolute", "--corpus", "noisy.csv", "--registry", "model")
    [manifest] = (commit / "model" / "absolute").glob("*/manifest.json")
    version = json.loads(manifest.read_bytes())["recipe"]["trainer_version"]
    if version == TRAINER_VERSION:
        assert ran.code == 0
    else:
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.endswith(f"reproduce it with release {RELEASES[version]} of registry-tool\n")
