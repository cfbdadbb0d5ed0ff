"""faults.py: everything that writes a registry, with a disk that fails or a kill at each step. Asserts nothing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mutations
import tiny_models
from sandbox import tree

from registry_tool.errors import RegistryError, RejectedError
from registry_tool.findings import Severity
from registry_tool.hookspec import GateRequest, Kind, Trained, TrainRequest, hookimpl
from registry_tool.plugins.manager import Plugins, load
from registry_tool.sandbox.prober import Prober
from registry_tool.storage import disk, paths
from registry_tool.values import Evidence, Policy, Rule
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.housekeeping import prune
from registry_tool.workflows.migrate import migrate
from registry_tool.workflows.promote import demote
from registry_tool.workflows.validate import validate

WRITES: dict[str, tuple[tuple[Any, str], ...]] = {  # operation -> the calls that do it
    "open": ((disk, "open"),),
    "write": ((disk, "write"),),
    "fsync": ((disk, "fsync"), (os, "fsync")),
    "rename": ((disk, "rename"), (os, "rename")),
    "mkdir": ((disk, "mkdir"), (os, "mkdir")),
    "remove": ((os, "unlink"), (os, "rmdir")),
}
FAULTS: dict[str, int] = {  # the last one: the call has done its work, and says that it has not
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EROFS": errno.EROFS,
    "EACCES": errno.EACCES,
    "EDQUOT": errno.EDQUOT,
    "EIO when done": errno.EIO,
}


class Light:
    """A kind that trains at once and has a gate: all that the core writes, without what a real model takes."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("light", "tests", {"type": "object"}, (), Policy((Rule("score", ">=", 0.5),)))]

    @hookimpl
    def registry_train(self, request: TrainRequest) -> Trained | None:
        model = tiny_models.model(seed=request.options["seed"]).SerializeToString()
        manifest = {"id": request.entry_id, "members": [{"onnx": "m.onnx"}], "notes": {"path": "more/notes.json"}}
        return Trained({"m.onnx": model, "more/notes.json": b"{}"}, manifest, entry={"license": "MIT"})

    @hookimpl
    def registry_gate(self, view: object, request: GateRequest) -> Evidence | None:
        return Evidence({"score": 0.9}, sha256="0" * 64)


@dataclass(frozen=True, slots=True)
class Action:
    """What writes. before: a folder to start from; do: gets a copy of it. writes: how often it calls what, unharmed."""

    name: str
    before: Path
    do: Callable[[Path], object]
    after: dict[str, bytes] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Outcome:
    """Runs of actions; the lists hold what went wrong, one line each."""

    runs: int = 0
    succeeded: int = 0  # the fault was not reached, or did no harm
    corrupt: list[str] = field(default_factory=list)  # neither old nor new, or an error finding
    false_success: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)  # after the next run
    tracebacks: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[str]:
        return self.corrupt + self.false_success + self.leftovers + self.tracebacks


