"""Tests of registry.py: valid registries have no findings; every invalid example has its own, at its place."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
from command_line import Program
from places import EXAMPLES, shared_data
from sandbox import Sandbox, to_json, tree
from thumbs import Thumbs, with_plugin

from registry_tool.checks.registry import sort
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level, hookimpl
from registry_tool.plugins.manager import load
from registry_tool.sandbox import prober
from registry_tool.storage import files
from registry_tool.workflows.explain import declared
from registry_tool.workflows.validate import validate

EXPECTED: dict[str, dict[str, Any]] = json.loads((EXAMPLES / "expected.json").read_text())
VALID = sorted(path.name for path in (EXAMPLES / "valid").iterdir() if path.name != "unknown-fields")
INVALID = sorted(path.name for path in (EXAMPLES / "invalid").iterdir())
# Codes whose files no checkout can hold (links, pipes, two names that differ by case): made in tests of this file.
MADE_HERE = {"file-is-symlink", "name-collision", "file-too-large"}
NEEDS_FULL = ("onnx-", "sidecar-inputs", "sidecar-outputs", "sidecar-width", "evidence-", "policy-metric-")


PLUGINS = load()


def findings(folder: Path, level: Level = Level.FULL) -> tuple[Finding, ...]:
    return validate(folder / "registry.json", PLUGINS, level).findings


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("name", VALID)
def test_a_valid_example_has_no_finding(name: str, level: Level) -> None:
    """No false alarm, not even a note, at either level."""
    assert [str(finding) for finding in findings(EXAMPLES / "valid" / name, level)] == []


@pytest.mark.parametrize("name", VALID)
def test_a_valid_example_passes_strictly(name: str, registry: Program) -> None:
    """The program exits with 0, warnings counted too, and says what it looked at."""
    ran = registry("validate", EXAMPLES / "valid" / name, "--strict")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(": valid\n")
    assert ran.out.count("\n") == 1


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_example_is_reported(name: str) -> None:
    """The finding that the folder is named by, and no other, with its file, line, pointer and severity, in one line."""
    code, expected = name.split("--")[0], EXPECTED[name]
    found = findings(EXAMPLES / "invalid" / name)
    assert sorted(f.code for f in found) == sorted([code, *expected["also"]])
    finding = next(f for f in found if f.code == code)
    place = {"file": finding.file, "line": finding.line, "pointer": finding.pointer, "severity": finding.severity}
    assert place == {key: expected[key] for key in place}
    assert "\n" not in str(finding)


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_example_is_rejected(name: str, registry: Program) -> None:
    """An error exits with 1, a warning with 1 under --strict alone, a note never; there is no traceback."""
    severity = EXPECTED[name]["severity"]
    options = [()] if severity == "error" else [(), ("--strict",)]
    codes = [registry("validate", EXAMPLES / "invalid" / name, *strict, plugins=PLUGINS).code for strict in options]
    assert codes == {"error": [1], "warning": [0, 1], "note": [0, 0]}[severity]


@pytest.mark.parametrize("name", [n for n in INVALID if not n.startswith(NEEDS_FULL)])
def test_what_documents_show_is_found_quickly(name: str) -> None:
    """--level quick finds all that documents, paths and digests show."""
    assert name.split("--")[0] in {f.code for f in findings(EXAMPLES / "invalid" / name, Level.QUICK)}


@pytest.mark.parametrize("name", [n for n in INVALID if n.startswith("onnx-")])
def test_a_quick_run_leaves_graphs_alone_and_says_so(name: str, registry: Program) -> None:
    """What only the graph shows is not found at --level quick, and the last line says that nobody looked."""
    ran = registry("validate", EXAMPLES / "invalid" / name, "--level", "quick")
    assert ran.code == 0
    assert "quick" in ran.out.splitlines()[-1]


def test_examples_and_expectations_name_each_other() -> None:
    """Every invalid folder is named by a known code and has its expectation."""
    assert set(INVALID) == set(EXPECTED)
    known = {rule.code for group in declared(load()) for rule in group.rules}
    assert {name.split("--")[0] for name in INVALID} <= known


def test_every_code_of_documents_files_and_pins_has_an_example() -> None:
    """A code of the core that a folder can show has a folder here, or is made in this file."""
    shown = {name.split("--")[0] for name in INVALID} | MADE_HERE
    # Of a manifest, shown by hooks/test_verify.py; of bytes and the moment, by the tests of storage and legacy.
    elsewhere = {"pin-missing", "pin-conflict", "folder-wrong", "file-changed-while-reading", "file-unreadable"}
    elsewhere |= {
        "file-annex-pointer",
        "file-dvc-missing",
        "json-whitespace",
        "pin-unread",
        "file-too-many",
        "json-too-large",
        "promotion-random-rows",
        "verdict-disagrees",
        "policy-not-met",
        "verdict-contradicts",
    }
    groups = (
        "json-",
        "schema-",
        "file-",
        "folder-",
        "name-",
        "digest-",
        "size-",
        "pin-",
        "promotion-",
        "verdict-",
        "policy-",
    )
    assert {
        rule.code for group in declared(load()) for rule in group.rules if rule.code.startswith(groups)
    } - shown - elsewhere == set()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Validation writes no byte, whatever it finds."""
    for kind in ("valid", "invalid"):
        shutil.copytree(EXAMPLES / kind, tmp_path / kind)
        before = tree(tmp_path)
        for folder in (tmp_path / kind).iterdir():
            findings(folder)
        assert tree(tmp_path) == before


