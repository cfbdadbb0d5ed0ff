"""Tests of train.py: what train writes and when, that nothing is half written, and what prune removes."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from disks import failing
from policies import rules
from registries import FEATURES
from sandbox import Sandbox, sha256, to_json, tree
from sketches import MODEL, Trainer, train
from thumbs import with_plugin

from registry_tool.documents import store
from registry_tool.errors import InputError, PluginError, RejectedError, WorldError
from registry_tool.hookspec import (
    TrainRequest,
    hookimpl,
)
from registry_tool.plugins.manager import load
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.validate import validate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model" / "registry.json"


# ---- train ------------------------------------------------------------------------------------------------------


def test_a_first_run_makes_the_registry(path: Path) -> None:
    """Folder, registry, policy by default, entry with its pins: and all of it validates."""
    done = train(path, trainer := Trainer())
    assert (done.created_registry, trainer.requests[0].entry_id) == (True, "s")
    document = json.loads(path.read_bytes())
    digest = done.entry.sha256
    assert document == {
        "schema_version": 2,
        "policies": {"sketch": {"rules": [{"metric": "score", "op": ">=", "bound": 0.5}]}},
        "models": [
            {
                "id": "s",
                "kind": "sketch",
                "license": "MIT",
                "manifest": f"s/{digest[:12]}/manifest.json",
                "of_the_plugin": 1,
                "sha256": digest,
                "smoke": True,
            }
        ],
    }
    manifest = (path.parent / document["models"][0]["manifest"]).read_bytes()
    assert sha256(manifest) == digest
    assert json.loads(manifest)["weights"] == {"onnx": "w.onnx", "sha256": sha256(MODEL)}
    assert (path.parent / done.folder / "w.onnx").read_bytes() == MODEL
    assert [f.code for f in validate(path, with_plugin(Trainer())).findings] == ["registry-unknown-field"]


def test_git_leaves_lock_and_staging_out(path: Path) -> None:
    """A new registry's folder has a .gitignore for what is of no commit; one that is there stays as it is."""
    train(path, Trainer())
    subprocess.run(["git", "init", "-q", path.parent], check=True)
    (path.parent / ".staging-1").write_text("x")
    names = (".registry.lock", ".staging-1")
    command = ["git", "-C", path.parent, "ls-files", "--others", "--exclude-standard", "--", *names]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b""
    path.unlink()
    (path.parent / ".gitignore").write_text("mine\n")
    train(path, Trainer(), "other")
    assert (path.parent / ".gitignore").read_text() == "mine\n"


def test_what_a_person_typed_reaches_the_plugin(path: Path, tmp_path: Path) -> None:
    """Kind, id, corpus, smoke and options arrive as they were typed."""
    trainer = Trainer()
    train(path, trainer, "my-id", corpus=tmp_path / "c.csv", smoke=False, options={"epochs": 3})
    request = trainer.requests[0]
    assert (request.kind, request.entry_id, request.corpus) == ("sketch", "my-id", tmp_path / "c.csv")
    assert (request.smoke, dict(request.options)) == (False, {"epochs": 3})


def test_the_same_run_twice_gives_the_same_bytes(path: Path) -> None:
    """A digest names the folder, so the second run finds the first one's and changes nothing."""
    train(path, Trainer())
    before = tree(path.parent)
    train(path, Trainer())
    assert tree(path.parent) == before


def test_a_smoke_entry_is_trained_again(path: Path) -> None:
    """The entry points to the new folder, the old one stays until pruned, validate mentions it; the policy is kept."""
    old = train(path, Trainer())
    document = json.loads(path.read_bytes())
    document["policies"]["sketch"]["rules"][0]["bound"] = 0.9
    path.write_bytes(to_json({**document, "of_another_version": 1}))
    new = train(path, Trainer(note="again"))
    assert (old.replaced, new.replaced and new.replaced.sha256) == (None, old.entry.sha256)
    document = json.loads(path.read_bytes())
    assert [m["sha256"] for m in document["models"]] == [new.entry.sha256]
    assert document["policies"]["sketch"]["rules"][0]["bound"] == 0.9
    assert document["of_another_version"] == 1
    found = validate(path, with_plugin(Trainer())).findings
    assert {(f.code, f.file, str(f.severity)) for f in found} == {
        ("registry-unknown-field", "registry.json", "warning"),
        ("folder-unused", old.folder, "note"),
    }


