"""stress.py: the totals of what the tests sample, as figures. `make stress`, or python tests/helpers/stress.py --help.

Not collected by pytest. Exits with 1 where anything was missed, lost, corrupt or slow.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import mutations
import numpy as np
import onnx_attacks
import pytest
import tiny_models
from command_line import program
from faults import FAULTS, Injector, Outcome
from mutations import Forger, Mutation, Tally, harmless, harmless_in_version_1, unproven, unproven_words
from policies import MANUAL
from registries import TRAINING, Made
from repository import OWN_GIT, commit
from sandbox import Sandbox, to_json

sys.path.insert(0, str(Path(__file__).parents[1] / "git"))  # its tables of attacks
import test_revisions

from registry_tool.documents import store
from registry_tool.findings import Severity
from registry_tool.hookspec import Level
from registry_tool.onnx_summary import OnnxSummary
from registry_tool.plugins.manager import Plugins, load
from registry_tool.sandbox.children import kept_children
from registry_tool.sandbox.prober import Found, Prober
from registry_tool.sandbox.reader import read_model
from registry_tool.storage import lock
from registry_tool.values import EMPTY
from registry_tool.workflows import promote as promote_workflow
from registry_tool.workflows import validate as validate_workflow

bad = 0  # what must be nothing, added up


def say(name: str, **figures: object) -> None:
    print(f"{name:34}", *(f"{key.replace('_', ' ')} {value};" for key, value in figures.items()), flush=True)


def count(name: str, tally: Tally) -> None:
    global bad
    say(
        name,
        tried=tally.tried,
        caught=tally.caught,
        right_file=tally.caught - len(tally.misplaced),
        tracebacks=len(tally.tracebacks),
        time_outs=len(tally.slow),
    )
    for line in (tally.missed + tally.misplaced + tally.tracebacks + tally.slow)[:20]:
        print("   ", line)
    bad += len(tally.missed) + len(tally.tracebacks) + len(tally.slow) + len(tally.misplaced)


def errors(path: Path, plugins: Plugins, level: Level = Level.FULL) -> list[str]:
    return [str(f) for f in validate_workflow.validate(path, plugins, level).findings if f.severity is Severity.ERROR]


# ---- mutations --------------------------------------------------------------------------------------------------


def mutate(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    global bad
    alarms = 0
    boxes = {
        f"version {v}": (mutations.singles(base / f"v{v}", v), k)
        for v, k in ((1, harmless_in_version_1), (2, harmless))
    }
    for name in ("smoke", "production"):
        shutil.copytree(base / name, base / f"ensemble-{name}")
        boxes[f"ensemble {name}"] = (base / f"ensemble-{name}", harmless)
    for name, (folder, known) in boxes.items():
        for level in Level:
            alarms += len(validate_workflow.validate(folder / "registry.json", plugins, level).findings)

        def go(what: str, every: Iterable[Mutation], name: str = name, folder: Path = folder) -> None:
            chosen = list(every)
            chosen = rng.sample(chosen, max(1, int(len(chosen) * options.share)))
            count(f"{name}: {what}", mutations.run(folder, plugins, chosen))

        go("fields of the registry", mutations.registry_changes(folder, known))
        go("texts", mutations.text_changes(folder))
        go("fields of pinned documents", mutations.pinned_changes(folder))
        changes = list(mutations.byte_changes(folder, rng, 1 + options.bytes // len(boxes)))
        single = [m for m in changes if m.name.endswith("changed")]
        count(f"{name}: cuts and additions", mutations.run(folder, plugins, [m for m in changes if m not in single]))
        single = rng.sample(single, min(len(single), options.bytes // len(boxes)))
        count(f"{name}: random bytes", mutations.run(folder, plugins, single))
    folder = base / "ensemble-production"
    forger = Forger(Sandbox(folder / "registry.json"))
    for what, every in (
        ("manifest", forger.manifests(unproven)),
        ("summaries", forger.summaries(unproven_words)),
        ("verdict", forger.verdicts(unproven_words)),
        ("evidence", forger.evidence()),
        ("bytes", forger.artefacts(rng, 10)),
    ):
        forged = list(every)
        forged = rng.sample(forged, max(1, int(len(forged) * options.share)))
        count(f"forged, pins that fit: {what}", mutations.run(folder, plugins, forged))
    say("valid registries", false_alarms=alarms)
    bad += alarms


# ---- models -----------------------------------------------------------------------------------------------------


def attack(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    """ONNX files with hidden bytes and hostile content, pinned as they are; then random bytes, pinned too."""
    global bad
    folder = mutations.singles(base / "attacked", 1)
    for name, models in (("hidden bytes", onnx_attacks.hidden()), ("content", onnx_attacks.content())):
        count(f"models, pins that fit: {name}", mutations.run(folder, plugins, mutations.model_changes(folder, models)))
    data, numbers = (folder / "plain.onnx").read_bytes(), np.random.default_rng(options.seed)
    tally = mutations.run(
        folder, plugins, mutations.model_changes(folder, onnx_attacks.broken(data, options.bytes, numbers))
    )
    say(
        "models, pins that fit: random bytes",
        tried=tally.tried,
        refused=tally.caught,
        tracebacks=len(tally.tracebacks),
        time_outs=len(tally.slow),
    )
    bad += len(tally.tracebacks) + len(tally.slow)


# ---- bases ------------------------------------------------------------------------------------------------------


def trick(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    """An entry flipped by hand, and another base, another registry, or both, to hide it from `gate --base`."""
    global bad
    with pytest.MonkeyPatch.context() as patched:
        for name, value in OWN_GIT.items():
            patched.setenv(name, value)
        runs, unseen, odd, refused = 0, 0, 0, 0
        pairs = product((None, *test_revisions.OTHER_BASES), (None, *test_revisions.OTHER_REGISTRIES))
        for number, tricks in enumerate(pairs):
            clone = test_revisions.make_clone(base / f"tricks-{number}" / "top")
            clone.flip()
            ends = []
            try:
                for do in filter(None, tricks):
                    do(clone)
                ends.append(clone.gate())
                commit(clone.top)
                ends.append(clone.gate())
            except subprocess.CalledProcessError:  # on a replaced commit git itself refuses some
                refused += 1
            runs += len(ends)
            unseen += sum(ran.code == 0 for ran in ends)
            odd += sum(ran.code not in (0, 1, 2) for ran in ends)
    say("tricks with bases and registries", runs=runs, refused_by_git=refused, unseen=unseen, odd_endings=odd)
    bad += unseen + odd


# ---- kills ------------------------------------------------------------------------------------------------------


def kill(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    """Real processes, ended with SIGKILL at a random moment; then the same run again, to its end."""
    global bad
    runs: dict[str, tuple[str, tuple[object, ...]]] = {
        "flip": ("smoke", ("flip", "tiny")),
        "demote": ("production", ("flip", "tiny", "--demote", "--reason", "stress")),
        "train": ("smoke", ("train", "fr_ensemble", "--id", "other", "--smoke", *TRAINING)),
    }
    for name, (source, arguments) in runs.items():
        target = base / f"kill-{name}"
        shutil.copytree(base / source, target)
        began = time.monotonic()
        program(*arguments, "--registry", target)
        whole, killed, done, corrupt, left = time.monotonic() - began, 0, 0, 0, 0
        for _ in range(options.kills):
            shutil.rmtree(target)
            shutil.copytree(base / source, target)
            command = [sys.executable, "-m", "registry_tool", *map(str, arguments), "--registry", str(target)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.6, 1.02) * whole)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            corrupt += bool(errors(target / "registry.json", plugins))
            again = program(*arguments, "--registry", target, check=False)
            done += again.returncode == 1  # refused: the killed run had done it all
            corrupt += again.returncode not in (0, 1) or bool(errors(target / "registry.json", plugins))
            left += any(path.name.startswith(lock.STAGING_PREFIX) for path in target.rglob("*"))
        say(f"killed: {name}", runs=options.kills, killed=killed, of_them_done=done, corrupt=corrupt, leftovers=left)
        bad += corrupt + left


# ---- each write --------------------------------------------------------------------------------------------------


def step(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    """Every action that writes: killed at each of its writes; then each operation failing, once and from there on."""
    global bad
    with Prober() as prober:
        (base / "bench").mkdir()
        injector = Injector(base / "bench", prober)
        killed, failed = Outcome(), Outcome()
        for action in injector.actions:
            for at in range(sum(action.writes.values())):
                injector.kill(action, at, killed)
            for (operation, times), fault in product(sorted(action.writes.items()), FAULTS):
                for run in range(options.faults):
                    injector.fail(action, operation, fault, run % times, run // times % 2 == 0, failed)
    for name, outcome in (("killed at each write", killed), ("failing disks", failed)):
        say(
            name,
            actions=len(injector.actions),
            runs=outcome.runs,
            not_harmed=outcome.succeeded,
            corrupt=len(outcome.corrupt),
            false_success=len(outcome.false_success),
            left=len(outcome.leftovers),
            tracebacks=len(outcome.tracebacks),
        )
        for line in outcome.bad[:20]:
            print("   ", line)
        bad += len(outcome.bad)


# ---- writers ----------------------------------------------------------------------------------------------------


class Fine(AbstractContextManager["Fine"]):
    """In the prober's place: what a model does when it runs is not what writers are about."""

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, model: bytes, others: Mapping[str, bytes] = EMPTY, sha256: str | None = None) -> OnnxSummary:
        return read_model(model, others)

    def check(self, model: bytes, others: Mapping[str, bytes] = EMPTY) -> Sequence[Found]:
        return ()

    run = check


