"""test_bytes.py: a model's bytes depend on nothing but its key: not on neighbours, workers or the instruction set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the trainer needs the extra `train`")

from command_line import program_without
from corpora import RECIPES, SMALL, UNEVEN, digest, make_corpus
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.compiling import has_fma
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.model import ModelState, Steps, drop_threshold
from fr_ensemble.training.table import ModelKey, prepare
from fr_ensemble.training.trainer import train
from places import TESTS
from registries import Made, write_corpus

from registry_tool.errors import InputError

pytestmark = pytest.mark.slow

# A processor's name, the features that numba is to assume (without them it takes the host's), those the host must have.
TARGETS = {
    "haswell": ("+avx2,+fma", {"avx2", "fma"}),
    "skylake-avx512": ("+avx512f,+avx512vl", {"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512cd"}),
    "znver4": ("+avx512f,+avx512bf16", {"avx512f", "avx512bf16", "avx512vbmi2", "avx512vnni", "gfni", "vaes"}),
}
CHILD = """
import json
from fr_ensemble.training.compiling import has_fma, has_wide_registers, target
from fr_ensemble.training.execution import Execution
from fr_ensemble.training.trainer import arithmetic, train
from command_line import program_without
from corpora import RECIPES, UNEVEN, digest, make_corpus
digests = {name: digest(train(make_corpus(UNEVEN, 1), recipe, Execution(jobs=1))) for name, recipe in RECIPES.items()}
oof = train(make_corpus(UNEVEN, 1), RECIPES["small"], Execution(jobs=1)).oof.tolist()
print(json.dumps([target()[0], has_fma(), has_wide_registers(), arithmetic(Execution()), digests, oof]))
"""


def environment(name: str) -> dict[str, str]:
    """As if this were another processor, for numba, numpy and OpenBLAS. Skips where this one cannot stand in for it."""
    features, needed = TARGETS[name]
    llvm = pytest.importorskip("llvmlite.binding")
    host = {feature for feature, there in llvm.get_host_cpu_features().items() if there}
    if not needed <= host:
        pytest.skip(f"NOT TESTED on this processor, which lacks {sorted(needed - host)}: bytes under {name}")
    from numpy._core import _multiarray_umath as umath

    newer = [f for f in umath.__cpu_dispatch__ if f.startswith(("X86_V4", "AVX512")) and umath.__cpu_features__[f]]
    old = {"NPY_DISABLE_CPU_FEATURES": " ".join(newer), "OPENBLAS_CORETYPE": "Haswell"} if name == "haswell" else {}
    return os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features} | old


def child(environment: dict[str, str]) -> Any:
    paths = {"PYTHONPATH": str(TESTS / "helpers")}
    command = [sys.executable, "-c", CHILD]
    ran = subprocess.run(command, env=environment | paths, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_bytes_depend_on_the_key_alone(recipe: Recipe) -> None:
    """A seed's bytes do not change with other seeds, their order, the workers or another run."""
    data = make_corpus(UNEVEN, conditioning=1)
    base = train(data, recipe, Execution(jobs=1))
    for jobs in (1, 2, 5):
        assert digest(train(data, recipe, Execution(jobs=jobs))) == digest(base)
    others = train(data, replace(recipe, seeds=(9, 1, 5, 0)), Execution(jobs=1))
    assert [digest(others, 3), digest(others, 1)] == [digest(base, 0), digest(base, 1)]
    assert digest(others, 0) not in {digest(base, 0), digest(base, 1)}


@pytest.mark.skipif(not has_fma(), reason="NOT TESTED on this processor, which has no fused multiply-add")
@pytest.mark.parametrize("name", TARGETS)
def test_the_instruction_set_changes_no_byte(name: str) -> None:
    """Compiled for another processor, with other registers, every option trains to the bytes that it has here."""
    target, fused, wide, _, digests, _ = child(environment(name))
    assert (target, fused, wide) == (name, True, name != "haswell")
    assert digests == {k: digest(train(make_corpus(UNEVEN, 1), r, Execution(jobs=1))) for k, r in RECIPES.items()}


def test_without_fused_multiply_add_the_models_are_the_same_and_the_bytes_are_not() -> None:
    """The generic path: every product is rounded; results agree to rounding, and the environment says what it is."""
    plain = os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "-avx,-fma"}
    _, fused, wide, arithmetic, digests, oof = child(plain)
    assert (fused, wide, arithmetic["multiply-add"]) == (False, False, "two roundings")
    here = train(make_corpus(UNEVEN, 1), SMALL, Execution(jobs=1))
    assert (digests["small"] != digest(here)) == has_fma()
    np.testing.assert_allclose(oof, here.oof, atol=1e-4)


def test_a_whole_entry_is_the_same_on_other_processors(made: Made, tmp_path: Path) -> None:
    """Every file, and the manifest but for its environment: two instruction sets for numba, numpy and BLAS; one worker
    and two; conditions with a logarithm too."""
    rows = write_corpus(tmp_path / "rows.csv", 4, 30, seed=3).read_text().splitlines()
    numbered = [f"{row},{'kbps' if i == 0 else 100.7 * i}" for i, row in enumerate(rows)]
    (tmp_path / "rows.csv").write_text("\n".join(numbered) + "\n")
    trees = []
    for name, jobs in (("haswell", "1"), ("skylake-avx512", "2")):
        registry = tmp_path / name / "registry.json"
        arguments = ["train", "fr_ensemble", "--id", "e", "--corpus", tmp_path / "rows.csv", "--registry", registry]
        arguments += ["--license", "MIT", "--jobs", jobs, "--seeds", "0,1", "--epochs", "20", "--no-baselines"]
        arguments += ["--condition", "log2:kbps", "--learning-rate", "0.01"]
        ran = program_without(("torch",), *arguments, env=environment(name))
        assert ran.returncode == 0, ran.stderr
        files = {path.name: path.read_bytes() for path in registry.parent.rglob("*") if path.is_file()}
        manifest = json.loads(files.pop("manifest.json"))
        assert {item["name"] for item in manifest.pop("environment")} > {"multiply-add", "numba"}
        del files["registry.json"]  # its digest of the manifest covers the environment
        trees.append((files, manifest))
    assert len(trees[0][0]) >= 6
    assert trees[0] == trees[1]


