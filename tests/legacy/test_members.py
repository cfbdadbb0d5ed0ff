"""Members of a version-1 manifest are held against it in the same way, whether an entry pins the manifest or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from migrating import ensemble, run
from tiny_models import FEATURES, codes, entry, findings, model, sidecar, write
from version1 import Ensembles, Rows

from registry_tool.findings import Finding, Severity
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import load
from registry_tool.workflows.validate import validate


class Pinned(Rows):
    """The same ensemble with an entry that pins its manifest, and no entries of the members."""

    def findings(self, level: Level = Level.FULL) -> list[Finding]:
        for row, document in zip(self.rows, self.sidecars, strict=True):
            write(self.folder, row["onnx"].replace(".onnx", ".json"), document)
        self.manifest["smoke"] = True
        digest = write(self.folder, "e.json", self.manifest)
        row = {"id": self.manifest["id"], "kind": "fr_ensemble", "manifest": "e.json", "sha256": digest, "smoke": True}
        return findings(self.folder, row | {"license": "MIT"}, level=level, more=[Ensembles()])

    def replace(self, index: int, content: Any) -> None:
        """Another file in the place of a member's, with pins and sidecar that fit."""
        digest = write(self.folder, self.rows[index]["onnx"], content)
        for document in (self.rows[index], self.sidecars[index], self.manifest["members"][index]):
            document["sha256"] = digest


def swapped(rows: Rows) -> None:
    """Files and digests change places, ids and seeds do not."""
    first, second = rows.manifest["members"]
    for key in ("onnx", "sha256"):
        first[key], second[key] = second[key], first[key]


def copied(rows: Pinned) -> None:
    rows.replace(1, model(codec=5, seed=0))


def of_another_model(rows: Pinned) -> None:
    rows.replace(1, model(codec=5, opset=17, seed=3, nodes=()).SerializeToString())
    rows.sidecars[1]["ensemble_id"] = "f"


def of_another_signature(rows: Pinned) -> None:
    rows.replace(1, model(seed=1))


def permuted(rows: Pinned) -> None:
    rows.manifest["feature_order"] = FEATURES[::-1]


def other_means(rows: Pinned) -> None:
    rows.manifest["feature_mean"] = [0.4] * 6


def other_deviations(rows: Pinned) -> None:
    rows.manifest["feature_std"] = [0.4] * 6


def another_seed(rows: Pinned) -> None:
    rows.sidecars[1]["seed"] = 7


def another_id(rows: Pinned) -> None:
    rows.sidecars[1]["id"] = "e_seed9"


def another_digest(rows: Pinned) -> None:
    rows.sidecars[1]["sha256"] = "0" * 64


def another_file(rows: Pinned) -> None:
    rows.sidecars[1]["onnx"] = "e_seed9.onnx"


def other_inputs(rows: Pinned) -> None:
    rows.sidecars[1]["input_names"] = ["features"]


def other_outputs(rows: Pinned) -> None:
    rows.sidecars[1]["output_names"] = ["mu"]


def too_few_features(rows: Pinned) -> None:
    for key in ("feature_order", "feature_mean", "feature_std"):
        for document in (rows.manifest, *rows.sidecars):
            document[key] = document[key][:5]


def too_few_encoders(rows: Pinned) -> None:
    rows.manifest["codec_vocab"] = rows.manifest["codec_vocab"][:2]


def another_opset(rows: Pinned) -> None:
    rows.manifest["opset"] = 16


