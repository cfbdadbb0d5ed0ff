"""test_plugin_example.py: the plugin of docs/plugins.md, installed from its folder and used through the program."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
EXAMPLE = PAGE.parent / "examples" / "plugin"
ROWS = EXAMPLE / "rows.csv"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed by pip from its own folder, offline."""
    base = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, base / "source")  # building leaves files beside it
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(base / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return base / "site"


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """The program with the plugin installed, working on a registry of its own."""
    environment = os.environ | {"PYTHONPATH": str(site), "REGISTRY_JSON": str(tmp_path / "model" / "registry.json")}

    def registry(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "registry_tool", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return registry


def test_listed(run: Run) -> None:
    """The plugin, its version, its kind and its hooks are listed."""
    listed = json.loads(run("plugins", "--format", "json").stdout)
    hooks = "registry_gate, registry_kinds, registry_predict, registry_train, registry_verify"
    assert {"plugin": "line", "version": "1.0", "kinds": "line", "hooks": hooks} in listed
    assert "--feature" in run("train", "line", "--help").stdout


def test_whole_chain(run: Run, tmp_path: Path) -> None:
    """A line is trained, validated, gated, flipped, validated as production, and predicts what its manifest says."""
    run("train", "line", "--id", "adm_line", "--corpus", ROWS, "--license", "MIT")
    run("validate", "--strict")
    assert "PROMOTE" in run("gate", "adm_line").stdout
    run("flip", "adm_line")
    run("validate", "--strict")
    (entry,) = json.loads(run("list", "--format", "json").stdout)
    assert (entry["kind"], entry["smoke"], entry["license"]) == ("line", False, "MIT")
    manifest = json.loads((tmp_path / "model" / entry["manifest"]).read_text())
    with ROWS.open(newline="") as file:
        expected = [manifest["slope"] * float(row["adm2"]) + manifest["intercept"] for row in csv.DictReader(file)]
    rows = list(csv.DictReader(run("predict", "adm_line", "--corpus", ROWS).stdout.splitlines()))
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, rel=1e-5)  # the graph is float32
    assert [int(row["row"]) for row in rows] == list(range(len(expected)))


def test_line_is_least_squares(run: Run, tmp_path: Path) -> None:
    """The line through points that lie on one is that line, and every held-out source is predicted exactly."""
    corpus = tmp_path / "points.csv"
    corpus.write_text("src,adm2,vmaf\n" + "".join(f"s{i % 4},{i / 16},{2 + 3 * i / 16}\n" for i in range(16)))
    run("train", "line", "--id", "exact", "--corpus", corpus)
    (manifest,) = (json.loads(p.read_text()) for p in (tmp_path / "model" / "exact").glob("*/manifest.json"))
    assert (manifest["slope"], manifest["intercept"]) == pytest.approx((3.0, 2.0), abs=1e-12)
    verdict = json.loads(run("gate", "exact", "--format", "json").stdout)
    assert verdict["metrics"]["oof_plcc"] == pytest.approx(1.0, abs=1e-12)


def test_weak_feature_is_held(run: Run) -> None:
    """A line on a column that tells little about quality is held, and not flipped."""
    run("train", "line", "--id", "weak", "--corpus", ROWS, "--feature", "quality", "--license", "MIT")
    assert "oof_plcc >= 0.9: found" in run("gate", "weak", code=1).stdout
    run("flip", "weak", code=1)
    run("validate", "--strict")


def test_smoke_never_flips(run: Run) -> None:
    """A line through random rows loads and validates, and is never flipped."""
    run("train", "line", "--id", "probe", "--smoke", "--license", "MIT")
    run("validate", "--strict")
    assert "random rows" in run("flip", "probe", code=1).stderr


def test_other_graph_is_found(run: Run, tmp_path: Path) -> None:
    """A manifest whose numbers are not those of its graph is found, although every digest holds."""
    run("train", "line", "--id", "adm_line", "--corpus", ROWS)
    path = tmp_path / "model" / "registry.json"
    document = json.loads(path.read_text())
    (entry,) = document["models"]
    manifest = json.loads((path.parent / entry["manifest"]).read_text())
    repin(path, document, manifest | {"slope": manifest["slope"] + 1})
    findings = json.loads(run("validate", "--format", "json", code=1).stdout)["findings"]
    assert [f["code"] for f in findings if f["severity"] == "error"] == ["line-graph"]


def repin(path: Path, document: dict[str, list[dict[str, str]]], manifest: object) -> None:
    """Write a changed manifest into the folder of its digest, and pin it in the registry."""
    (entry,) = document["models"]
    data = json.dumps(manifest).encode()
    old = path.parent / entry["manifest"]
    digest = sha256(data).hexdigest()
    new = old.parent.with_name(digest[:12])
    old.parent.rename(new)
    (new / "manifest.json").write_bytes(data)
    entry |= {"manifest": f"{entry['id']}/{new.name}/manifest.json", "sha256": digest}
    path.write_text(json.dumps(document))


def test_foreign_evidence(run: Run, tmp_path: Path) -> None:
    """Evidence in a folder is judged without an entry; a folder without it cannot be judged."""
    run("train", "line", "--id", "adm_line", "--corpus", ROWS)
    (evidence,) = (tmp_path / "model" / "adm_line").glob("*/oof.csv")
    (tmp_path / "folder").mkdir()
    shutil.copy(evidence, tmp_path / "folder")
    assert "PROMOTE" in run("gate", "--evidence", tmp_path / "folder", "--kind", "line").stdout
    (tmp_path / "folder" / "oof.csv").rename(tmp_path / "folder" / "other.csv")
    assert "expected oof.csv" in run("gate", "--evidence", tmp_path / "folder", "--kind", "line", code=2).stderr


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ("src,target,prediction\na,1,1\na,2,2\nb,3,3\n", "fewer than 3 sources"),
        ("src,target,prediction\na,1,1\nb,2,nan\nc,3,3\n", "oof_plcc"),
        ("src,target,prediction\na,1,inf\nb,2,-inf\nc,3,3\n", "oof_plcc"),
        ("src,target,prediction\na,1,5\nb,2,5\nc,3,5\n", "oof_plcc"),
    ],
)
def test_unfit_evidence_is_held(run: Run, tmp_path: Path, evidence: str, reason: str) -> None:
    """Too few sources, a number that is not finite and constant predictions promote nothing."""
    run("train", "line", "--id", "probe", "--smoke")  # a registry to take the policy from
    (tmp_path / "oof.csv").write_text(evidence)
    assert reason in run("gate", "--evidence", tmp_path, "--kind", "line", code=1).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src,vmaf\na,1\n", "expected adm2"),
        ("src,adm2,vmaf\na,0.5,70\nb,n/a,80\n", "rows.csv:3, column adm2: found 'n/a'"),
        ("src,adm2,vmaf\na,0.5,70\nb,nan,80\n", "rows.csv:3, column adm2: found 'nan'"),
        ("src,adm2,vmaf\na,0.5,70\nb,0.6,80\n", "found 2 sources"),
        ("src,adm2,vmaf\na,0.5,70\nb,0.5,80\nc,0.5,75\n", "no line fits"),
        ("", "expected src"),
    ],
)
def test_unusable_corpus(run: Run, tmp_path: Path, text: str, message: str) -> None:
    """A corpus that cannot be used is one line that says where and what, exit 2, and nothing is written."""
    (tmp_path / "rows.csv").write_text(text)
    done = run("train", "line", "--id", "x", "--corpus", "rows.csv", code=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "model" / "registry.json").exists()


def test_no_corpus(run: Run) -> None:
    """The kind ships no corpus, so training without one is refused with the option to use."""
    assert "--corpus" in run("train", "line", "--id", "x", code=2).stderr


def test_without_the_plugin(run: Run, tmp_path: Path) -> None:
    """An entry whose plugin is not installed is an error, never skipped."""
    run("train", "line", "--id", "adm_line", "--corpus", ROWS)
    command = [sys.executable, "-m", "registry_tool", "validate", str(tmp_path / "model" / "registry.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "kind-unknown" in done.stdout


def test_page_shows_a_test_that_passes(site: Path, tmp_path: Path) -> None:
    """The test that docs/plugins.md shows passes beside the plugin's rows."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "def test_" in block)
    (tmp_path / "test_line.py").write_text(code)
    shutil.copy(ROWS, tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_line.py"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
