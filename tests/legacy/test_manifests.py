"""Tests of manifests.py: an unpinned ensemble manifest or verdict beside version-1 models is held against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ENCODERS, FEATURES, codes, entry, findings, model, write
from version1 import Ensembles, Rows

from registry_tool.checks.registry import check
from registry_tool.documents.store import load
from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Kind, Level, hookimpl
from registry_tool.plugins.manager import load as load_plugins

ENSEMBLE = "fr_regressor_v2_ensemble_v1"


@pytest.mark.parametrize("level", Level)
def test_a_right_manifest_has_no_findings(tmp_path: Path, level: Level) -> None:
    """A manifest that agrees with its rows, files and sidecars is left alone."""
    assert Rows(tmp_path).findings(level) == []


DEFECTS: list[tuple[str, str, dict[str, Any]]] = [
    ("loose-smoke-mismatch", "/smoke", {"smoke": True}),
    ("loose-sidecar-disagrees", "/feature_order", {"feature_order": FEATURES[::-1]}),
    ("loose-sidecar-disagrees", "/feature_mean", {"feature_mean": [0.4] * 6}),
    ("loose-sidecar-disagrees", "/feature_std", {"feature_std": [0.4] * 6}),
    ("loose-sidecar-disagrees", "/codec_vocab", {"codec_vocab": ENCODERS[::-1]}),
    ("loose-sidecar-disagrees", "/codec_vocab_version", {"codec_vocab_version": 1}),
    ("loose-member-disagrees", "/id", {"id": "f"}),
    ("schema-type", "/members", {"members": "two"}),
    ("schema-type", "/feature_mean", {"feature_mean": "x"}),
]


@pytest.mark.parametrize(("code", "pointer", "fields"), DEFECTS)
def test_defects_point_at_the_field(tmp_path: Path, code: str, pointer: str, fields: dict[str, Any]) -> None:
    """Each disagreement is an error at its field and line of the manifest, at both levels."""
    rows = Rows(tmp_path)
    rows.manifest |= fields
    for level in Level:
        found = [f for f in rows.findings(level) if (f.code, f.pointer) == (code, pointer)]
        assert [(f.file, f.severity) for f in found[:1]] == [("e.json", Severity.ERROR)]
        assert found[0].line == _line(tmp_path / "e.json", f'"{pointer.split("/")[1]}"')
        assert found[0].hint


def _line(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if text in line)


@pytest.mark.parametrize(("coverage", "z", "expected"), [(0.95, 1.96, []), (0.9, 1.645, []), (0.9, 1.96, ["1.644854"])])
def test_the_z_of_another_coverage_is_a_warning(tmp_path: Path, coverage: float, z: float, expected: list[str]) -> None:
    """Rounded numbers are fine; the finding says what z would be."""
    rows = Rows(tmp_path)
    numbers = {"nominal_coverage": coverage, "gaussian_z": z, "conformal_q_residual": None}
    rows.manifest["confidence"] = {"method": "ensemble", **numbers}
    found = rows.findings(Level.QUICK)
    assert [f.expected for f in found] == expected
    assert {(f.code, f.pointer, f.severity) for f in found} <= {
        ("loose-confidence", "/confidence/gaussian_z", Severity.WARNING)
    }


def test_members_are_held_against_files_and_entries(tmp_path: Path) -> None:
    """A pin that is neither the file's digest nor the entry's is one error, at the pin."""
    rows = Rows(tmp_path)
    rows.manifest["members"][1]["sha256"] = "0" * 64
    found = rows.findings(Level.QUICK)
    assert {(f.code, f.pointer) for f in found} == {
        ("loose-member-disagrees", "/members/1/sha256"),
    }
    assert {f.expected for f in found} == {rows.rows[1]["sha256"]}


def test_a_swapped_member_is_found(tmp_path: Path) -> None:
    """Two members whose files are swapped disagree with their entries, though every pin holds."""
    rows = Rows(tmp_path)
    first, second = rows.manifest["members"]
    for key in ("onnx", "sha256"):
        first[key], second[key] = second[key], first[key]
    assert {(f.code, f.pointer) for f in rows.findings(Level.QUICK)} >= {
        ("loose-member-disagrees", "/members/0/onnx"),
        ("loose-member-disagrees", "/members/1/sha256"),
    }


def test_a_member_without_an_entry_is_found(tmp_path: Path) -> None:
    """A member that no entry registers is an error."""
    rows = Rows(tmp_path)
    digest = write(tmp_path, "extra.onnx", model(codec=5, seed=9))
    rows.manifest["members"].append({"id": "extra", "onnx": "extra.onnx", "seed": 9, "sha256": digest})
    found = rows.findings()
    assert {f.pointer for f in found if f.code == "loose-member-unregistered"} == {"/members/2"}
    assert "file-unregistered" in codes(found)


class Lax:
    """A plugin with a kind whose schema asks for no digests."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("lax", "anything", schema={"type": "object"})]


