"""test_howto.py: runs what docs/how-to and the tutorial tell people to type, in a folder like theirs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from registries import Made, write_corpus
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox

from registry_tool.plugins.manager import load
from registry_tool.workflows.promote import flip

pytestmark = pytest.mark.slow


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell(script: str, folder: Path, **environment: str) -> str:
    """Run a script with this program as `registry`; it stops at the first command that fails. What it printed."""
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    for name, program in (("registry", f'"{sys.executable}" -m registry_tool'), ("python", f'"{sys.executable}"')):
        (tools / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (tools / name).chmod(0o755)
    own = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | own | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_read_a_report(tmp_path: Path) -> None:
    """The report of the project's own production entry is written."""
    shutil.copytree(ROOT / "model", tmp_path / "model")
    shell("\n".join(blocks("how-to/read-a-report.md")), tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_migrate(tmp_path: Path) -> None:
    """A version-1 registry is migrated, validated and compared with the old one."""
    shutil.copytree(ROOT / "tests" / "examples" / "valid" / "version-1-production", tmp_path / "model" / "tiny")
    said = shell("\n".join(blocks("how-to/migrate.md")), tmp_path)
    assert re.search(r"^model2/registry\.json: 1 entries; ", said, flags=re.MULTILINE)
    assert "m: production before, with the same bytes: not judged again" in said


def test_tutorial(tmp_path: Path) -> None:
    """The tutorial's reader trains, flips, predicts, sees both ways of cheating named, and demotes."""
    script = "\n".join(blocks("tutorial.md")).replace("--epochs 5", "--epochs 5 --no-baselines")
    said = shell(script, tmp_path)
    assert said.count("exit code 1\n") == 3
    for words in (
        "vmaf: production",
        "lower_80,upper_80",
        "error[policy-looser]",
        "error[digest-mismatch]",
        "vmaf: demoted",
    ):
        assert words in said
    assert said.splitlines()[-1].split()[:3] == ["vmaf", "fr_ensemble", "smoke"]


def test_train(tmp_path: Path) -> None:
    """Whole sources are set aside; three recipes are trained, compared by their gates and on what was set aside."""
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(ROOT / "plugins" / "fr_ensemble" / "data" / "corpus.parquet")
    few = sorted(set(table["src"].to_pylist()))[:10]  # each is a fold of every recipe
    rows = [row for row, source in enumerate(table["src"].to_pylist()) if source in few]
    pq.write_table(table.take(rows[::24]), tmp_path / "corpus.parquet")
    script = "\n".join(blocks("how-to/train.md")).replace(" --epochs 60", "").replace("MIT", "MIT --epochs 3")
    script = script.replace("MIT --epochs 3 --recipe", "MIT --epochs 3 --no-baselines --recipe")  # one entry has them
    said = shell(script, tmp_path)
    aside, train = (set(pq.read_table(tmp_path / f"{name}.parquet")["src"].to_pylist()) for name in ("aside", "train"))
    assert (len(aside), len(train), aside & train) == (2, 8, set())
    assert len(re.findall(r"^\w+: HOLD", said, flags=re.MULTILINE)) == 2
    assert re.search(r"^verdict +HOLD +HOLD +HOLD$", said, flags=re.MULTILINE)  # side by side
    assert "rmse_vs_incumbent_t_high" in said
    assert all(f"src={name}" in said for name in aside)
    assert (tmp_path / "sharp.html").is_file()


def test_calibrate(smoke: Sandbox) -> None:
    """An entry is measured on sources set aside, calibrated four ways, validated and gated, as the page says."""
    folder = smoke.folder.parent
    lines = write_corpus(folder / "mine.csv", 20, 20, seed=7).read_text().splitlines()
    days = ["session", *(f"day{number // 40}" for number in range(len(lines) - 1))]
    (folder / "mine.csv").write_text("".join(f"{line},{day}\n" for line, day in zip(lines, days, strict=True)))
    script = "\n".join(blocks("how-to/calibrate.md")).replace("my_model", "tiny")
    said = shell(script, folder, REGISTRY_JSON=str(smoke.path))
    assert "12 sources: intervals of 50, 80, 90 % are guaranteed for a new source of the same kind" in said
    assert said.count("calibrated from: tiny") == 4
    assert "encoders apart: libsvtav1 (12 sources), libx264 (12 sources), libx265 (12 sources)" in said
    assert "registry.json: 2 entries: valid" in said
    assert "tiny_here: PROMOTE" in said


@pytest.mark.usefixtures("own_git")
def test_audit(smoke: Sandbox, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flip and its day are told, and the model is trained again, as the page says."""
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-05-01T12:00:00+0000")
    start(smoke.folder)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-05-02T10:00:00+0000")
    flip(smoke.path, load(), "tiny")
    commit(smoke.folder)
    script = (
        "\n".join(blocks("how-to/audit.md")).replace("my_model", "tiny").replace("corpus.parquet", str(made.corpus))
    )
    said = shell(script, smoke.folder)
    assert "2026-05-02 10:00  turned production: sha256 " in said
    assert said.count("tiny: production on 2026-05-02T") == 2
    assert said.count("tiny: made again, to the same bytes") == 2
    assert (smoke.folder / "again" / "manifest.json").is_file()


def test_sign(tmp_path: Path) -> None:
    """A folder and an entry are signed with a key and with a certificate of an own authority, and verified.

    The policy names the key, the verdict is attested, and a bill of materials written.
    """
    pytest.importorskip("cryptography", reason="signatures need the extra `sign`")
    pytest.importorskip("cyclonedx", reason="a bill of materials needs the extra `bom`")
    shutil.copytree(ROOT / "model", tmp_path / "model")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "model.onnx").write_bytes(b"model")
    said = shell("\n".join(blocks("how-to/sign.md")), tmp_path)
    assert said.count("dist: 1 file signed, in dist.sig") == 2
    assert re.search(r"^dist: signed by key [0-9a-f]{12}$", said, flags=re.MULTILINE)
    assert "dist: signed by CN=our CI" in said.splitlines()
    entry = "fr_vmaf_ensemble_v1"
    (manifest,) = (ROOT / "model" / entry).glob("*/manifest.json")
    count = sum(path.is_file() for path in manifest.parent.rglob("*"))
    assert len(re.findall(rf"^{entry}: {count} files signed by (?:key [0-9a-f]{{12}}|CN=our CI), in ", said, re.M)) == 2
    assert len(re.findall(rf"^{entry}: signed by key ", said, re.M)) == 2  # named, then of the policy
    assert f"{entry}: signed by CN=our CI (" in said
    assert f"{entry}: REGISTRY_PROMOTED attested by key " in said
    bill = json.loads((tmp_path / f"{entry}.cdx.json").read_text())
    assert bill["metadata"]["component"]["name"] == entry