def turn(path: Path, entry: str, smoke: bool, doom: float | None, answers: Connection) -> None:
    """One change by one process; doom: the seconds that it lives once it holds the lock. It answers how long it had."""
    plugins, began = load(), [0.0]

    @contextmanager
    def held(folder: Path) -> Iterator[None]:
        with lock.locked(folder):
            began[0] = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, doom or 0.0)  # nothing handles SIGALRM: the kernel ends the process
            yield

    with patch("registry_tool.workflows.loading.locked", held), patch("registry_tool.workflows.loading.Prober", Fine):
        promote_workflow.flip(path, plugins, entry, reason="stress") if smoke else promote_workflow.demote(
            path, entry, "stress"
        )
    answers.send(time.monotonic() - began[0])


def write(base: Path, plugins: Plugins, rng: random.Random, options: argparse.Namespace) -> None:
    """Writers each turn an entry of their own to and fro; three in ten are killed in the middle of that."""
    global bad
    folder, context = base / "writers", get_context("fork")
    names = [f"m{number}" for number in range(options.writers)]
    rows = [tiny_models.entry(folder, tiny_models.model(seed=number), name) for number, name in enumerate(names)]
    for row in rows:
        row["sidecar_sha256"] = tiny_models.write(folder, f"{row['id']}.json", tiny_models.sidecar(row))
    path = folder / "registry.json"
    path.write_bytes(to_json({"schema_version": 2, "policies": {"fr": MANUAL}, "models": rows}))
    acknowledged = killed = lost = failed = reads = refused = 0
    state, lasts, doomed, halfway = dict.fromkeys(names, True), [0.02], 0, 0
    for _ in range(options.rounds):
        running = []
        for name in names:
            ours, theirs = context.Pipe(duplex=False)
            # Those who make it to the end in spite of that are made up for: three in ten shall die.
            doom = (
                rng.uniform(0.0, statistics.median(lasts)) if rng.random() < 0.3 * (doomed + 9) / (killed + 9) else None
            )
            doomed += doom is not None
            process = context.Process(target=turn, args=(path, name, state[name], doom, theirs))
            process.start()
            theirs.close()
            running.append((name, process, ours))
        while any(process.is_alive() for _, process, _ in running):
            reads += 1
            failed += isinstance(store.load(path), store.Unreadable)
            time.sleep(0.01)
        loaded = store.load(path)
        for name, process, ours in running:
            process.join()
            entry = loaded.registry.entry(name) if isinstance(loaded, store.Loaded) else None
            try:
                lasts.append(ours.recv())
                done = True
            except EOFError:
                done = False
            acknowledged += done
            killed += process.exitcode == -signal.SIGALRM
            halfway += not done and entry is not None and entry.smoke is not state[name]
            refused += process.exitcode not in (0, -signal.SIGALRM)
            lost += entry is None or (done and entry.smoke is state[name])
            state[name] = entry.smoke if entry else True
    corrupt = len(errors(path, plugins))
    say(
        "writers",
        writers=options.writers,
        rounds=options.rounds,
        acknowledged=acknowledged,
        killed=killed,
        of_them_done=halfway,
        lost=lost,
        reads=reads,
        failed_reads=failed,
        refused=refused,
        errors_in_the_end=corrupt,
    )
    bad += lost + failed + corrupt + refused + (not acknowledged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the mutations of documents")
    parser.add_argument("--bytes", type=int, default=1000, help="random byte changes")
    parser.add_argument("--kills", type=int, default=25, help="of each of flip, demote and train")
    parser.add_argument("--faults", type=int, default=25, help="runs of each fault and operation, for each action")
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parts = {part.__name__: part for part in (step, write, kill, mutate, attack, trick)}
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts))
    options = parser.parse_args()
    rng, plugins = random.Random(options.seed), load()
    with tempfile.TemporaryDirectory() as scratch, kept_children():
        base = Path(scratch)
        Made.at(base).make()
        for name in options.only:
            began = time.monotonic()
            parts[name](base, plugins, rng, options)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print("all found, nothing lost" if not bad else f"{bad} bad")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