@pytest.mark.parametrize("pin", [{}, {"sha256": None}, {"sha256": 7}, {"sha256": "0" * 63}], ids=repr)
def test_a_member_without_a_digest_is_an_unpinned_file(tmp_path: Path, pin: dict[str, Any]) -> None:
    """A schema that does not demand the digest lets it through to a finding, and the other members are checked."""
    rows = Rows(tmp_path)
    rows.findings()
    first, second = rows.manifest["members"]
    manifest = {"id": "lax1", "kind": "lax", "members": [{"onnx": first["onnx"], **pin}, second | {"seed": 5}]}
    write(tmp_path, "lax.json", manifest)
    for level in Level:
        found = findings(tmp_path, *rows.rows, level=level, more=[Lax(), Ensembles()])
        places = {(f.code, f.pointer) for f in found if f.file == "lax.json"}
        assert places >= {("pin-missing", "/members/0/onnx"), ("loose-member-disagrees", "/members/1/seed")}


@pytest.mark.parametrize("onnx", ["../e_seed0.onnx", "/etc/hostname"])
def test_a_member_outside_the_folder_is_not_opened(tmp_path: Path, onnx: str) -> None:
    """A member path that leaves the registry's folder is refused."""
    rows = Rows(tmp_path / "model")
    rows.manifest["members"][0]["onnx"] = onnx
    assert codes(rows.findings(Level.QUICK)) & {"file-escapes", "schema-value"}


def test_the_vocabulary_is_as_wide_as_the_codec_input(tmp_path: Path) -> None:
    """A vocabulary that does not fill the members' codec input is an error, from sidecars or from the ONNX alone."""
    rows = Rows(tmp_path)
    rows.manifest["codec_vocab"] = ENCODERS[:2]
    found = [f for f in rows.findings(Level.QUICK) if f.code == "loose-codec-width"]
    assert [(f.found, f.expected) for f in found] == [("2 encoders and 1 more columns", "5 columns")]
    for document in rows.sidecars:
        for key in ("codec_block_layout", "encoder_vocab", "encoder_vocab_version"):
            del document[key]
    found = [f for f in rows.findings() if f.code == "loose-codec-width"]
    assert [(f.found, f.expected) for f in found] == [("2 encoders", "5 columns")]


@pytest.mark.parametrize("kind", ["fr_ensembel", None, 3])
def test_a_manifest_of_an_unknown_kind_is_not_skipped(tmp_path: Path, kind: object) -> None:
    """What looks like a manifest but is of a kind nobody owns is an error."""
    rows = Rows(tmp_path)
    rows.manifest["kind"] = kind
    (found,) = rows.findings(Level.QUICK)
    assert (found.code, found.file, found.pointer) == ("kind-unknown", "e.json", "/kind")


def test_a_document_that_cannot_be_read_is_not_skipped(tmp_path: Path) -> None:
    """A JSON file beside the models that has a key twice, or is a link, is an error."""
    rows = Rows(tmp_path)
    (tmp_path / "twice.json").write_text('{"kind": "fr_ensemble", "kind": "note"}', encoding="utf-8")
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    found = {f.file: f.code for f in rows.findings(Level.QUICK)}
    assert found == {"twice.json": "json-duplicate-key", "link.json": "file-is-symlink"}


@pytest.mark.parametrize("level", Level)
def test_files_that_a_manifest_names_and_nothing_pins_are_found(tmp_path: Path, level: Level) -> None:
    """A scaler, and weights that are not even there: as in a manifest that an entry pins. Its members are pinned."""
    rows = Rows(tmp_path)
    write(tmp_path, "scaler.pkl", b"x")
    rows.manifest |= {"scaler": "scaler.pkl", "notes": {"weights": ["gone.pt"], "seen": "e_seed0.json"}}
    found = [f for f in rows.findings(level) if f.code == "file-named-unpinned"]
    assert [(f.file, f.pointer) for f in found] == [("e.json", "/scaler"), ("e.json", "/notes/weights/0")]


