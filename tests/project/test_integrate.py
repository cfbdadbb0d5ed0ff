"""Tests of docs/how-to/integrate.md: its code gives the numbers of `registry predict`, in both languages."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Program, succeed
from csv_tables import write_csv
from places import ROOT
from policies import set_policy
from registries import FEATURES, TRAINING, write_corpus
from sandbox import Sandbox

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "how-to" / "integrate.md").read_text(encoding="utf-8")
SPELLED = ("H.264", "libx265", "SVT-AV1", "x264", "dirac")
DRIVER = """
const model = require("./integrate.js");
const [registry, id, file] = process.argv.slice(2);
const rows = JSON.parse(require("node:fs").readFileSync(file, "utf8"));
model.load(registry, id).then(async (loaded) => {
  const blocks = loaded.manifest.probe.features.map((_, i) => {
    const { encoder, conditioning } = loaded.manifest.probe;
    const row = { encoder: encoder[i], kbps: conditioning[i][0], crf: conditioning[i][1] };
    return model.block(loaded.manifest, row);
  });
  console.log(JSON.stringify({ rows: await model.predict(loaded, rows), blocks }));
});
"""
Rows = list[dict[str, Any]]


def code(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@dataclass(frozen=True)
class Deployed:
    """A production entry with two conditions, rows it has not seen, and what `registry predict` says of them."""

    box: Sandbox
    rows: Rows
    expected: Rows

    @classmethod
    def of(cls, box: Sandbox, corpus: Path, rows: Rows) -> Deployed:
        where = ("--corpus", corpus, "--format", "jsonl", "--registry", box.path)
        return cls(box, rows, [json.loads(line) for line in succeed("predict", box.id, *where).out.splitlines()])


def with_conditions(path: Path, spelled: tuple[str, ...] = ()) -> Rows:
    """The rows of a corpus with a bitrate and a quality number; with other spellings of encoders."""
    rng = np.random.default_rng(7)
    with path.open(newline="") as file:
        rows: Rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        row |= {"kbps": round(float(rng.uniform(200, 9000)), 1), "crf": int(rng.integers(20, 40))}
        row |= {"encoder": spelled[index % len(spelled)]} if spelled else {}
    write_csv(path, rows)
    return [row | {name: float(row[name]) for name in FEATURES} for row in rows]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    base = tmp_path_factory.mktemp("integrate")
    with_conditions(write_corpus(base / "corpus.csv", 5, 60, seed=1))
    rows = with_conditions(write_corpus(base / "rows.csv", 2, 20, seed=2), SPELLED)
    box = base / "model" / "registry.json"
    conditions = ("--condition", "log2:kbps", "--condition", "crf")
    succeed(
        "train",
        "fr_ensemble",
        "--id",
        "mine",
        "--corpus",
        base / "corpus.csv",
        *TRAINING,
        *conditions,
        "--registry",
        box,
    )
    made = Sandbox(box, "mine")
    made.edit(set_policy("fr_ensemble", {"rules": [{"metric": "n_seeds", "op": ">=", "bound": 1}]}))
    succeed("flip", "mine", "--registry", box)
    return Deployed.of(Sandbox(box, "mine"), base / "rows.csv", rows)


@pytest.fixture(scope="module")
def apart(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The same, calibrated by encoder; one of these has no slot, and one is in too few sources."""
    base, where = tmp_path_factory.mktemp("apart"), ("--registry", deployed.box.path)
    with_conditions(write_corpus(base / "own.csv", 8, 24, seed=3), ("avc", "libx265", "aomenc"))
    lines = (base / "own.csv").read_text().splitlines()
    (base / "own.csv").write_text("\n".join([*lines, *(line.replace("aomenc", "av1") for line in lines[-2:])]) + "\n")
    rows = with_conditions(
        write_corpus(base / "rows.csv", 2, 20, seed=4), ("H.264", "hevc", "libaom-av1", "AV1", "dirac")
    )
    succeed("calibrate", "mine", "--corpus", base / "own.csv", "--id", "apart", "--by-encoder", *where)
    succeed("flip", "apart", *where)
    return Deployed.of(Sandbox(deployed.box.path, "apart"), base / "rows.csv", rows)


