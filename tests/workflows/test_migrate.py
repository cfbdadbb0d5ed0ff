"""Tests of migrate.py: version 0 and 1 become version 2, all pinned, every finding told, the old folder untouched."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Program
from migrating import ensemble, errors, old, outside, run
from sandbox import Sandbox, to_json, tree
from tiny_models import ENCODERS, entry, model, sidecar, write

from registry_tool import schemas
from registry_tool.documents.schema import violations
from registry_tool.findings import Severity
from registry_tool.plugins.manager import load
from registry_tool.workflows import compare_with_base
from registry_tool.workflows.migrate import Migration
from registry_tool.workflows.validate import validate

ENSEMBLE = "fr_regressor_v2_ensemble_v1"


def resolutions(done: Migration) -> dict[str, str]:
    """code -> what was done about it."""
    return {found.finding.code: found.resolution for found in done.findings}


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads((folder / "registry.json").read_bytes())["models"]}


# ---- the public registry ----------------------------------------------------------------------------------------


def test_the_public_registry_becomes_a_valid_one(public_models: Path, tmp_path: Path) -> None:
    """No error, every row a single model as it was or a member, and the old folder byte for byte what it was."""
    before = tree(public_models.parent)
    done = run(public_models, tmp_path / "new")
    assert tree(public_models.parent) == before
    assert done.written
    assert errors(done.new) == []
    rows, made = entries(public_models.parent), entries(done.new)
    members = {name for name in rows if name.startswith(ENSEMBLE)}
    assert len(members) == 5
    assert made.keys() == rows.keys() - members | {ENSEMBLE}
    imported = {"imported_from": hashlib.sha256(public_models.read_bytes()).hexdigest()}
    for name, row in rows.items():
        if name not in members:
            kept = {key: made[name].get(key) for key in row}
            assert kept == row | ({"smoke": False} if "smoke" in row and not row["smoke"] else {})
            assert made[name]["smoke"] is row.get("smoke", False)
            assert made[name].get("promotion") == (None if row.get("smoke") else imported)
    assert made["fr_regressor_v1"]["sidecar_sha256"] == hashlib.sha256(before["fr_regressor_v1.json"]).hexdigest()


def test_the_public_ensemble_is_joined(public_models: Path, tmp_path: Path) -> None:
    """One smoke entry whose manifest pins the registry's members, their weights, sidecars and the old documents."""
    done = run(public_models, tmp_path / "new")
    [joined] = done.joined
    row = entries(done.new)[ENSEMBLE]
    assert (row["kind"], row["smoke"], row["license"]) == ("fr_ensemble", True, "BSD-3-Clause-Plus-Patent")
    assert "no evidence" in row["demotion"]["reason"]
    assert "promotion" not in row
    manifest = json.loads((done.new / row["manifest"]).read_bytes())
    loose = json.loads((public_models.parent / f"{ENSEMBLE}.json").read_bytes())
    rows, member = (
        entries(public_models.parent),
        json.loads((public_models.parent / f"{ENSEMBLE}_seed0.json").read_bytes()),
    )
    assert [m["sha256"] for m in manifest["members"]] == [rows[name]["sha256"] for name in joined.members]
    assert all(len(m["external_data"]) == 1 and m["sidecar"] and m["row"]["notes"] for m in manifest["members"])
    assert manifest["codec_vocab"] == member["encoder_vocab"]
    assert manifest["feature_mean"] == member["feature_mean"]
    assert (manifest["eval"], manifest["confidence"]) == (loose["eval"], loose["confidence"])
    assert "smoke" not in manifest
    folder = (done.new / row["manifest"]).parent
    kept = manifest["migration"]
    assert (folder / kept["manifest"]["path"]).read_bytes() == (public_models.parent / f"{ENSEMBLE}.json").read_bytes()
    assert [Path(pin["path"]).name for pin in kept["verdicts"]] == [f"{ENSEMBLE}_seed_flip_PROMOTE.json"]


def test_another_nominal_coverage_is_joined_with_its_own_z(public_models: Path, tmp_path: Path) -> None:
    """A manifest that gives 90 % with the z of 95 % is told of, and joined with the z of 90 %."""
    path = public_models.parent / f"{ENSEMBLE}.json"
    loose = json.loads(path.read_bytes())
    loose["confidence"] |= {"nominal_coverage": 0.9}
    path.write_text(json.dumps(loose))
    done = run(public_models, tmp_path / "new")
    [joined] = done.joined
    manifest = json.loads((done.new / joined.entry.path).read_bytes())
    assert manifest["confidence"]["gaussian_z"] == pytest.approx(1.6448536, abs=1e-7)
    assert errors(done.new) == []
    assert "gaussian_z was computed from nominal_coverage" in resolutions(done)["loose-confidence"]