def test_other_documents_are_left_alone(tmp_path: Path) -> None:
    """Notes, lists and JSON in folders without models are nobody's business."""
    rows = Rows(tmp_path)
    write(tmp_path, "notes.json", {"kind": "note", "members": ["Ann"], "verdict": "fine"})
    write(tmp_path, "list.json", b"[1, 2]")
    write(tmp_path, "elsewhere/broken.json", b"{")
    assert rows.findings() == []


def test_a_plugin_judges_loose_manifests_too(tmp_path: Path) -> None:
    """A plugin's findings on a manifest appear, and its exception becomes a finding that names it."""

    class Loud(Ensembles):
        @hookimpl
        def registry_verify(self, view: Any, level: Level) -> list[Finding]:
            if view.entry.kind != "fr_ensemble":
                return []
            if view.manifest["codec_vocab_version"] == 8:
                raise RuntimeError("oh no")
            return [view.finding("loud-opinion", "I do not like it", "/smoke")]

    rows = Rows(tmp_path)
    rows.findings()
    (found,) = findings(tmp_path, *rows.rows, more=[Loud()])
    assert (found.code, found.file, found.line) == ("loud-opinion", "e.json", _line(tmp_path / "e.json", '"smoke"'))
    write(tmp_path, "e.json", rows.manifest | {"codec_vocab_version": 8})
    failed = [f for f in findings(tmp_path, *rows.rows, more=[Loud()]) if f.code == "plugin-failed"]
    assert [f.file for f in failed] == ["e.json"]
    assert "more0" in failed[0].message


def test_a_verdict_without_digests_is_summary_only(tmp_path: Path) -> None:
    """A verdict file that names no data is a warning, and so is one whose digests nothing holds, however it spells."""
    rows = Rows(tmp_path)
    write(tmp_path, "e_PROMOTE.json", {"verdict": "PROMOTE", "corpus": {"sha256": None}})
    (found,) = rows.findings()
    assert (found.code, found.severity, found.pointer) == ("loose-verdict", Severity.WARNING, "/corpus/sha256")
    for word in ("PROMOTE", "promote", "HOLD "):
        write(tmp_path, "e_PROMOTE.json", {"verdict": word, "corpus": {"sha256": "0" * 64}})
        (found,) = (f for f in rows.findings() if f.code != "verdict-contradicts")
        assert (found.code, found.found) == ("loose-verdict", f'"{"0" * 64}"')