# ---- what no checkout can hold ----------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A copy of the valid example `smoke`."""
    return Path(shutil.copytree(EXAMPLES / "valid" / "smoke", tmp_path / "model"))


def codes(folder: Path) -> list[str]:
    return [f.code for f in findings(folder)]


@pytest.mark.parametrize("target", ["../outside.onnx", "inside.onnx", "gone.onnx", "/etc/hostname"])
def test_a_link_in_a_models_place_is_not_followed(plain: Path, target: str) -> None:
    """A symbolic link is refused wherever it leads: outside, inside, nowhere."""
    (plain / "m.onnx").rename(plain.parent / "outside.onnx")
    shutil.copy(plain.parent / "outside.onnx", plain / "inside.onnx")
    (plain / "m.onnx").symlink_to(target)
    [finding] = [f for f in findings(plain) if f.code == "file-is-symlink"]
    assert (finding.entry, finding.file, finding.pointer) == ("m", "registry.json", "/models/0/sha256")


def test_a_link_among_the_folders_is_not_followed(plain: Path) -> None:
    """A linked folder on the way to a model is refused too."""
    (plain.parent / "elsewhere").mkdir()
    shutil.move(plain / "m.onnx", plain.parent / "elsewhere" / "m.onnx")
    (plain / "deep").symlink_to("../elsewhere")
    text = (plain / "registry.json").read_text().replace('"m.onnx"', '"deep/m.onnx"')
    (plain / "registry.json").write_text(text)
    assert "file-is-symlink" in codes(plain)


def test_a_linked_registry_is_not_followed(plain: Path, registry: Program) -> None:
    """A link in place of registry.json is a finding: the trust root is a file."""
    (plain / "registry.json").rename(plain.parent / "real.json")
    (plain / "registry.json").symlink_to("../real.json")
    assert codes(plain) == ["file-is-symlink"]
    assert registry("validate", plain).code == 1


def test_what_dvc_and_git_keep_beside_a_pinned_file_is_no_stray(smoke: Sandbox) -> None:
    """In a run's folder, where all else that nothing pins is one: a pointer of another file too."""
    member = next(smoke.folder.rglob("*_seed0.onnx"))
    member.with_name(f"{member.name}.dvc").write_text("outs:\n- path: x\n")
    member.with_name(".gitignore").write_text(f"/{member.name}\n")
    assert [f.code for f in smoke.findings()] == []
    member.with_name("other.onnx.dvc").write_text("outs:\n- path: x\n")
    assert [f.code for f in smoke.findings()] == ["file-unregistered"]


def test_a_pipe_in_a_models_place_does_not_block(plain: Path) -> None:
    """A fifo is no file; nobody waits for its writer."""
    (plain / "m.onnx").unlink()
    os.mkfifo(plain / "m.onnx")
    assert codes(plain) == ["file-not-regular"]


