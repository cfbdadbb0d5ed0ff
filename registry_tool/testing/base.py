"""base.py: what a plugin author sets, the fixtures of the suite, and what it asks of every call. Tests nothing."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import pytest

from registry_tool.hookspec import Hooks
from registry_tool.plugins.manager import LoadedPlugin
from registry_tool.sandbox.children import kept_children
from registry_tool.testing import child
from registry_tool.testing.bench import Bench, plugin_of, tree

OLDER_NAMES = {"registry_load": "registry_predict"}  # a hook -> the deprecated one that serves in its place
HOOKS = tuple(name for name in vars(Hooks) if name.startswith("registry_") and name not in OLDER_NAMES.values())
GOOD_ID = "good"  # id of the entry that `make_registry` trains


class SuiteSetup:
    """See `PluginSuite`."""

    plugin: ClassVar[object]
    kind: ClassVar[str]
    corpus: ClassVar[Path | None] = None
    arguments: ClassVar[Sequence[str]] = ()
    optional: ClassVar[Sequence[str]] = ()
    deterministic: ClassVar[bool] = True
    promotes: ClassVar[bool] = True
    heavy: ClassVar[Sequence[str]] = ()
    _made: ClassVar[dict[type, Path]] = {}

    @pytest.fixture(autouse=True)
    def one_child(self) -> Iterator[None]:
        """One process looks at all models of a test."""
        with kept_children():
            yield

    def make_registry(self, folder: Path, rows: Path | None) -> None:
        """Write a registry.json with one good smoke entry of the kind into `folder`; called once a class.

        A kind that cannot be trained, or not in seconds, brings an entry of its own here.
        """
        self.bench(folder).train(GOOD_ID, rows, self.arguments)

    def bench(self, folder: Path) -> Bench:
        """A registry in that folder, and the plugin under test alone."""
        return Bench(folder / "registry.json", self.plugin, self.kind)

    @pytest.fixture
    def rows(self) -> Path | None:
        """`corpus`; override it where a fixture makes the rows."""
        return self.corpus.absolute() if self.corpus else None

    @pytest.fixture
    def good_registry(self, rows: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a registry that no test writes to; override it where a fixture makes one."""
        if type(self) not in SuiteSetup._made:
            folder = tmp_path_factory.mktemp("good") / "model"
            folder.mkdir()
            self.make_registry(folder, rows)
            SuiteSetup._made[type(self)] = folder
        return SuiteSetup._made[type(self)]

    @pytest.fixture
    def good(self, good_registry: Path, tmp_path: Path) -> Bench:
        """A copy of that registry."""
        return self.bench(good_registry).copy(tmp_path / "model")

    @pytest.fixture
    def loaded(self) -> LoadedPlugin:
        """The plugin under test as the core sees it."""
        return self.bench(Path()).plugins.loaded[0]

    def need(self, hook: str) -> None:
        """Skip where the plugin does not offer a hook: it need not."""
        plugin = plugin_of(self.plugin)
        if not hasattr(plugin, hook) and not hasattr(plugin, OLDER_NAMES.get(hook, hook)):
            pytest.skip(f"the plugin has no {hook}")

    def ask_process(self, task: str, registry: Path, seed: int = 0, **more: object) -> dict[str, Any]:
        """What a task of `child` on the plugin under test answers."""
        plugin: Any = self.plugin
        name = plugin if isinstance(plugin, str) else plugin.__name__
        return child.ask(seed, task=task, plugin=name, kind=self.kind, registry=registry, **more)


def _process() -> dict[str, Any]:
    umask = os.umask(0)
    os.umask(umask)
    return {"environment": dict(os.environ), "random state": random.getstate(), "umask": umask}


@contextmanager
def undisturbed(tmp_path: Path, *folders: Path) -> Iterator[None]:
    """Fails where what runs inside prints, writes into these folders or the current one, or changes the process."""
    current, elsewhere = Path.cwd(), tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    before, files, output = _process(), {folder: tree(folder) for folder in folders}, io.StringIO()
    os.chdir(elsewhere)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
        moved = Path.cwd() != elsewhere.resolve()
    finally:
        os.chdir(current)
    assert not output.getvalue(), f"a hook printed {output.getvalue()[:200]!r}: return a value, a Finding or a warning"
    assert not moved, "a hook changed the current folder: leave it as it is"
    assert not any(elsewhere.iterdir()), "a hook wrote into the current folder: return bytes, the core writes"
    for name, value in _process().items():
        assert value == before[name], f"a hook changed the {name} of the process: leave it as it is"
    for folder, old in files.items():
        new = tree(folder)
        changed = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
        assert not changed, f"a hook wrote {changed} into the registry's folder: return bytes, the core writes"
