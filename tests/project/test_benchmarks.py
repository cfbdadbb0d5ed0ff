"""Tests of benchmarks/: each script explains itself and runs to its end, on as little as it takes."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from encoding import FRAMES, MOVING
from places import ROOT
from registries import write_corpus

pytestmark = pytest.mark.slow

Run = Callable[..., str]

FILES = sorted((ROOT / "benchmarks").glob("*.py"))
SCRIPTS = {path.stem: path for path in FILES if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}
TRAINING = "--epochs 30 --hidden 16 --learning-rate 0.01 --no-baselines"
RUNS = {  # script -> (its smallest run, what it prints at the end of it); {data}: two tables, {corpus}: a CSV
    "baselines": ("--corpus {corpus} --epochs 1", "gaussian_process"),
    "calibration_trials": ("{data} --runs frames --trials t1-t2 --epochs 2", "with an offset"),
    "comparison_levels": ("--draws 20", "sources"),
    "default_rules": ("--step 240 --epochs 1", "six rows of three sources"),
    "demo": (
        f"--folder demo -- --corpus {{corpus}} {TRAINING} --license MIT --no-baselines",
        "the registry is in demo/",
    ),
    "evidence_limits": ("--only rows --divide 2000", "validate"),
    "foreign_corpora": ("{data} --runs mos-canonical --epochs 2", "clips -> mos"),
    "gate_power": ("--bodies 1 --rulings 2", "held"),
    "import_logs": ("--logs 2", " times"),
    "inference_ratio": ("--rounds 1", "rows"),
    "interval_trials": ("{data} --only mos-canonical,vmaf --epochs 1 --seed-sets 2", "sets of five seeds"),
    "large_corpus": ("--train --rows 1000", "train"),
    "large_errors": ("{data}/frames.parquet --step 1 --epochs 1", "held out"),
    "load_time": ("--rounds 1", "beyond the session"),
    "make_corpora": ("cache --folder . --sources 1 --encoders 1 --qualities 1", ""),
    "make_model": ("--folder model --cards . -- --epochs 2 --hidden 16 --no-baselines", "2 entries: valid"),
    "natural_clips": ("{wheel} --every 1", "sources, mean"),
    "nested_loso": ("{data} --runs clips --epochs 1 --seeds 2 --thin 2", "RMSE less that of plain VMAF"),
    "plugin_loading": ("--plugins 1 --rounds 1", "plugins"),
    "predict_ratio": ("--rows 1000 --rounds 1 --only csv-csv", "csv"),
    "recommend_trials": ("{data} --repeats 2 --confidences 0.8 --targets 1 --ask 60,80,20", "AVT-VQDB-UHD-1, MOS"),
    "signing": ("--rounds 1 --entries 2", "entries"),
    "simulated_shifts": (
        "{data}/frames.parquet --splits 1 --epochs 1 --seeds 0,1 --calibrated 0.5 --divisions 2",
        "by encoder",
    ),
    "train_ratio": ("--rows 200 --sources 3 --seeds 2 --epochs 1 --rounds 1 --reference-steps 5", "ratio"),
    "unknown_encoders": ("{data}/frames.parquet --step 1 --epochs 1 --seeds 2 --shares 0.2", "left out"),
    "validate_ratio": ("--entries 20 --rounds 1 --full-rounds 1", "entries"),
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A script as if it were typed, in this process, which has the libraries and the compiled trainer loaded."""

    def script(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPTS[name]), *arguments])
        monkeypatch.syspath_prepend(SCRIPTS[name].parent)  # as for a program: one script may take from another
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the processes that it starts
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
        return capfd.readouterr().out

    return script


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clips and frames with VMAF and opinion scores, as AVT-VQDB-UHD-1's tables have them."""
    corpus = pyarrow.csv.read_csv(write_corpus(tmp_path / "corpus.csv", 8, 24, seed=1))
    n, vmaf = corpus.num_rows, corpus["vmaf"].to_numpy()
    clips = [f"t{1 + 2 * row // n}/{row}" for row in range(n)]
    more = {"clip": clips, "mos": 1 + vmaf / 25, "bitrate_kbps": 100 + vmaf, "height": [360.0, 720.0] * (n // 2)}
    for name in ("clips", "frames"):
        table = pa.table({**{column: corpus[column] for column in corpus.column_names}, **more})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    return tmp_path


def wheel_in(folder: Path) -> Path:
    """A wheel with a clip of eight frames, and one that it calls distorted, which is no video."""
    clip, wheel = folder / "moving.mp4", folder / "clips.whl"
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    frames = ("-f", "lavfi", "-i", f"{MOVING}", "-frames:v", str(FRAMES))
    subprocess.run([ffmpeg, "-v", "error", *frames, clip], check=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(clip, "package/data/moving.mp4")
        archive.writestr("package/data/moving_distorted.mp4", b"none")
    return wheel


def test_every_script_is_here() -> None:
    """A new script has a smallest run."""
    assert RUNS.keys() == SCRIPTS.keys()


@pytest.mark.parametrize("name", RUNS)
def test_a_script_runs_to_its_end(name: str, data: Path, run: Run) -> None:
    """What the documents quote can be measured again by anyone."""
    arguments, expected = RUNS[name]
    wheel = wheel_in(data) if "{wheel}" in arguments else None
    words = [word.format(data=data, corpus=data / "corpus.csv", wheel=wheel) for word in arguments.split()]
    assert expected in run(name, *words)


@pytest.mark.parametrize("name", RUNS)
def test_a_script_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its help names every option of its smallest run."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS[name]), "--help"])
    monkeypatch.syspath_prepend(SCRIPTS[name].parent)  # as for a program: one script may take from another
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    first = RUNS[name][0].partition(" -- ")[0]
    assert [word for word in first.split() if word.startswith("--") and word not in printed] == []
    assert "usage: " in printed