class Injector:
    """The actions, each run once unharmed; one child of `Prober` looks at the models of every run."""

    def __init__(self, base: Path, prober: Prober) -> None:
        self.base, self.plugins, self.prober = base, load(), prober
        self.plugins.add(Light(), "light", "1")
        self.actions = [self._measured(action) for action in _actions(base, self.plugins)]

    def _measured(self, action: Action) -> Action:
        def count(operation: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            action.writes[operation] += 1
            return real(*arguments, **options)

        folder = self.copy(action)
        with self.probing(), every_write(count):
            action.do(folder)
        action.after.update(tree(folder))
        return action

    def probing(self) -> ExitStack:
        stack = ExitStack()
        for room in ("checks.registry", "workflows.migrate", "workflows.loading"):
            stack.enter_context(patch(f"registry_tool.{room}.Prober", lambda: nullcontext(self.prober)))
        return stack

    def copy(self, action: Action) -> Path:
        folder = self.base / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(action.before, folder)
        return folder

    # ---- a disk that fails --------------------------------------------------------------------------------------

    def fail(self, action: Action, operation: str, fault: str, nth: int, once: bool, into: Outcome) -> None:
        """The nth call of the operation fails, and every one after it unless `once`; then the action again."""
        folder, calls = self.copy(action), 0
        name = f"{action.name}: {operation} {nth} {fault}{'' if once else ' and on'}"

        def step(_: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            harmed = calls == nth + 1 or (calls > nth and not once)
            if harmed and "done" in fault:
                real(*arguments, **options)
            if harmed:
                raise OSError(FAULTS[fault], "injected")
            return real(*arguments, **options)

        into.runs += 1
        try:
            with self.probing(), every_write(step, operation):
                action.do(folder)
        except RegistryError:
            pass
        except Exception:
            into.tracebacks.append(f"{name}: {traceback.format_exc(limit=-4)}")
        else:
            into.succeeded += 1
            if _registries(tree(folder)) != _registries(action.after):
                into.false_success.append(name)
        self._judge(name, action, folder, into)

    # ---- a kill -------------------------------------------------------------------------------------------------

    def kill(self, action: Action, at: int, into: Outcome) -> None:
        """A real process ends before its write number `at`, half of which is done where it is one of bytes."""
        folder, calls = self.copy(action), 0

        def step(operation: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                if operation == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        process = os.fork()
        if process == 0:
            code = 1
            try:
                with self.probing(), every_write(step):
                    action.do(folder)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        into.runs += 1
        into.succeeded += status == 0
        name = f"{action.name}: killed at {at}"
        if not os.WIFSIGNALED(status) and status != 0:
            into.tracebacks.append(name)
        self._judge(name, action, folder, into)

    def _judge(self, name: str, action: Action, folder: Path, into: Outcome) -> None:
        """The registry is the old or the new one and validates; the same run again ends as an unharmed one does."""
        found = _registries(tree(folder))
        if found not in (_registries(tree(action.before)), _registries(action.after)):
            into.corrupt.append(f"{name}: neither old nor new")
        into.corrupt += [f"{name}: {line}" for line in self._errors(folder)]
        try:
            with self.probing():
                action.do(folder)
        except RegistryError as error:
            if found != _registries(action.after):  # then it was done, and the second is refused
                into.corrupt.append(f"{name}: again: {error}")
        except Exception:
            into.tracebacks.append(f"{name}: again: {traceback.format_exc(limit=-4)}")
        into.corrupt += [f"{name}: again: {line}" for line in self._errors(folder)]
        if names := sorted(tree(folder).items() ^ action.after.items()):
            into.leftovers.append(f"{name}: {[path for path, _ in names]}")

    def _errors(self, folder: Path) -> Iterator[str]:
        with self.probing():
            for path in folder.rglob("registry.json"):
                if not any(part.startswith(paths.STAGING_PREFIX) for part in path.relative_to(folder).parts):
                    found = validate(path, self.plugins).findings
                    yield from (str(f) for f in found if f.severity is Severity.ERROR)


@contextmanager
def every_write(step: Callable[..., Any], *operations: str) -> Iterator[None]:
    """Each call that writes goes through step(operation, the real call, its arguments)."""
    with ExitStack() as stack:
        for operation in operations or WRITES:
            for module, name in WRITES[operation]:
                stack.enter_context(patch.object(module, name, partial(step, operation, getattr(module, name))))
        yield


def _registries(found: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: data
        for path, data in found.items()
        if path.endswith("registry.json") and not path.startswith(paths.STAGING_PREFIX)
    }


def _migrated(plugins: Plugins) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        if not (found := migrate(folder / "old" / "registry.json", folder / "new", plugins)).done:
            raise RejectedError(str(found.broken))

    return do


def _actions(base: Path, plugins: Plugins) -> Sequence[Action]:
    """Whatever writes a registry; a new story takes one line."""

    def train(name: str, seed: int) -> Callable[[Path], object]:
        request = TrainRequest("light", name, options={"seed": seed})
        return lambda folder: train_workflow.train(folder / "registry.json", plugins, request)

    def flip(name: str, reason: str | None = None) -> Callable[[Path], object]:
        return lambda folder: promote_workflow.flip(folder / "registry.json", plugins, name, reason)

    none, one, production, two = (base / name for name in ("none", "one", "production", "two"))
    none.mkdir()
    shutil.copytree(none, one)
    train("one", 1)(one)
    shutil.copytree(one, production)
    flip("one")(production)
    shutil.copytree(one, two)
    train("one", 2)(two)
    hand = mutations.singles(base / "hand", 2)
    mutations.singles(base / "old" / "old", 1)
    return [
        Action("train", one, train("other", 3)),
        Action("train again", one, train("one", 3)),
        Action("train first", none, train("one", 1)),
        Action("flip", one, flip("one")),
        Action("flip by hand", hand, flip("external", "looked at")),
        Action("demote", production, lambda folder: demote(folder / "registry.json", "one", "stress")),
        Action("prune", two, lambda folder: prune(folder / "registry.json", dry_run=False)),
        Action("migrate", base / "old", _migrated(plugins)),
    ]