def test_a_linked_sidecar_is_reported(plain: Path) -> None:
    """A sidecar that is a link is as wrong as a model that is one, though nothing pins it."""
    (plain / "m.json").symlink_to("/etc/hostname")
    assert "file-is-symlink" in codes(plain)


@pytest.mark.parametrize(("one", "other"), [("n.txt", "N.txt"), ("\u00e9.md", "e\u0301.md"), ("deep/a", "Deep/a")])
def test_names_that_are_one_elsewhere_collide(plain: Path, one: str, other: str) -> None:
    """Two names that differ only by case or Unicode form are one file on another machine."""
    for name in (one, other):
        (plain / name).parent.mkdir(exist_ok=True)
        (plain / name).touch()
    assert set(codes(plain)) == {"name-collision"}


def test_an_entry_whose_id_stood_before_is_not_opened(plain: Path) -> None:
    """One finding, and no look at what it pins: ids that stand a hundred times cost no hundred readings."""
    document = json.loads((plain / "registry.json").read_bytes())
    again = document["models"][0] | {"sha256": "0" * 64}
    (plain / "registry.json").write_bytes(to_json(document | {"models": [*document["models"], again]}))
    assert codes(plain) == ["id-duplicate"]


def test_a_file_over_its_limit_is_not_read(plain: Path) -> None:
    """A sparse giant is refused by its size; a policy's max_file_bytes moves the limit, both ways."""
    os.truncate(plain / "m.onnx", 2**40)
    assert codes(plain) == ["file-too-large"]
    shutil.copy(EXAMPLES / "valid" / "smoke" / "m.onnx", plain / "m.onnx")
    document = json.loads((plain / "registry.json").read_text())
    document["policies"]["fr"]["max_file_bytes"] = 10
    (plain / "registry.json").write_bytes(to_json(document))
    assert codes(plain) == ["file-too-large"]


# ---- what is looked at, and in what order -----------------------------------------------------------------------


class Watcher(Thumbs):
    """Notes which entries a plugin gets to see, and what of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Level]] = []

    @hookimpl
    def registry_verify(self, view: Any, level: Level) -> None:
        self.seen.append((view.entry.id, level))


def test_no_plugin_sees_an_entry_that_is_not_sound(tmp_path: Path) -> None:
    """An entry with a wrong digest or of an unknown kind is not looked into; the others are."""
    rows = [tiny_models.entry(tmp_path, tiny_models.model(), name, kind="fr") for name in ("a", "b", "c")]
    rows[0]["sha256"] = "0" * 64
    rows[1]["kind"] = "unheard_of"
    (tmp_path / "registry.json").write_bytes(to_json({"schema_version": 2, "policies": {}, "models": rows}))
    watcher = Watcher()
    found = validate(tmp_path / "registry.json", with_plugin(watcher), Level.QUICK).findings
    assert [(f.entry, f.code) for f in found] == [("a", "digest-mismatch"), ("b", "kind-unknown")]
    assert watcher.seen == [("c", Level.QUICK)]


def test_a_plugins_finding_stands_at_its_entry(thumb: Sandbox) -> None:
    """view.finding on an entry without a manifest points at the entry's own field in the registry, with its line."""

    class Licences(Thumbs):
        @hookimpl
        def registry_verify(self, view: Any, level: Level) -> list[Finding]:
            return [view.finding("thumb-licence", "an odd licence", "/license")]

    [finding] = thumb.findings(plugins=with_plugin(Licences()))
    assert (finding.entry, finding.file, finding.pointer) == ("t", "registry.json", "/models/0/license")
    assert finding.line is not None
    assert '"license"' in thumb.path.read_text().splitlines()[finding.line - 1]