def test_entries_of_others_are_left_alone(smoke: Sandbox) -> None:
    """Training one entry keeps every field of the others, of the policies and of the document."""
    smoke.edit(lambda document: document.update(of_another_version={"x": [1]}))
    smoke.edit_entry(of_another_version={"y": None})
    before = smoke.registry
    train(smoke.path, Trainer(), "a-sketch")
    after = smoke.registry
    assert [m for m in after["models"] if m["id"] == "tiny"] == before["models"]
    assert [m["id"] for m in after["models"]] == ["a-sketch", "tiny"]
    assert after["policies"]["fr_ensemble"] == before["policies"]["fr_ensemble"]
    assert after["of_another_version"] == {"x": [1]}


@pytest.mark.parametrize("bad", ["", "A", "-a", "a b", "a/b", "../a", "a" * 65, "a\n", "\u0430"])
def test_an_id_that_is_none_is_refused_before_training(path: Path, bad: str) -> None:
    """Nobody trains for minutes to learn that the id is wrong."""
    with pytest.raises(InputError, match="--id"):
        train(path, trainer := Trainer(), bad)
    assert (trainer.requests, path.exists()) == ([], False)


def test_a_production_id_is_refused_before_training(production: Sandbox) -> None:
    """What ships does not change: take a new id."""
    before = production.tree()
    with pytest.raises(RejectedError, match=r"tiny is production.*new --id"):
        train_workflow.train(production.path, load(), TrainRequest("fr_ensemble", "tiny"))
    assert production.tree() == before


def test_an_id_that_turned_production_meanwhile_is_refused(path: Path) -> None:
    """Somebody flipped the id while it was trained: the registry keeps what ships."""
    train(path, Trainer())

    def flipped() -> None:
        document = json.loads(path.read_bytes())
        document["models"][0] |= {"smoke": False, "promotion": {"manual": True, "reason": "meanwhile"}}
        path.write_bytes(to_json(document))

    with pytest.raises(RejectedError, match="production"):
        train(path, Trainer(hurt=flipped, note="new"))
    [entry] = json.loads(path.read_bytes())["models"]
    assert (entry["smoke"], entry["promotion"]["reason"]) == (False, "meanwhile")


def test_what_was_registered_meanwhile_is_kept(path: Path) -> None:
    """An entry that another run registered while this one trained is there afterwards."""
    train(path, Trainer(hurt=lambda: train(path, Trainer(), "other")))
    assert [m["id"] for m in json.loads(path.read_bytes())["models"]] == ["other", "s"]


def test_an_id_of_another_kind_is_refused(smoke: Sandbox) -> None:
    """An id keeps its kind."""
    with pytest.raises(InputError, match="kind 'fr_ensemble', not 'sketch'"):
        train(smoke.path, Trainer(), "tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "json"),
        (b"{}", "schema_version"),
        (b'{"schema_version": 1, "models": []}', "expected 2"),
        (b'{"schema_version": 2, "models": []}', "policies"),
        (b'{"schema_version": 3, "models": []}', "0, 1 or 2"),
    ],
)
def test_a_registry_that_cannot_take_the_entry_is_refused_before_training(
    path: Path, text: bytes, message: str
) -> None:
    """Broken or of an older version: one line, no training, the file as it was."""
    path.parent.mkdir()
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"(?i)" + message):
        train(path, trainer := Trainer())
    assert (trainer.requests, path.read_bytes()) == ([], text)


def test_an_unknown_kind_cannot_be_trained(path: Path) -> None:
    """Neither can one whose plugin does not train."""
    with pytest.raises(InputError, match="'unheard_of'"):
        train_workflow.train(path, load(), TrainRequest("unheard_of", "a"))
    with pytest.raises(InputError, match=r"'fr'.*cannot be trained"):
        train_workflow.train(path, load(), TrainRequest("fr", "a"))
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (Trainer(b"not a model"), "not validate"),
        (Trainer(id="other"), "not validate"),
        (Trainer(kind="other"), "not validate"),
        (Trainer(weights=[]), "does not name it"),
        (Trainer(smoke=False), "registry alone says"),
        (Trainer(extra={"path": "gone.bin"}), "no such file was made"),
    ],
)
def test_what_does_not_validate_is_not_registered(
    smoke: Sandbox, tmp_path: Path, trainer: Trainer, message: str
) -> None:
    """A plugin that makes an unsound entry is named; registry and folder are as they were, and none where none was."""
    before, new = smoke.tree(), tmp_path / "new" / "registry.json"
    for registry in (smoke.path, new):
        with pytest.raises(PluginError, match=message):
            train(registry, trainer)
    assert (smoke.tree(), new.parent.exists()) == (before, False)


