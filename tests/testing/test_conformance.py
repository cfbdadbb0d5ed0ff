"""test_conformance.py: the first-party plugins and the example keep the contract that any plugin is held to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_models
from policies import MANUAL
from registries import TRAINING, Made
from sandbox import to_json

from registry_tool.testing import EvidenceTable, PluginSuite

if TYPE_CHECKING:
    from registry_tool.testing.evidence import Arrays


class OofNpz(EvidenceTable):
    """The archive is read back only as training writes it."""

    def write(self, columns: Arrays) -> bytes:
        from fr_ensemble.evidence.oof import OOF_FORMAT

        from registry_tool.archive import write_arrays

        return write_arrays(OOF_FORMAT, columns)


@pytest.mark.slow
class TestFrEnsemble(PluginSuite):
    """The ensemble that ships, on the one that a run of the tests trains anyway."""

    plugin = "fr_ensemble.plugin"
    kind = "fr_ensemble"
    arguments = TRAINING
    evidence = OofNpz("evidence/oof.npz", prediction="predictions")
    # Recorded and never compared; null where constant predictions have no correlation; and a manifest without
    # schema_version is the public form, which has no evidence and so is never promoted. metrics_version is 1 if absent.
    optional = ("/environment", "/corpus/record", "/eval/in_sample_plcc", "/schema_version", "/metrics_version")
    optional += ("/corpus/encoders", "/codec_spellings", "/codec_stand_in", "/probe/encoder", "/probe/stages")

    @pytest.fixture
    def rows(self, made: Made) -> Path:
        return made.corpus

    @pytest.fixture
    def other_rows(self, made: Made) -> Path:
        return made.heldout

    @pytest.fixture
    def good_registry(self, made: Made) -> Path:
        return made.smoke


class OnnxKinds(PluginSuite):
    """The built-in kinds train nothing: a model with a sidecar, and its int8 variant, stands in."""

    plugin = "registry_tool.plugins.single_models"
    without = dict.fromkeys(
        tuple(f"registry_{name}" for name in ("train", "calibrate", "migrate", "oof", "evaluate", "reproduce", "load")),
        "its models are trained elsewhere, and it knows no rows",
    ) | {"registry_commands": "the core's commands are enough"}
    promotes = False  # it pins no evidence; tests/plugins/test_single_evidence.py gates one that does
    # A sidecar says what its exporter knew: every field may be missing.
    optional = tuple(f"/{name}" for name in (*tiny_models.sidecar({"id": "", "kind": "", "onnx": "", "sha256": ""}),))

    def make_registry(self, folder: Path, rows: Path | None) -> None:
        row = tiny_models.entry(folder, tiny_models.model(), kind=self.kind)
        row["sidecar_sha256"] = tiny_models.write(folder, "m.json", tiny_models.sidecar(row))
        policies = {self.kind: MANUAL}
        document = {"schema_version": 2, "policies": policies, "models": [row]}
        (folder / "registry.json").write_bytes(to_json(document))


class TestFr(OnnxKinds):
    kind = "fr"


@pytest.mark.slow  # one plugin serves all three kinds
class TestNr(OnnxKinds):
    kind = "nr"


@pytest.mark.slow
class TestFilter(OnnxKinds):
    kind = "filter"