def test_a_kind_narrows_the_list_of_operators(thumb: Sandbox) -> None:
    """allowed_ops of a kind is held against its graphs."""
    from registry_tool.hookspec import Kind

    class Narrow:
        @hookimpl
        def registry_kinds(self) -> list[Kind]:
            return [Kind("thumb", "thumbnail rankers", allowed_ops=frozenset({"Concat"}))]

    assert thumb.codes(plugins=with_plugin(Thumbs())) == []
    assert thumb.codes(plugins=with_plugin(Narrow())) == ["onnx-operator"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_kind_with_a_manifest_cannot_be_one_file(tmp_path: Path, version: int) -> None:
    """An entry of kind fr_ensemble that names an ONNX file has no evidence to look at: an error, in production too."""
    row = tiny_models.entry(tmp_path, tiny_models.model(), kind="fr_ensemble", smoke=False)
    tiny_models.write(tmp_path, "m.json", tiny_models.sidecar(row))
    document: dict[str, Any] = {"schema_version": version, "models": [row]}
    if version == 2:
        row["promotion"] = {"imported_from": "0" * 64}
        document["policies"] = {"fr_ensemble": {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.95}]}}
    (tmp_path / "registry.json").write_bytes(to_json(document))
    assert [f for f in findings(tmp_path) if f.severity is Severity.ERROR] != []


def test_findings_are_sorted_and_told_once() -> None:
    """By file, line, pointer, code; two plugins that find the same say it once."""
    made = [
        Finding("b", "x", file="r.json", line=9),
        Finding("b", "x", file="r.json", line=9),
        Finding("c", "x"),
        Finding("a", "x", file="r.json", line=9),
        Finding("z", "x", file="r.json", line=2),
        Finding("z", "x", file="a.json"),
    ]
    assert [(f.file, f.line, f.code) for f in sort(made)] == [
        (None, None, "c"),
        ("a.json", None, "z"),
        ("r.json", 2, "z"),
        ("r.json", 9, "a"),
        ("r.json", 9, "b"),
    ]


def test_every_entry_ticks(production: Sandbox) -> None:
    """Progress says how many entries there are and ends with all of them."""
    ticks: list[tuple[str, int, int]] = []
    validate(production.path, load(), progress=lambda *tick: ticks.append(tick))
    assert ticks == [("entries", 0, 1), ("entries", 1, 1)]


# ---- the public registry ----------------------------------------------------------------------------------------

