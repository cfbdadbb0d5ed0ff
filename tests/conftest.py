"""conftest.py: what tests ask for by name: ensembles that are trained and flipped once a run, and the program."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from command_line import Program, run
from filelock import FileLock
from fr_ensemble.arrays import Float32, Weights
from hypothesis import HealthCheck, settings
from migrating import with_models
from places import LONG_FILES, NOT_THERE, TESTS, shared_data
from policies import rules
from public_shape import write_extract
from registries import Made
from sandbox import Sandbox, to_json

from registry_tool.plugins.manager import Plugins, load
from registry_tool.sandbox.children import kept_children

# Beside other work a machine may take a second over what takes a millisecond: no fault of what is tested.
settings.register_profile("loaded machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded machine")
ALL_SLOW = re.compile(r"^pytestmark = .*\bpytest\.mark\.slow\b", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """A run without slow tests checks no IRI and no duration: jsonschema takes a second and more to load what does.

    A run in the background ignores Ctrl-C, and what it starts would inherit that: here it is heard.
    """
    if config.option.markexpr == "not slow":
        for name in ("rfc3987_syntax", "isoduration"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # importing it fails, as if it were absent
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("PIP_NO_COMPILE", "0")  # pip reads this as: do not compile; little of it is imported


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file whose tests are all slow is not imported by a run without slow tests: torch alone takes seconds."""
    unwanted = config.option.markexpr == "not slow" and collection_path.suffix == ".py"
    return True if unwanted and ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a trained ensemble is slow, too. Those of the longest files begin first."""
    for item in items:
        if "made" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    ranks = {TESTS / name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """What was imported and parsed to collect stays to the end: the garbage collector need not look at it again.

    Nor so often at what tests make, which is small: each look costs more than it frees.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line counts what only a checkout with the data beside it can test."""
    skipped = [r for r in terminalreporter.stats.get("skipped", ()) if NOT_THERE in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped: {NOT_THERE}")


@pytest.fixture(scope="session", autouse=True)
def children() -> Iterator[None]:
    """One process looks at the models of all tests, as far as these run in this process."""
    with kept_children():
        yield


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """The environment is read for entry points once, not by every run of the program in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "entry_points", cache(metadata.entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def torch_here() -> Iterator[None]:
    """What is trained in this process is compared with a torch that is imported once, not by a child each time."""

    def predict(members: Sequence[Weights], x: Float32) -> Float32:
        from fr_ensemble.training import network

        return np.stack([network.predict(member, x) for member in members])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fr_ensemble.training.parity.predict_in_torch", predict)
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Trained and flipped through the program itself; every worker of a parallel run shares it."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    made = Made.at(base)
    with FileLock(f"{base}.lock"):
        if not made.production.exists():
            base.mkdir()
            made.make()
    return made


@pytest.fixture(params=["extract", pytest.param("public", marks=pytest.mark.slow)])
def public_documents(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """JSON files of the public registry's shape, without models: an extract made here, and the public ones."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if request.param == "extract":
        return write_extract(folder)
    for path in shared_data("public-registry-v1").glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture
def public_models(public_documents: Path) -> Path:
    """The public registry with a small model for every row; members of the public shape, weights beside them."""
    return with_models(public_documents)


@pytest.fixture
def smoke(made: Made, tmp_path: Path) -> Sandbox:
    """A registry of one trained smoke entry, `tiny`, that clears its gate."""
    return Sandbox(made.smoke / "registry.json").copy(tmp_path / "model")


@pytest.fixture
def production(made: Made, tmp_path: Path) -> Sandbox:
    """The same after a flip."""
    return Sandbox(made.production / "registry.json").copy(tmp_path / "model")


@pytest.fixture
def random_rows(made: Made, tmp_path: Path) -> Sandbox:
    """A registry of one smoke entry, `tiny`, that was trained on random rows."""
    return Sandbox(made.random / "registry.json").copy(tmp_path / "model")


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program in this process, with the folder and the environment of the test."""
    monkeypatch.delenv("REGISTRY_JSON", raising=False)
    return partial(run, None)


@pytest.fixture
def plugins() -> Plugins:
    """The built-in plugin and the installed ones, on a fresh manager."""
    return load()


@pytest.fixture
def thumb(tmp_path: Path) -> Sandbox:
    """A registry of one smoke entry, `t`, of the kind `thumb`: one ONNX file, and a policy that asks for a score."""
    folder = tmp_path / "thumbs"
    entry = tiny_models.entry(folder, tiny_models.model(), "t", kind="thumb")
    document = {"schema_version": 2, "policies": {"thumb": rules("score >= 0.5")}, "models": [entry]}
    (folder / "registry.json").write_bytes(to_json(document))
    return Sandbox(folder / "registry.json", "t")