def assert_same(found: Rows, expected: Rows) -> None:
    """To rounding of float32; flags exactly."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["outside"] == other["out_of_distribution"]
        for name, column in (("mu", "mu"), ("sigma", "sigma"), ("lower", "lower_95"), ("upper", "upper_95")):
            assert one[name] == pytest.approx(other[column], abs=1e-4), name


def in_python(deployed: Deployed) -> tuple[Rows, list[list[float]]]:
    names: dict[str, Any] = {}
    exec(compile(code("python"), "integrate.md", "exec"), names)
    manifest, session = names["load"](deployed.box.path, deployed.box.id)
    columns = names["predict"](manifest, session, deployed.rows)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    probe = manifest["probe"]
    given = zip(probe["encoder"], probe["conditioning"], strict=True)
    blocks = [names["block"](manifest, {"encoder": encoder, "kbps": c[0], "crf": c[1]}) for encoder, c in given]
    return rows, blocks


def in_javascript(deployed: Deployed) -> tuple[Rows, list[list[float]]]:
    """NODE_PATH names the folder that has onnxruntime-node, where it is not found without."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("1 test: no node")
    if subprocess.run([node, "-e", 'require("onnxruntime-node")'], capture_output=True, check=False).returncode:
        pytest.skip("1 test: node has no onnxruntime-node: npm install it, and name its folder in NODE_PATH")
    folder = deployed.box.folder.parent / "js"
    folder.mkdir(exist_ok=True)
    (folder / "integrate.js").write_text(code("javascript"))
    (folder / "driver.js").write_text(DRIVER)
    (folder / "rows.json").write_text(json.dumps(deployed.rows))
    command = [node, "driver.js", str(deployed.box.path), deployed.box.id, "rows.json"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=dict(os.environ))
    answer = json.loads(done.stdout)
    return answer["rows"], answer["blocks"]


@pytest.mark.parametrize("run", [in_python, in_javascript])
def test_the_code_of_the_page_gives_the_numbers_of_the_command(
    deployed: Deployed, run: Callable[[Deployed], tuple[Rows, list[list[float]]]]
) -> None:
    """Conditions, spellings, an unknown encoder, interval and flags; and the probe's codec block from its raw rows."""
    rows, blocks = run(deployed)
    assert_same(rows, deployed.expected)
    stored = deployed.box.manifest["probe"]["codec_block"]
    assert blocks == [pytest.approx(row, rel=1e-12) for row in stored]


@pytest.mark.parametrize("run", [in_python, in_javascript])
def test_the_code_of_the_page_takes_intervals_by_encoder(
    apart: Deployed, run: Callable[[Deployed], tuple[Rows, list[list[float]]]]
) -> None:
    """In every spelling, of an encoder without a slot too; others take those of all rows."""
    names = {item["name"] for item in apart.box.manifest["intervals"]["by_encoder"]["encoders"]}
    assert names == {"libx264", "libx265", "libaom-av1"}
    assert_same(run(apart)[0], apart.expected)


def test_the_code_of_the_page_takes_an_older_manifest(deployed: Deployed) -> None:
    """Without spellings the names of the vocabulary are all it knows; another digest is refused."""
    names: dict[str, Any] = {}
    exec(compile(code("python"), "integrate.md", "exec"), names)
    older = {
        key: value for key, value in deployed.box.manifest.items() if key not in ("codec_spellings", "codec_stand_in")
    }
    assert names["slot"](older, "libx264") == ("libx264", True)
    assert names["slot"](older, "H.264") == ("unknown", False)
    assert names["slot"](deployed.box.manifest, "H.264") == ("libx264", True)
    with pytest.raises(ValueError, match="digest mismatch"):
        names["pinned"](deployed.box.path, "0" * 64)


def test_scaled_conditions_have_no_place_in_the_layout_of_libvmaf(
    deployed: Deployed, registry: Program, tmp_path: Path
) -> None:
    """`registry export` says how to train an ensemble that its loader can feed."""
    ran = registry("export", "mine", "-o", tmp_path / "out", "--registry", deployed.box.path)
    assert (ran.code, "--member-conditions raw" in ran.err, (tmp_path / "out").exists()) == (2, True, False)