def test_licence_and_signature_bundle_are_looked_for(tmp_path: Path) -> None:
    """No licence and a bundle that is not there are warnings from version 1 on; a bundle outside is an error."""
    row = entry(tmp_path, model(), license=None, sigstore_bundle="m.onnx.sigstore.json")
    found = {f.code: (f.severity, f.pointer) for f in findings(tmp_path, row)}
    assert found == {
        "license-missing": (Severity.WARNING, "/models/0"),
        "bundle-missing": (Severity.WARNING, "/models/0/sigstore_bundle"),
    }
    assert codes(findings(tmp_path, row, version=0)) == {"bundle-missing"}
    write(tmp_path, "m.onnx.sigstore.json", {})
    assert codes(findings(tmp_path, row | {"license": "MIT"})) == {"bundle-invalid"}
    for outside in ("a/../../m.sigstore.json", "link/m.sigstore.json"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("/etc")
        found_here = findings(tmp_path, row | {"license": "MIT", "sigstore_bundle": outside})
        (found_,) = (f for f in found_here if f.file != "link")
        assert (found_.code, found_.severity) in {
            ("file-escapes", Severity.ERROR),
            ("file-is-symlink", Severity.ERROR),
        }


# ---- the public registry ----------------------------------------------------------------------------------------


@pytest.fixture
def public(public_documents: Path) -> Path:
    """A scratch copy of the public registry with five small members of the public shape: 14 codec columns."""
    folder = public_documents
    registry = json.loads((folder / "registry.json").read_text(encoding="utf-8"))
    for row in registry["models"]:
        if row["id"].startswith(ENSEMBLE):
            made = model(codec=14, seed=int(row["id"][-1]))
            row["sha256"] = write(folder, row["onnx"], made)
    write(folder, "registry.json", registry)
    first = json.loads((folder / f"{ENSEMBLE}_seed0.json").read_text(encoding="utf-8"))
    rows = {row["id"]: row for row in registry["models"]}
    for seed in range(5):
        name = f"{ENSEMBLE}_seed{seed}"
        digest = rows[name]["sha256"]
        write(folder, f"{name}.json", first | {"id": name, "seed": seed, "onnx": f"{name}.onnx", "sha256": digest})
    return folder


@pytest.mark.parametrize("level", Level)
def test_every_known_defect_of_the_public_manifest_is_found(public: Path, level: Level) -> None:
    """Five foreign pins, a vocabulary of the wrong width, and smoke against the registry: each at its line."""
    found = check(load(public / "registry.json"), load_plugins(), level)
    manifest, text = f"{ENSEMBLE}.json", (public / f"{ENSEMBLE}.json").read_text(encoding="utf-8").splitlines()
    mine = {(f.code, f.line) for f in found if f.file == manifest}
    pins = [number for number, line in enumerate(text, 1) if '"sha256"' in line]
    assert len(pins) == 5
    assert "digest-mismatch" not in {code for code, _ in mine}  # one fault is told once
    assert {("loose-member-disagrees", line) for line in pins} <= mine

    def at(code: str, field: str) -> tuple[str, int]:
        return code, _line(public / manifest, f'"{field}"')

    assert at("loose-codec-width", "codec_vocab") in mine
    assert at("loose-smoke-mismatch", "smoke") in mine
    for field in ("codec_vocab", "codec_vocab_version", "feature_mean", "feature_std"):
        assert at("loose-sidecar-disagrees", field) in mine
    width = next(f for f in found if f.code == "loose-codec-width")
    assert (width.found, width.expected) == ("6 encoders and 2 more columns", "14 columns")


@pytest.mark.parametrize("level", Level)
def test_a_repaired_public_manifest_has_no_findings(public: Path, level: Level) -> None:
    """Once the public manifest says what its members are, neither the core nor the plugin objects to it."""
    rows = {r["id"]: r for r in json.loads((public / "registry.json").read_text(encoding="utf-8"))["models"]}
    manifest = json.loads((public / f"{ENSEMBLE}.json").read_text(encoding="utf-8"))
    member = json.loads((public / f"{ENSEMBLE}_seed0.json").read_text(encoding="utf-8"))
    for claim in manifest["members"]:
        claim["sha256"] = rows[claim["id"]]["sha256"]
    manifest |= {key: member[key] for key in ("feature_order", "feature_mean", "feature_std")}
    manifest |= {"codec_vocab": member["encoder_vocab"], "codec_vocab_version": 2, "smoke": False}
    write(public, f"{ENSEMBLE}.json", manifest)
    found = check(load(public / "registry.json"), load_plugins(), level)
    assert [f for f in found if f.file == f"{ENSEMBLE}.json"] == []


def test_the_public_verdict_names_nothing_it_judged(public: Path) -> None:
    """The public promotion verdict is marked summary only, at its empty digest."""
    found = check(load(public / "registry.json"), load_plugins(), Level.QUICK)
    name = f"{ENSEMBLE}_seed_flip_PROMOTE.json"
    assert [(f.code, f.line) for f in found if f.file == name] == [
        ("loose-verdict", _line(public / name, '"sha256": null'))
    ]


def test_unpinned_weights_of_the_public_members_are_found(public: Path) -> None:
    """A member whose weights lie in a file that nothing pins is an error on that member."""
    made = model(codec=14)
    weight = made.graph.initializer[0]
    write(public, f"{ENSEMBLE}_seed0.onnx.data", weight.raw_data)
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = 1
    for key, value in (("location", f"{ENSEMBLE}_seed0.onnx.data"), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    registry = json.loads((public / "registry.json").read_text(encoding="utf-8"))
    row = next(r for r in registry["models"] if r["id"] == f"{ENSEMBLE}_seed0")
    row["sha256"] = write(public, row["onnx"], made)
    write(public, "registry.json", registry)
    sidecar_path = public / f"{ENSEMBLE}_seed0.json"
    document = json.loads(sidecar_path.read_text(encoding="utf-8"))
    write(public, sidecar_path.name, document | {"sha256": row["sha256"]})
    found = check(load(public / "registry.json"), load_plugins())
    assert ("onnx-external-unpinned", f"{ENSEMBLE}_seed0.onnx") in {(f.code, f.file) for f in found}