def test_every_finding_on_the_public_registry_is_told(public_models: Path, tmp_path: Path) -> None:
    """Stale pins, width, smoke, scaler, verdict, weak and missing pins are resolved; what remains is told too."""
    done = run(public_models, tmp_path / "new")
    found = resolutions(done)
    loose = ("member-disagrees", "codec-width", "smoke-mismatch", "sidecar-disagrees", "verdict")
    for code in ("onnx-external-weak", "onnx-external-unpinned", *(f"loose-{x}" for x in loose)):
        assert found[code], code
    assert (found["sidecar-missing"], found["bundle-missing"]) == ("", "")
    remaining = {found.finding.code for found in done.findings if not found.resolution}
    assert {f.code for f in validate(done.new / "registry.json", load()).findings} <= remaining
    assert done.left_behind == ("registry.schema.json",)


@pytest.mark.parametrize("members", [5, "text", {"a": 1}, [5], [None], [{}], [{"onnx": 3}], True], ids=repr)
def test_members_of_any_shape_are_not_joined_with_a_reason(tmp_path: Path, members: object) -> None:
    """A manifest whose members are none is a finding; its rows are taken over by themselves."""
    path = ensemble(tmp_path / "old", members=members)
    done = run(path, tmp_path / "new")
    assert (done.done, errors(done.new)) == (True, [])
    assert [found.finding.file for found in done.findings if found.finding.code == "migration-not-joined"] == [
        "sub/e.json"
    ]


def test_a_second_run_gives_the_same_bytes(public_models: Path, tmp_path: Path) -> None:
    """Into another folder the same bytes, into the same folder nothing."""
    first, second = run(public_models, tmp_path / "new"), run(public_models, tmp_path / "other")
    assert tree(first.new) == tree(second.new)
    again = run(public_models, tmp_path / "new")
    assert (again.done, again.written) == (True, False)
    assert tree(first.new) == tree(second.new)


def test_the_gate_takes_a_migration_for_what_it_is(public_models: Path, tmp_path: Path) -> None:
    """Held against the old registry, every imported single model is kept: nothing promotes it, nothing is held."""
    done = run(public_models, tmp_path / "new")
    compared = compare_with_base.gate_base(done.new / "registry.json", load(), public_models)
    assert (compared.passes, compared.judgements) == (True, ())
    kept = {change.subject for change in compared.changes if change.action == "kept"}
    assert kept >= {"fr_regressor_v1", "vmaf_tiny_v2", "transnet_v2"}