FAULTS: list[tuple[Callable[[Any], None], str]] = [
    (swapped, "loose-member-disagrees"),
    (copied, "loose-member-twice"),
    (of_another_model, "loose-member-disagrees"),
    (of_another_signature, "loose-member-ports"),
    (permuted, "loose-sidecar-disagrees"),
    (other_means, "loose-sidecar-disagrees"),
    (other_deviations, "loose-sidecar-disagrees"),
    (another_seed, "loose-member-disagrees"),
    (another_id, "loose-member-disagrees"),
    (another_digest, "loose-member-disagrees"),
    (another_file, "loose-member-disagrees"),
    (other_inputs, "loose-member-ports"),
    (other_outputs, "loose-member-ports"),
    (too_few_features, "loose-feature-width"),
    (too_few_encoders, "loose-codec-width"),
    (another_opset, "onnx-opset-disagrees"),
]
SEEN_AT_QUICK = ("loose-member-disagrees", "loose-sidecar-disagrees", "loose-codec-width")


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize(("make", "code"), FAULTS, ids=[make.__name__ for make, _ in FAULTS])
def test_a_pinned_manifest_that_its_members_contradict_is_an_error(
    tmp_path: Path, make: Callable[[Pinned], None], code: str, level: Level
) -> None:
    """Every fault that a loose manifest is rejected for; at --level quick those that documents alone show."""
    rows = Pinned(tmp_path)
    make(rows)
    found = [f for f in rows.findings(level) if f.severity is Severity.ERROR]
    if level is Level.FULL or code in SEEN_AT_QUICK:
        assert code in codes(found)
    assert codes(found) <= {code, "loose-member-disagrees", "loose-sidecar-disagrees"}


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("size", [2, 3])
def test_a_pinned_manifest_that_its_members_bear_out_is_valid(tmp_path: Path, size: int, level: Level) -> None:
    """Of two members or three, with sidecars that name their models from wherever."""
    rows = Pinned(tmp_path)
    for seed in range(2, size):
        row = entry(tmp_path, model(codec=5, seed=seed), f"e_seed{seed}")
        rows.rows.append(row)
        rows.sidecars.append({**rows.sidecars[0], "id": row["id"], "seed": seed, "sha256": row["sha256"]})
        rows.manifest["members"].append({"id": row["id"], "onnx": row["onnx"], "seed": seed, "sha256": row["sha256"]})
    rows.manifest["ensemble_size"] = size
    for row, document in zip(rows.rows, rows.sidecars, strict=True):
        document["onnx"] = f"elsewhere/{row['onnx']}"
    assert [f for f in rows.findings(level) if f.severity is Severity.ERROR] == []


def test_a_sidecar_in_a_folder_may_name_its_model_from_there(tmp_path: Path) -> None:
    """A single model's too: the registry says `deep/m.onnx`, its sidecar says `m.onnx`."""
    row = entry(tmp_path, model(), "deep/m", id="m")
    for name in ("m.onnx", "deep/m.onnx"):
        write(tmp_path, "deep/m.json", sidecar(row, onnx=name))
        assert findings(tmp_path, row) == []
    write(tmp_path, "deep/m.json", sidecar(row, onnx="other/m.onnx"))
    assert codes(findings(tmp_path, row)) == {"sidecar-disagrees"}


def test_the_first_of_several_inputs_may_stand_for_them(tmp_path: Path) -> None:
    """`input_name` is one name; `input_names` lists them all."""
    row = entry(tmp_path, model(codec=5))
    names = {"input_names": None, "input_name": "features", "output_names": None, "output_name": "score"}
    write(tmp_path, "m.json", sidecar(row, **names))
    assert findings(tmp_path, row) == []
    write(tmp_path, "m.json", sidecar(row, input_names=None, input_name="codec_onehot"))
    assert codes(findings(tmp_path, row)) == {"sidecar-inputs"}


def test_an_ensemble_of_one_is_an_error(tmp_path: Path) -> None:
    """Loose, and migrated: it is not joined then."""
    path = ensemble(tmp_path / "old", size=1)
    assert "ensemble-size" in {f.code for f in validate(path, load()).findings}
    assert run(path, tmp_path / "new").joined == ()


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"feature_mean": [0.4] * 6}, ["ensemble-fused", "loose-sidecar-disagrees"]),
        ({"feature_order": FEATURES[::-1]}, ["loose-sidecar-disagrees"]),
    ],
)
def test_a_migrated_manifest_that_was_changed_is_an_error(
    tmp_path: Path, change: dict[str, Any], codes: list[str]
) -> None:
    """`migrate` leaves none that its sidecars or the fused graph contradict, so it was changed since."""
    from registry_tool.testing import Bench

    run(ensemble(tmp_path / "old", size=3), tmp_path / "new")
    bench = Bench(tmp_path / "new" / "registry.json", load(), "fr_ensemble", "e")
    assert bench.codes() == []
    bench.forge(lambda manifest: manifest.update(change))
    assert bench.codes() == codes