def test_a_refused_run_takes_nothing_that_is_registered_with_it(path: Path) -> None:
    """The same bytes trained again under a plugin that fails: the run is refused, the entry that stood there stays."""

    class Broken:
        @hookimpl
        def registry_verify(self, view: Any, level: Any) -> Any:
            raise RuntimeError("a bug")

    train(path, Trainer())
    plugins = with_plugin(Trainer())
    plugins.add(Broken(), "broken")
    with pytest.raises(PluginError, match="broken"):
        train(path, None, plugins=plugins)
    assert [f.code for f in validate(path, with_plugin(Trainer())).findings] == ["registry-unknown-field"]


@pytest.mark.parametrize(
    "error", [InputError("no such column"), WorldError("no memory"), KeyboardInterrupt(), RuntimeError("bug")]
)
def test_a_run_that_ends_early_leaves_nothing(smoke: Sandbox, error: BaseException) -> None:
    """Bad input, a broken world, Ctrl-C, a bug: not a byte is written."""

    def hurt() -> None:
        raise error

    before = smoke.tree()
    with pytest.raises((InputError, WorldError, KeyboardInterrupt, PluginError)):
        train(smoke.path, Trainer(hurt=hurt))
    assert smoke.tree() == before


FAULTS = [
    ("write", errno.ENOSPC),
    ("fsync", errno.EIO),
    ("rename", errno.EROFS),
    ("mkdir", errno.EACCES),
    ("open", errno.EDQUOT),
]


@pytest.mark.parametrize(("operation", "number"), FAULTS)
@pytest.mark.parametrize("after", [0, 1, 2, 4, 7])
def test_a_failing_disk_leaves_the_old_registry(smoke: Sandbox, operation: str, number: int, after: int) -> None:
    """Full, failing or read-only at any write: either it went well or a clear error and a registry that validates."""
    plugins = with_plugin(Trainer())
    before = smoke.path.read_bytes()
    with failing(operation, number, after):
        message = ""
        try:
            train(smoke.path, None, plugins=plugins)
        except WorldError as error:
            message = str(error)
    failed = message != ""
    assert message.count("\n") == 0
    registered = smoke.path.read_bytes() != before
    if operation == "fsync":  # of the folder, after the rename, it may fail with the new registry in place
        assert {failed, registered} & {True}
    else:
        assert registered is not failed
    assert smoke.codes(plugins=plugins) == []
    train(smoke.path, None, plugins=plugins)
    assert smoke.codes(plugins=plugins) == []
    assert not list(smoke.folder.rglob(".staging-*"))


def test_a_killed_runs_leftovers_are_cleaned_up(smoke: Sandbox) -> None:
    """A staging folder of a run that died blocks nobody and goes with the next run."""
    left = smoke.folder / ".staging-0123456789abcdef"
    left.mkdir()
    (left / "w.onnx").write_bytes(b"half")
    (smoke.folder / "tiny" / ".staging-fedcba9876543210").write_bytes(b"half")
    assert smoke.codes() == []
    train(smoke.path, Trainer())
    assert not list(smoke.folder.rglob(".staging-*"))


# ---- the real plugin --------------------------------------------------------------------------------------------


def test_the_trained_ensemble_is_pinned_whole(smoke: Sandbox) -> None:
    """Registry, manifest, members, fused graph and evidence are one chain: every file is named and hashed."""
    manifest = smoke.manifest
    names = {
        "tiny.onnx",
        *(f"evidence/{name}.npz" for name in ("fingerprints", "inputs", "oof")),
        *(f"tiny_seed{s}.onnx" for s in range(3)),
    }
    names |= {f"evidence/loso_seed{seed}.json" for seed in range(3)}
    pinned = {manifest["fused"]["onnx"]: manifest["fused"]["sha256"]}
    pinned |= {member["onnx"]: member["sha256"] for member in manifest["members"]}
    pinned |= {item["path"]: item["sha256"] for item in manifest["evidence"]}
    assert pinned == {name: sha256((smoke.artifacts / name).read_bytes()) for name in names}
    assert set(tree(smoke.artifacts)) == names | {"manifest.json"}
    assert smoke.entry["sha256"] == sha256((smoke.artifacts / "manifest.json").read_bytes())
    assert (smoke.artifacts.name, smoke.entry["smoke"]) == (smoke.entry["sha256"][:12], True)
    assert manifest["feature_order"] == list(FEATURES)
    assert smoke.findings() == ()


def test_the_registry_of_a_run_has_its_policy_written_out(tmp_path: Path) -> None:
    """What an entry has to meet is in the registry, where lowering it is a visible diff."""
    path = tmp_path / "registry.json"
    train(path, Trainer())
    document = json.loads(path.read_bytes())
    assert document["policies"] == {"sketch": rules("score >= 0.5")}
    assert store.REGISTRY_VERSION == document["schema_version"] == 2
