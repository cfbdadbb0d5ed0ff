"""base.py: what a plugin author sets, the fixtures of the suite, and what it asks of every call. Tests nothing."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from registry_tool.hookspec import Hooks
from registry_tool.plugins.manager import LoadedPlugin
from registry_tool.sandbox.children import kept_children
from registry_tool.testing import child
from registry_tool.testing.bench import Bench, plugin_of, tree
from registry_tool.testing.evidence import EvidenceTable
from registry_tool.values import EMPTY, Json

Test = TypeVar("Test", bound=Callable[..., object])

OLDER_NAMES = {"registry_load": "registry_predict"}  # a hook -> the deprecated one that serves in its place
HOOKS = tuple(name for name in vars(Hooks) if name.startswith("registry_") and name not in OLDER_NAMES.values())
GOOD_ID = "good"  # id of the entry that `make_registry` trains


def needs(*hooks: str) -> Callable[[Test], Test]:
    """Marks a test that asks these hooks. It is none of a plugin's that offers no one of them.

    A test with an argument `hook` is run with each of them that the plugin offers.
    """

    def mark(test: Test) -> Test:
        vars(test)["hooks"] = hooks
        return test

    return mark


class SuiteSetup:
    """See `PluginSuite`."""

    plugin: ClassVar[object]
    kind: ClassVar[str]
    corpus: ClassVar[Path | None] = None
    unseen: ClassVar[Path | None] = None
    arguments: ClassVar[Sequence[str]] = ()
    evidence: ClassVar[EvidenceTable | None] = None
    without: ClassVar[Mapping[str, str]] = EMPTY
    optional: ClassVar[Sequence[str]] = ()
    deterministic: ClassVar[bool] = True
    promotes: ClassVar[bool] = True
    heavy: ClassVar[Sequence[str]] = ()
    _made: ClassVar[dict[type, dict[str, Path]]] = {}

    def __init_subclass__(cls) -> None:
        """Leaves out the tests of hooks that the plugin does not offer; `without` says why it does not."""
        super().__init_subclass__()
        offered = cls.offered() if hasattr(cls, "plugin") else HOOKS
        for name in dir(cls):
            hooks = getattr(getattr(cls, name), "hooks", None)
            if name.startswith("test_") and hooks and not {*hooks} & {*offered}:
                setattr(cls, name, None)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test of hooks, with the hooks that the plugin offers, or leaves out."""
        offered = self.offered()
        if "hook" in metafunc.fixturenames and (hooks := getattr(metafunc.function, "hooks", None)):
            metafunc.parametrize("hook", [hook for hook in hooks if hook in offered])
        if "missing" in metafunc.fixturenames:
            metafunc.parametrize("missing", [hook for hook in HOOKS if hook not in offered] or ["none"])

    @classmethod
    def offered(cls) -> Sequence[str]:
        """The hooks that the plugin has; all, where it does not load: `test_it_loads` says why."""
        try:
            plugin = plugin_of(cls.plugin)
        except Exception:
            return HOOKS
        return [hook for hook in HOOKS if hasattr(plugin, hook) or hasattr(plugin, OLDER_NAMES.get(hook, hook))]

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

    def other_model(self) -> Mapping[str, bytes]:
        """Pinned files by path that are another model's; a kind that trains nothing brings them here."""
        return {}

    def bench(self, folder: Path) -> Bench:
        """A registry in that folder, and the plugin under test alone."""
        return Bench(folder / "registry.json", self.plugin, self.kind)

    @pytest.fixture
    def rows(self) -> Path | None:
        """`corpus`; override it where a fixture makes the rows."""
        return self.corpus.absolute() if self.corpus else None

    @pytest.fixture
    def other_rows(self) -> Path | None:
        """`unseen`; override it where a fixture makes the rows."""
        return self.unseen.absolute() if self.unseen else None

    @pytest.fixture
    def good_registry(self, rows: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a registry that no test writes to; override it where a fixture makes one."""
        return self._once("good", tmp_path_factory, lambda folder: self.make_registry(folder, rows))

    @pytest.fixture
    def of_random_rows(self, good: Bench, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Bench:
        """A copy of a registry with an entry of the good one's id that was trained on random rows."""

        def make(folder: Path) -> None:
            with undisturbed(tmp_path):
                self.bench(folder).train(good.id, None, self.arguments, smoke=True)

        return self.bench(self._once("random", tmp_path_factory, make)).copy(tmp_path / "random")

    def _once(self, name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
        """A folder that is made once a class."""
        made = SuiteSetup._made.setdefault(type(self), {})
        if name not in made:
            folder = factory.mktemp(name) / "model"
            folder.mkdir()
            make(folder)
            made[name] = folder
        return made[name]

    @pytest.fixture
    def good(self, good_registry: Path, tmp_path: Path) -> Bench:
        """A copy of that registry."""
        return self.bench(good_registry).copy(tmp_path / "model")

    @pytest.fixture
    def loaded(self) -> LoadedPlugin:
        """The plugin under test as the core sees it."""
        return self.bench(Path()).plugins.loaded[0]

    def ask_process(self, task: str, registry: Path, seed: int = 0, **more: object) -> dict[str, Json]:
        """What a task of `child` on the plugin under test answers."""
        plugin: Any = self.plugin
        name = plugin if isinstance(plugin, str) else plugin.__name__
        return child.ask(seed, task=task, plugin=name, kind=self.kind, registry=registry, **more)


def _process() -> dict[str, Json]:
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