# ---- what is pinned ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("sha1", [False, True])
def test_weights_in_other_files_are_pinned(tmp_path: Path, version: int, sha1: bool) -> None:
    """By sha256 and size, with the sidecar; a flipped byte of either is an error from then on."""
    folder = tmp_path / "old"
    row = entry(folder, outside(model(), folder, "w.data", sha1=sha1), smoke=False)
    write(folder, "m.json", sidecar(row))
    done = run(old(folder, row, version=version), tmp_path / "new")
    data = (folder / "w.data").read_bytes()
    made = entries(done.new)["m"]
    pin = {"path": "w.data", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert made["external_data"] == [pin]
    assert errors(done.new) == []
    for name in ("w.data", "m.json"):
        good = (done.new / name).read_bytes()
        (done.new / name).write_bytes(good[:-1] + b"?")
        assert any("pinned" in text for text in errors(done.new))
        (done.new / name).write_bytes(good)


def broken_pin(folder: Path, row: dict[str, Any]) -> None:
    row["sha256"] = "0" * 64


def broken_sha1(folder: Path, row: dict[str, Any]) -> None:
    (folder / "w.data").write_bytes((folder / "w.data").read_bytes()[::-1])


def broken_file(folder: Path, row: dict[str, Any]) -> None:
    (folder / "m.onnx").unlink()


def broken_link(folder: Path, row: dict[str, Any]) -> None:
    (folder / "w.data").rename(folder.parent / "w.data")
    (folder / "w.data").symlink_to(folder.parent / "w.data")


def broken_model(folder: Path, row: dict[str, Any]) -> None:
    row["sha256"] = write(folder, "m.onnx", b"no model")


@pytest.mark.parametrize("break_it", [broken_pin, broken_sha1, broken_file, broken_link, broken_model])
def test_what_does_not_hold_is_not_taken_over(tmp_path: Path, registry: Program, break_it: Any) -> None:
    """Nothing is made and the entry is named; with --skip-broken the rest is made without it."""
    folder, new = tmp_path / "old", tmp_path / "new"
    bad = entry(folder, outside(model(), folder, "w.data", sha1=True))
    good = entry(folder, model(seed=1), "good")
    break_it(folder, bad)
    path = old(folder, bad, good)
    ran = registry("migrate", path, "-o", new)
    assert (ran.code, new.exists(), os.listdir(tmp_path).count("old")) == (1, False, 1)
    assert "m: cannot be taken over" in ran.out
    assert "--skip-broken" in ran.err
    ran = registry("migrate", path, "-o", new, "--skip-broken")
    assert (ran.code, [*entries(new)], errors(new)) == (0, ["good"], [])
    assert "m: left out" in ran.out


def test_version_0_is_held_to_say_its_licence(tmp_path: Path) -> None:
    """What only version 2 asks for is a finding too."""
    path = old(tmp_path / "old", entry(tmp_path / "old", model(), license=None), version=0)
    assert resolutions(run(path, tmp_path / "new")) == {"license-missing": ""}


# ---- joining ----------------------------------------------------------------------------------------------------


def test_a_right_manifest_is_joined_as_it_is(tmp_path: Path) -> None:
    """Unknown fields, at any depth, and paths relative to the manifest survive."""
    done = run(ensemble(tmp_path / "old"), tmp_path / "new")
    row = entries(done.new)["e"]
    manifest = json.loads((done.new / row["manifest"]).read_bytes())
    assert manifest["mood"] == {"deep": ["kept", 1]}
    assert [m["onnx"] for m in manifest["members"]] == ["s0.onnx", "s1.onnx"]
    assert [*entries(done.new)] == ["e"]
    assert (errors(done.new), done.findings) == ([], ())
    assert not list(done.new.glob("sub/*"))


def unregistered(manifest: dict[str, Any]) -> None:
    manifest["members"].append({"id": "s9", "onnx": "s9.onnx", "seed": 9, "sha256": "0" * 64})


def twice(manifest: dict[str, Any]) -> None:
    manifest["members"][1] = manifest["members"][0]


def no_id(manifest: dict[str, Any]) -> None:
    manifest["id"] = "../e"


@pytest.mark.parametrize("change", [unregistered, twice, no_id])
def test_a_manifest_that_cannot_be_joined_leaves_its_rows(tmp_path: Path, change: Any) -> None:
    """The rows stay single production models; that nothing was joined is a finding."""
    path = ensemble(tmp_path / "old")
    manifest = json.loads((path.parent / "sub/e.json").read_bytes())
    change(manifest)
    write(path.parent, "sub/e.json", manifest)
    done = run(path, tmp_path / "new")
    assert {name: row["smoke"] for name, row in entries(done.new).items()} == {"s0": False, "s1": False}
    assert resolutions(done)["migration-not-joined"] == ""
    assert (errors(done.new), done.joined) == ([], ())
    assert not list(done.new.glob("*/joining"))


def test_what_nobody_can_decide_stays_a_warning(tmp_path: Path) -> None:
    """A vocabulary that is too narrow, where no sidecar says a better one, is a warning at every validate."""
    path = ensemble(tmp_path / "old", codec_vocab=ENCODERS)
    for seed in range(2):
        (path.parent / f"sub/s{seed}.json").unlink()
    manifest = json.loads((path.parent / "sub/e.json").read_bytes())
    x264 = ["x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", "unknown"]
    write(path.parent, "sub/e.json", manifest | {"codec_vocab": x264, "codec_vocab_version": 1})
    done = run(path, tmp_path / "new")
    assert errors(done.new) == []
    assert resolutions(done)["loose-codec-width"] == ""
    found = {f.code: f.severity for f in validate(done.new / "registry.json", load()).findings}
    assert found == {"loose-codec-width": Severity.WARNING}


def test_an_entry_that_pins_its_manifest_keeps_its_promotion(production: Sandbox, tmp_path: Path) -> None:
    """An ensemble with evidence in a registry whose version was lowered by hand stays what it is."""
    before = production.entry
    production.edit(lambda document: document.update(schema_version=1))
    done = run(production.path, tmp_path / "new")
    assert entries(done.new)["tiny"] == before
    assert errors(done.new) == []


def test_the_json_of_odd_registries_holds_to_its_schema(tmp_path: Path, registry: Program) -> None:
    """No sidecar, no entry, weights in another file, version 0: counts are numbers, whatever there is to count."""
    bare = entry(tmp_path / "bare", model())
    far = entry(tmp_path / "far", outside(model(), tmp_path / "far", "m.onnx.data", sha1=False), license=None)
    for folder, rows in (("bare", [bare]), ("far", [far]), ("none", [])):
        for version in (0, 1):
            path = old(tmp_path / folder, *rows, version=version)
            ran = registry("migrate", path, "-o", tmp_path / f"{folder}{version}", "--format", "json")
            assert violations(json.loads(ran.out), schemas.load("migration")) == []


def test_the_json_holds_to_its_schema(public_models: Path, tmp_path: Path, registry: Program) -> None:
    """What `--format json` prints is what schemas/migration.schema.json says, refused or not."""
    ran = registry("migrate", public_models, "-o", tmp_path / "new", "--format", "json")
    document = json.loads(ran.out)
    assert violations(document, schemas.load("migration")) == []
    assert (ran.code, document["written"], document["joined"][0]["id"]) == (0, True, ENSEMBLE)
    row = tiny_models.entry(tmp_path / "bad", model()) | {"sha256": "0" * 64}
    (tmp_path / "bad" / "registry.json").write_bytes(to_json({"schema_version": 1, "models": [row]}))
    ran = registry("migrate", tmp_path / "bad", "-o", tmp_path / "bad2", "--format", "json")
    document = json.loads(ran.out)
    assert violations(document, schemas.load("migration")) == []
    assert (ran.code, document["made"], [*document["broken"]]) == (1, False, ["m"])
