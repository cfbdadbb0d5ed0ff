"""test_large_corpora.py: what reading costs in memory as a corpus grows, as tracemalloc counts it."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Program, succeed
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus import info
from fr_ensemble.corpus.rows import read_batches, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.recorded import EvidenceContents
from fr_ensemble.training.execution import Execution
from places import ROOT
from registries import QUICK

from registry_tool.rows import blocks

pytestmark = pytest.mark.slow

BATCH, FEW, MANY = 1_000, 4_000, 20_000
BLOCK = 1 << 14  # bytes of a CSV at once: far below the size of either file
MB = 1 << 20


@pytest.fixture(scope="module", params=["parquet", "csv"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """FEW and MANY rows of the same clips, as the benchmark writes them."""
    spec = importlib.util.spec_from_file_location("large_corpus", ROOT / "benchmarks" / "large_corpus.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    folder = tmp_path_factory.mktemp("large")
    few, many = (benchmark.write(folder / f"{rows}.{request.param}", rows, sources=5) for rows in (FEW, MANY))
    return few, many


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", BLOCK)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that were held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(work: Callable[[Path], object], files: tuple[Path, Path]) -> int:
    """How much more the many rows take than the few, once modules and caches are there."""
    work(files[0])
    few, many = (peak(lambda file=file: work(file)) for file in files)  # type: ignore[misc]  # a lambda's default
    return many - few


def test_rows_stream(files: tuple[Path, Path]) -> None:
    """Rows read batch by batch take the memory of a batch, however many there are."""

    def work(file: Path) -> int:
        return sum(len(rows) for rows in read_batches(file, ColumnSpec(), BATCH))

    assert work(files[1]) == MANY
    assert growth(work, files) < MB / 4


def test_a_description_keeps_a_hash_a_row(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """corpus info keeps at most 56 bytes a row and sorts some of them: far from the numbers and texts of a row."""
    monkeypatch.setattr(info, "BATCH_ROWS", BATCH)
    assert growth(info.describe, files) / (MANY - FEW) < 100


def test_a_corpus_in_memory_is_its_numbers(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer's reader holds float64 and indexes of a row, and no second copy of them all on the way."""
    monkeypatch.setattr("fr_ensemble.corpus.rows.read_batches.__defaults__", (BATCH, ()))
    assert growth(lambda file: read_corpus(file, ColumnSpec()), files) / (MANY - FEW) < 130


def test_training_adds_less_than_300_bytes_a_row(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the reader: the trainer's table, five seeds' predictions, their evidence and its calibration."""
    pytest.importorskip("numba", reason="training needs the extra `train`")
    from fr_ensemble.hooks import train

    monkeypatch.setattr("fr_ensemble.corpus.rows.read_batches.__defaults__", (BATCH, ()))
    monkeypatch.setattr("fr_ensemble.training.parity.PARITY_ROWS", 64)
    monkeypatch.setattr("fr_ensemble.evidence.oof.BLOCK_ROWS", BATCH)
    recipe, contents = Recipe(epochs=1, hidden=4, batch_size=512), EvidenceContents(baselines=False)

    def work(file: Path) -> None:
        train.run(
            train.Job("big", file, ColumnSpec(), recipe, False, execution=Execution(jobs=1), contents=contents),
            lambda what, done, total: None,
        )

    above = growth(work, files) - growth(lambda file: read_corpus(file, ColumnSpec()), files)

    assert above / (MANY - FEW) < 300


@pytest.fixture(scope="module")
def clipped(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with an ensemble that knows clips."""
    registry = tmp_path_factory.mktemp("model") / "registry.json"
    succeed(
        "train", "fr_ensemble", "--id", "big", "--corpus", files[0], *QUICK, "--batch-size", 512, "--registry", registry
    )
    return registry


def test_a_recommendation_streams(
    registry: Program, clipped: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """recommend keeps sums a clip: as many rows of the same clips as there are take the same memory."""
    monkeypatch.setattr("fr_ensemble.corpus.rows.read_batches.__defaults__", (BATCH, ()))

    def work(file: Path) -> None:
        ran = registry("fr-ensemble", "recommend", "big", "--corpus", file, "--registry", clipped, "--target", "50")
        assert ran.code == 0, ran.err

    assert growth(work, files) < MB / 4