def test_dropout_rate() -> None:
    """Units drop out at the recipe's rate in units of 2^-16, and never without dropout."""
    assert [drop_threshold(p) for p in (0.0, 0.1, 0.5, 1 - 1e-9)] == [0, 6554, 2**15, 2**16 - 1]


def test_no_denormals() -> None:
    """Weights of slots that no row uses, and their moments, end in zero, not in denormal numbers, which cost time."""
    recipe = replace(SMALL, epochs=2000, weight_decay=0.1, learning_rate=5e-3)
    table = prepare(make_corpus([20, 20]))
    model = ModelState.begin(table, recipe, ModelKey(0, 0))
    steps = Steps(table, recipe, model)
    while not model.is_done(recipe):
        steps.take(recipe.epochs)
    for array in (model.p, model.m, model.v):
        assert np.all((array == 0) | (np.abs(array) >= np.finfo(np.float32).tiny))


@pytest.mark.parametrize(("hidden", "batch"), [(5, 3), (16, 8), (70, 33)])
def test_padding_stays_zero(hidden: int, batch: int) -> None:
    """Units and inputs that only fill up a tile never learn."""
    recipe = replace(SMALL, hidden=hidden, batch_size=batch, epochs=20, learning_rate=0.01)
    table = prepare(make_corpus(UNEVEN))
    model = ModelState.begin(table, recipe, ModelKey(1, 0))
    Steps(table, recipe, model).take(20)
    for array in (model.p, model.m, model.v):
        used = model.layout.pack(model.layout.unpack(array))
        assert np.array_equal(used, array)
        assert used.any()


def test_a_fold_never_sees_what_it_holds_out() -> None:
    """Other targets in a source change every model but those that held it out."""
    data = make_corpus([12, 20, 15])
    base = train(data, SMALL, Execution(jobs=1))
    other = train(replace(data, target=data.target + 5.0 * (data.source == 0)), SMALL, Execution(jobs=1))
    held = data.source == 0
    assert np.array_equal(base.oof[:, held], other.oof[:, held])
    assert not np.any(base.oof[:, ~held] == other.oof[:, ~held])
    assert not np.array_equal(base.members[0].w2, other.members[0].w2)


def test_members_learn_and_answer_in_target_units() -> None:
    """The members' scores of their own rows are close to the truth; held-out rows have one each too."""
    data = make_corpus([60, 60, 60])
    trained = train(data, replace(SMALL, epochs=60, dropout=0.0), Execution(jobs=1))
    assert np.corrcoef(trained.fitted[0], data.target)[0, 1] > 0.95
    assert abs(trained.fitted.mean() - data.target.mean()) < 1.0
    assert np.isfinite(trained.oof).all()


def test_divergence_is_named() -> None:
    """Weights that are not finite are an error that names the learning rate, never a result."""
    with pytest.raises(InputError, match="--learning-rate: found 1e"):
        train(make_corpus([10, 10]), replace(SMALL, learning_rate=1e30), Execution(jobs=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "dask"}, "--engine: found 'dask', expected one of local, ray"),
        ({"device": "cuda"}, "--device: found 'cuda', expected cpu: other devices need --trainer reference"),
        ({"trainer": "stacked"}, "--trainer: found 'stacked', expected one of compiled, reference"),
    ],
)
def test_what_is_not_there_is_named(options: dict[str, str], words: str) -> None:
    """An engine, a device or a trainer that is not there is refused, naming what there is."""
    with pytest.raises(InputError, match=words):
        train(make_corpus([10, 10]), SMALL, Execution(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "--device: found 'tpu'"),
        ({"device": "meta"}, r"--device: found 'meta', which this torch cannot use \(Cannot copy out of meta tensor"),
        ({"engine": "ray"}, "the reference trainer runs in this process"),
        ({"checkpoint": Path("x")}, "the reference trainer keeps none"),
    ],
)
def test_what_the_reference_does_not_do_is_named(options: dict[str, Any], words: str) -> None:
    """It has no engines and no checkpoints, and torch's devices alone."""
    pytest.importorskip("torch", reason="the reference trainer needs the extra `torch`")
    with pytest.raises(InputError, match=words):
        train(make_corpus([10, 10]), SMALL, Execution(trainer="reference", **options))


def test_progress_counts_model_epochs() -> None:
    """Progress ends at models times epochs, never goes back, and is reported in the caller's thread."""
    calls: list[tuple[int, int]] = []
    threads = set()

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            calls.append((done, total))
            threads.add(threading.current_thread())

    train(make_corpus([10, 10]), SMALL, progress=progress)
    assert calls[-1] == (24, 24)  # 2 seeds x (2 folds + 1 final) x 4 epochs
    assert calls == sorted(calls)
    assert threads == {threading.current_thread()}