ENSEMBLE = "fr_regressor_v2_ensemble_v1"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The public version-1 registry as it is, with small models in place of those that are not shipped here."""
    for path in shared_data("public-registry-v1").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    document = json.loads((tmp_path / "registry.json").read_text())
    for seed, row in enumerate(document["models"]):
        model = tiny_models.model(codec=14 if "ensemble" in row["id"] else None, opset=row["opset"], seed=seed)
        row["sha256"] = tiny_models.write(tmp_path, row["onnx"], model)
        if "int8_sha256" in row:
            row["int8_sha256"] = tiny_models.write(tmp_path, row["onnx"].replace(".onnx", ".int8.onnx"), model)
        sidecar = tmp_path / row["onnx"].replace(".onnx", ".json")
        if sidecar.exists():  # it repeats the digest of a model that is not here
            tiny_models.write(tmp_path, sidecar.name, {**json.loads(sidecar.read_text()), "sha256": row["sha256"]})
    tiny_models.write(tmp_path, "registry.json", document)
    return tmp_path


def test_the_public_registry_is_read_and_its_defects_are_found(public: Path) -> None:
    """What section 1 of the design measured there, and no defect that is not there, each once and at its line."""
    found = [f for f in findings(public) if f.severity is Severity.ERROR]
    production = [m for m in json.loads((public / "registry.json").read_text())["models"] if not m.get("smoke", False)]
    without = [m["id"] for m in production if not (public / m["onnx"].replace(".onnx", ".json")).exists()]
    assert sorted(str(f.entry) for f in found if f.code == "sidecar-missing") == sorted(without)
    others = Counter(f.code for f in found if f.code != "sidecar-missing")
    assert others == {
        "loose-member-disagrees": 5,  # the manifest pins five members that are not the shipped ones
        "loose-smoke-mismatch": 1,
        "loose-codec-width": 1,  # a vocabulary of 6, an input 14 wide
        "loose-sidecar-disagrees": 4,  # vocabulary, its version, mean and deviation
    }
    manifest = f"{ENSEMBLE}.json"
    assert {f.file for f in found if f.code != "sidecar-missing"} == {manifest}
    text = (public / manifest).read_text().splitlines()
    for finding in (f for f in found if f.file == manifest):
        assert finding.line is not None
        assert f'"{str(finding.pointer).rsplit("/", 1)[-1]}"' in text[finding.line - 1]


def test_the_public_registrys_warnings_are_warnings(public: Path) -> None:
    """Bundles that come at a release, and a verdict that names no digest, are warnings alone."""
    found = Counter(f.code for f in findings(public) if f.severity is not Severity.ERROR)
    assert found == {"bundle-missing": 24, "loose-verdict": 1}


def test_the_public_registry_without_its_models_names_each(public: Path) -> None:
    """A checkout without the models: one finding a file that is not there, none about what is in it."""
    for path in public.glob("*.onnx"):
        path.unlink()
    missing = [f for f in findings(public) if f.code == "file-missing" and f.file == "registry.json"]
    assert len([f for f in missing if str(f.pointer).endswith("/sha256")]) == 24


@pytest.mark.parametrize("level", list(Level))
def test_a_file_that_many_entries_name_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    """One run, either level; each entry's pin is compared nevertheless, and a wrong one is found."""
    hashed: list[int] = []
    monkeypatch.setattr(files, "SETTLED_NS", -(10**18))
    monkeypatch.setattr(files, "LARGE_FILE_BYTES", 1)
    monkeypatch.setattr(prober, "REPEATABLE_TASKS", ())  # answers that tests keep are found by a hash of the model
    row = tiny_models.entry(tmp_path, tiny_models.model(), opset=17)
    counted = SimpleNamespace(sha256=lambda data: (hashed.append(len(data)), sha256(data))[1])
    monkeypatch.setattr(files, "hashlib", counted)  # the prober, which is not meant, hashes models too
    rows = [row | {"id": f"m{number}"} for number in range(5)]
    rows[3]["sha256"] = "0" * 64
    found = tiny_models.findings(tmp_path, *rows, level=level)
    assert [(f.code, f.entry) for f in found if f.severity is Severity.ERROR] == [("digest-mismatch", "m3")]
    assert hashed.count((tmp_path / "m.onnx").stat().st_size) == 1


def test_files_below_a_manifest_that_cannot_be_read_are_not_called_unregistered(tmp_path: Path) -> None:
    """What belongs there is not known; beside it a stray model still is."""
    folder = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[2] / "model", folder)
    (folder / "stray.onnx").write_bytes(b"")
    manifests = sorted(folder.glob("*/*/manifest.json"))
    for path in manifests:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    found = validate(folder / "registry.json", load(), Level.QUICK).findings
    assert {f.file for f in found if f.code == "file-unregistered"} == {"stray.onnx"}
    mismatches = [f for f in found if f.code == "digest-mismatch"]
    assert len(mismatches) == len(manifests)
    assert all("CRLF" in str(f.hint) for f in mismatches)  # the LF form has the pinned digest
    manifests[0].write_bytes(manifests[0].read_bytes() + b" ")
    found = validate(folder / "registry.json", load(), Level.QUICK).findings
    assert ["CRLF" in str(f.hint) for f in found if f.code == "digest-mismatch"] == [False, True]


def test_nor_below_a_manifest_that_breaks_its_schema(tmp_path: Path) -> None:
    """What it pins is not taken from it, so what it does not pin is not known either."""
    folder = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[2] / "model", folder)
    (folder / "stray.onnx").write_bytes(b"")
    document = json.loads((folder / "registry.json").read_bytes())
    path = folder / document["models"][0]["manifest"]
    path.write_bytes(path.read_bytes().replace(b'"sources": [', b'"sources": ["a\\nb",', 1))
    document["models"][0]["sha256"] = sha256(path.read_bytes()).hexdigest()
    (folder / "registry.json").write_bytes(json.dumps(document).encode())
    found = validate(folder / "registry.json", load(), Level.QUICK).findings
    assert "schema-value" in {f.code for f in found}
    assert {f.file for f in found if f.code == "file-unregistered"} == {"stray.onnx"}
