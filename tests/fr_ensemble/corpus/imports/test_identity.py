"""test_identity.py: the model behind a score, read from its log, asked for, or refused: never mixed in silence."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import logs
import pytest
from command_line import Program
from fr_ensemble.corpus.imports.identity import DEFAULTS, LogChoice, identify
from fr_ensemble.corpus.record import Definition, read_definition
from fr_ensemble.corpus.vmaf_models import VMAF_MODELS, canonical, features_of, high_of, model_of
from logs import read_frames, read_log

from registry_tool.errors import InputError

IMPORT = ("fr-ensemble", "corpus", "import")
V1 = [name for name, model in VMAF_MODELS.items() if model.feature_set == "vmaf-v1"]
NEG = [name for name in VMAF_MODELS if name.endswith("neg")]
FAMILIES = {
    "v0": "vmaf_v0.6.1",
    "v0-4K": "vmaf_4k_v0.6.1",
    "v0-NEG": "vmaf_v0.6.1neg",
    "v1": "vmaf_v1.0.16_3d0h",
    "v1-HFR": "vmaf_v1.0.16_hfr_3d0h",
}


PAIRS = list(itertools.permutations(FAMILIES, 2))


def one_log(tmp_path: Path, model: str, **more: Any) -> Path:
    return logs.libvmaf_json(tmp_path / f"{model}.json", logs.frames_of(model, **more))


def found(path: Path, score: str = "", model: str = "") -> tuple[str, tuple[str, ...]]:
    """Definition and features of a log."""
    identity = read_log(path, LogChoice(score, model)).identity
    return identity.definition, tuple(identity.columns)


@pytest.mark.parametrize("model", V1)
def test_a_model_of_vmaf_v1_is_known_by_its_features(model: str, tmp_path: Path) -> None:
    """Viewing distance, display and frame rate stand in the names of the features: nothing need be asked."""
    assert found(one_log(tmp_path, model)) == (model, ("cambi", "speed_chroma_uv", "adm3", "motion3"))


@pytest.mark.parametrize("model", V1)
def test_what_is_told_about_the_encode_is_no_other_model(model: str, tmp_path: Path) -> None:
    """Size and depth of the encode, which callers tell CAMBI, change its name in the log and not the model."""
    frames = logs.frames_of(model)
    named = [{k + "_encbd_8_ench_720_encw_1280" * k.startswith("cambi"): v for k, v in f.items()} for f in frames]
    assert found(logs.libvmaf_json(tmp_path / "a.json", named))[0] == model


@pytest.mark.parametrize("model", DEFAULTS)
def test_a_log_that_leaves_its_model_open_names_what_it_may_be(model: str, tmp_path: Path) -> None:
    """Models of VMAF v0 share their features: the definition is not known, and can be said."""
    path = one_log(tmp_path, model)
    identity = identify(read_frames(path), LogChoice())
    assert (identity.definition, identity.candidates) == ("", tuple(DEFAULTS))
    assert found(path, model=f"{model}.json")[0] == model


@pytest.mark.parametrize("model", NEG)
def test_a_neg_log_is_not_taken_for_another(model: str, tmp_path: Path) -> None:
    """Its features have the gain limited: it is imported where its model is said, as what it is."""
    path = one_log(tmp_path, model)
    assert identify(read_frames(path), LogChoice()).candidates == ("vmaf_v0.6.1neg", "vmaf_4k_v0.6.1neg")
    assert found(path, model=model)[0] == model
    with pytest.raises(InputError, match=r"--vmaf-model says vmaf_v0\.6\.1: import it apart"):
        found(path, model="vmaf_v0.6.1")


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    """A model that libvmaf does not ship is taken by its name, with the features that its log has."""
    assert found(one_log(tmp_path, "vmaf_v0.6.1"), model="/m/mine_v2.json") == ("mine_v2", features_of("mine_v2"))
    other = [{f"{k}_x_9" if k != "vmaf" else k: v for k, v in f.items()} for f in logs.frames_of(V1[0])]
    with pytest.raises(InputError, match="lacks adm2"):
        found(logs.libvmaf_json(tmp_path / "a.json", other))
    assert found(logs.libvmaf_json(tmp_path / "a.json", other), model="mine_v3")[1] == features_of(V1[0])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("v0.6.1", "warning: v0.6.1 is no model that libvmaf has built in: is it vmaf_v0.6.1?"),
        ("mine", "warning: mine is no model that libvmaf has built in\n"),
        ("vmaf_v0.6.1", ""),
    ],
)
def test_a_name_that_libvmaf_does_not_know_is_said(model: str, words: str, registry: Program, tmp_path: Path) -> None:
    """It may be a model of one's own, or a slip, by which rows of one model would count as those of two."""
    where = [one_log(tmp_path, "vmaf_v0.6.1"), "--set", "src=s", "--set", "encoder=x264", "-o", tmp_path / "c.csv"]
    ran = registry(*IMPORT, *where, "--vmaf-model", model)
    assert (ran.code, f"target: vmaf by {model}" in ran.out) == (0, True)
    assert words in ran.err
    assert ("no model that" in ran.err) == bool(words)


# ---- several scores ---------------------------------------------------------------------------------------------


def several(tmp_path: Path, **scores: str) -> Path:
    """A log of several models at once, each score under its own name."""
    models = [logs.frames_of(model, score=name, shift=float(i)) for i, (name, model) in enumerate(scores.items())]
    merged = [dict(item for frame in frames for item in frame.items()) for frames in zip(*models, strict=True)]
    return logs.libvmaf_json(tmp_path / "several.json", merged)


EASYVMAF = {
    "vmaf_hd": "vmaf_v0.6.1",
    "vmaf_hd_neg": "vmaf_v0.6.1neg",
    "vmaf_4k": "vmaf_4k_v0.6.1",
    "vmaf_v1_hd": "vmaf_v1.0.16_3d0h",
    "vmaf_v1_phone": "vmaf_v1.0.16_5d0h",
    "vmaf_v1_4k_3h": "vmaf_v1.0.16_3d0h_2160",
}
HIGH_RATE = {name: model.replace("_v1.0.16_", "_v1.0.16_hfr_") for name, model in EASYVMAF.items()}


@pytest.mark.parametrize("score", EASYVMAF)
@pytest.mark.parametrize("models", [EASYVMAF, HIGH_RATE], ids=["usual rate", "high rate"])
def test_one_of_several_scores(models: dict[str, str], score: str, tmp_path: Path) -> None:
    """The score that is named is taken with the features of its own model, which its name stands for."""
    path = several(tmp_path, **models)
    with pytest.raises(InputError, match=r"no score vmaf: found vmaf_hd, vmaf_hd_neg, .*choose its score with --score"):
        found(path)
    assert found(path, score=score) == (models[score], features_of(models[score]))
    frame, log = json.loads(path.read_text())["frames"][1]["metrics"], read_log(path, LogChoice(score))
    assert log.score[1] == frame[score]
    assert log.features[1].tolist() == [frame[name] for name in log.identity.columns.values()]


def test_a_score_of_ones_own_name(tmp_path: Path) -> None:
    """A name that tells nothing, beside models that it may be by, is asked about."""
    path = several(tmp_path, first="vmaf_v0.6.1", second="vmaf_v1.0.16_3d0h")
    with pytest.raises(InputError, match="lacks vmaf: found first, second: choose its score with --score NAME"):
        found(path)
    candidates = identify(read_frames(path), LogChoice("second")).candidates
    assert {"vmaf_v0.6.1", "vmaf_v1.0.16_3d0h"} <= {*candidates}
    assert found(path, score="second", model="vmaf_v1.0.16_3d0h")[0] == "vmaf_v1.0.16_3d0h"
    with pytest.raises(InputError, match="no score 'third': found first, second"):
        found(path, score="third")


@pytest.mark.parametrize("score", ["hd", "4k", "neg", "v1_hd", "HD_score", "mine"])
def test_a_free_name_of_a_score_tells_no_model(score: str, registry: Program, tmp_path: Path) -> None:
    """What a score without the word vmaf in its name is by, is asked for, with what it could be."""
    path = logs.libvmaf_json(tmp_path / "a.json", logs.frames_of("vmaf_v0.6.1", score=score))
    where = ["fr-ensemble", "corpus", "import", path, "--set", "src=a", "--set", "encoder=x264", "--score", score]
    ran = registry(*where, "-o", tmp_path / "c.csv")
    assert (ran.code, ran.out, (tmp_path / "c.csv").exists()) == (2, "", False)
    assert f"its {score} may be by vmaf_v0.6.1 or vmaf_4k_v0.6.1 or vmaf_b_v0.6.3" in ran.err
    assert ran.err.endswith("--vmaf-model NAME\n")
    ran = registry(*where, "--vmaf-model", "vmaf_4k_v0.6.1", "-o", tmp_path / "c.csv")
    assert (ran.code, "target: vmaf by vmaf_4k_v0.6.1" in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("VMAF_v0.6.1", "vmaf_v0.6.1"),
        ("Vmaf_4K_V0.6.1NEG.JSON", "vmaf_4k_v0.6.1neg"),
        ("vmaf_v1.0.16_HFR_3d0h", "vmaf_v1.0.16_hfr_3d0h"),
        ("VMAF_FLOAT_v0.6.1+Phone", "vmaf_v0.6.1+phone"),
        ("Mine_V2", "Mine_V2"),  # of a model that is not known, it may matter
    ],
)
def test_a_built_in_model_is_known_in_any_letter_case(name: str, definition: str, tmp_path: Path) -> None:
    """Names of built-in models are one whatever their letters' case, of rows and of an option."""
    assert canonical(name) == canonical(definition) == definition
    rows = [f"{0.1 * k},{model}" for k, model in enumerate((name, definition))]
    (tmp_path / "c.csv").write_text("\n".join(["vmaf,vmaf_model", *rows, ""]))
    assert read_definition(tmp_path / "c.csv", "vmaf") == Definition(definition)


def test_the_plain_score_beside_a_named_one(tmp_path: Path) -> None:
    """`vmaf` beside `vmaf_neg` is the model that the other name does not account for."""
    path = several(tmp_path, vmaf="vmaf_v0.6.1", vmaf_neg="vmaf_v0.6.1neg")
    assert found(path) == ("", features_of("vmaf_v0.6.1"))
    assert found(path, model="vmaf_4k_v0.6.1")[0] == "vmaf_4k_v0.6.1"


def test_features_of_a_list_do_not_make_a_model(tmp_path: Path) -> None:
    """VMAF v1's score beside the six features that somebody asked for is VMAF v1's."""
    model = "vmaf_v1.0.16_3d0h"
    pairs = zip(logs.frames_of("vmaf_v0.6.1"), logs.frames_of(model), strict=True)
    path = logs.libvmaf_json(tmp_path / "a.json", [asked | frame for asked, frame in pairs])
    assert found(path) == (model, features_of(model))


def test_a_bootstrapped_model_has_one_score(tmp_path: Path) -> None:
    """What such a model says of its spread is not another score."""
    spread = {f"vmaf_b_{end}": 1.0 for end in ("bagging", "stddev", "ci_p95_lo", "ci_p95_hi", "0001")}
    frames = [frame | spread for frame in logs.frames_of("vmaf_b_v0.6.3", score="vmaf_b_v0.6.3")]
    assert found(logs.libvmaf_json(tmp_path / "a.json", frames))[0] == "vmaf_b_v0.6.3"


# ---- one definition a corpus ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_models_are_refused_in_one_corpus(one: str, other: str, registry: Program, tmp_path: Path) -> None:
    """Every pair, in either order, where logs name their models or their features show them; nothing is written."""
    for place, family in enumerate((one, other)):
        model = FAMILIES[family]
        about = {} if model in V1 else {"params": {"model": f"{model}.json"}}
        logs.libvmaf_json(tmp_path / f"{'ab'[place]}_x264.json", logs.frames_of(model), **about)
    where = [tmp_path / "a_x264.json", tmp_path / "b_x264.json", "--pattern", "{src}_{encoder}.json"]
    ran = registry(*IMPORT, *where, "-o", tmp_path / "c.parquet")
    assert (ran.code, ran.out) == (2, "")
    assert f"its vmaf is by {FAMILIES[other]}, that of {tmp_path / 'a_x264.json'} by {FAMILIES[one]}" in ran.err
    assert "expected one model in a corpus" in ran.err
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_log_of_another_model_than_asked_is_left_out(one: str, other: str, registry: Program, tmp_path: Path) -> None:
    """--vmaf-model takes the logs of one model; one of another model is named, and the exit code is 1."""
    for place, family in enumerate((one, other)):
        model = FAMILIES[family]
        about = {} if model in V1 else {"params": {"model": f"{model}.json"}}
        logs.libvmaf_json(tmp_path / f"{'ab'[place]}_x264.json", logs.frames_of(model), **about)
    output = tmp_path / "c.parquet"
    where = [tmp_path, "--pattern", "{src}_{encoder}.json", "--vmaf-model", FAMILIES[one], "-o", output]
    ran = registry(*IMPORT, *where)
    assert ran.code == 1
    assert (
        f"b_x264.json: its vmaf is by {FAMILIES[other]}, --vmaf-model says {FAMILIES[one]}: import it apart" in ran.err
    )
    assert read_definition(output, "vmaf") == Definition(FAMILIES[one], "3.2.0")


@pytest.mark.parametrize("model", [*DEFAULTS, *NEG])
def test_a_model_that_no_log_names_is_asked_for(model: str, registry: Program, tmp_path: Path) -> None:
    """Nothing is written before somebody says it; what it may be is listed, and each of these is taken."""
    output = tmp_path / "c.parquet"
    where = [one_log(tmp_path, model), "--set", "src=s", "--set", "encoder=x264", "-o", output]
    ran = registry(*IMPORT, *where)
    assert (ran.code, ran.out, output.exists()) == (2, "", False)
    listed = " or ".join(NEG if model in NEG else DEFAULTS)
    assert f"its vmaf may be by {listed}, and the log does not say which" in ran.err
    assert registry(*IMPORT, *where, "--vmaf-model", model).code == 0
    assert read_definition(output, "vmaf") == Definition(model, "3.2.0")


def test_logs_that_name_a_model_beside_one_that_does_not(registry: Program, tmp_path: Path) -> None:
    """What one log says is not what another one means, until somebody says so."""
    logs.libvmaf_json(tmp_path / "a.json", logs.frames_of("vmaf_v0.6.1"), params={"model": "vmaf_v0.6.1.pkl"})
    logs.libvmaf_csv(tmp_path / "b.csv", logs.frames_of("vmaf_v0.6.1", 2))
    where = [tmp_path / "a.json", tmp_path / "b.csv", "--set", "src=s", "--set", "encoder=x264"]
    ran = registry(*IMPORT, *where, "-o", tmp_path / "c.parquet")
    assert (ran.code, "b.csv: its vmaf may be by vmaf_v0.6.1 or" in ran.err) == (2, True)
    ran = registry(*IMPORT, *where, "-o", tmp_path / "c.parquet", "--vmaf-model", "vmaf_v0.6.1")
    assert (ran.code, "target: vmaf by vmaf_v0.6.1" in ran.out) == (0, True)


def test_equal_features_with_another_score_are_found(registry: Program, tmp_path: Path) -> None:
    """Logs that give frames of the same features two scores are by two models, whatever somebody says."""
    logs.libvmaf_json(tmp_path / "a.json", logs.frames_of("vmaf_v0.6.1"))
    logs.libvmaf_json(tmp_path / "b.json", logs.frames_of("vmaf_v0.6.1", 2, shift=8.0))
    where = [tmp_path, "--set", "src=s", "--set", "encoder=x264", "-o", tmp_path / "c.parquet"]
    ran = registry(*IMPORT, *where, "--vmaf-model", "vmaf_v0.6.1")
    assert ran.code == 2
    assert "b.json: found vmaf 68 for a frame with the features of one that has 60 in" in ran.err


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_definition_is_kept_in_every_format(suffix: str, registry: Program, tmp_path: Path) -> None:
    """Metadata of a parquet, a column elsewhere."""
    output = tmp_path / f"c.{suffix}"
    where = ["--set", "src=s", "--set", "encoder=x264", "-o", output]
    assert registry(*IMPORT, one_log(tmp_path, "vmaf_v1.0.16_5d0h"), *where).code == 0
    kept = read_definition(output, "vmaf")
    assert kept == Definition("vmaf_v1.0.16_5d0h", "3.2.0" if suffix == "parquet" else "")
    assert read_definition(output, "mos") is None


def test_two_models_in_one_table_are_refused(tmp_path: Path) -> None:
    """A table of two models, as of a ladder with 4K rungs, is no corpus; the row where the second begins is named."""
    table = tmp_path / "t.csv"
    table.write_text("src,vmaf_model\na,vmaf_v0.6.1\nb,vmaf_v0.6.1.json\nc,vmaf_4k_v0.6.1\n")
    with pytest.raises(InputError, match=r"t\.csv:4, column vmaf_model: found 'vmaf_4k_v0\.6\.1', rows before it"):
        read_definition(table, "vmaf")


def test_the_ranges_of_models() -> None:
    """A 4K model seen from three heights goes to 110, every other one to 100."""
    assert {name for name in VMAF_MODELS if high_of(name) == 110.0} == {
        "vmaf_v1.0.16_3d0h_2160",
        "vmaf_v1.0.16_hfr_3d0h_2160",
    }
    assert (high_of("mine"), model_of("mine"), high_of("vmaf_v0.6.1+phone")) == (100.0, None, 100.0)


# ---- logs of the real thing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of each model, by the ffmpeg of the extra `corpus`, and one of four models at once."""
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("real")
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=576x324:r=8:d=0.5"]
    subprocess.run([*ffmpeg, *pattern, "-c:v", "libx264", "-qp", "40", "d.mkv"], cwd=folder, check=True)
    names = [name for name in VMAF_MODELS if name != "vmaf_b_v0.6.3"]
    models = {name: f"version={name}" for name in names}
    four = "|".join(f"version={name}\\\\:name={score}" for score, name in list(EASYVMAF.items())[:2])
    models["several"] = f"{four}|version=vmaf_v1.0.16_3d0h\\\\:name=vmaf_v1_hd"
    for name, model in models.items():
        graph = f"[0:v][1:v]libvmaf=model={model}:log_fmt=json:log_path={name}.json"
        command = [*ffmpeg, "-i", "d.mkv", *pattern, "-lavfi", graph, "-f", "null", "-"]
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in VMAF_MODELS if name != "vmaf_b_v0.6.3"])
def test_a_real_log_of_each_model(model: str, real: Path) -> None:
    """The names that libvmaf itself writes are the table's: each model's log is its own or asks."""
    log = read_log(real / f"{model}.json", LogChoice(model=model))
    assert log.identity.definition == model
    assert len(log.score) == 4
    assert 0.0 <= log.score.min() <= log.score.max() <= high_of(model)
    if model in V1:
        assert found(real / f"{model}.json")[0] == model


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vmaf_v0.6.1", "vmaf_v1.0.16_3d0h"])
def test_a_real_reference_that_ends_first(model: str, real: Path, tmp_path: Path) -> None:
    """ffmpeg repeats its last picture to the end of the encode: those frames are counted; none are of a whole one."""
    import imageio_ffmpeg

    source, encode = ["-f", "lavfi", "-i", "testsrc2=s=320x192:r=12:d=1"], tmp_path / "d.mkv"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    subprocess.run(
        [*ffmpeg, *source[:3], "testsrc2=s=320x192:r=12:d=2", "-c:v", "libx264", "-qp", "36", encode], check=True
    )
    graph = f"[0:v][1:v]libvmaf=model=version={model}:log_fmt=json:log_path=a.json"
    subprocess.run([*ffmpeg, "-i", encode, *source, "-lavfi", graph, "-f", "null", "-"], cwd=tmp_path, check=True)
    assert 12 <= read_log(tmp_path / "a.json", LogChoice(model=model)).ended_frames <= 16  # mkv rounds times
    assert read_log(real / f"{model}.json", LogChoice(model=model)).ended_frames == 0


@pytest.mark.slow
def test_a_real_log_of_several_models(real: Path) -> None:
    """Each score of a log of three models is what the model's own log has."""
    for score in ("vmaf_hd", "vmaf_hd_neg", "vmaf_v1_hd"):
        model = EASYVMAF[score]
        one = read_log(real / "several.json", LogChoice(score))
        alone = read_log(real / f"{model}.json", LogChoice(model=model))
        assert one.identity.definition == model
        assert one.score.tolist() == alone.score.tolist()
        assert one.features.tolist() == alone.features.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_real_logs_of_two_models_are_refused(
    one: str, other: str, registry: Program, real: Path, tmp_path: Path
) -> None:
    """Every pair, in either order, as libvmaf writes them: by features, or since no log says its model."""
    two = [real / f"{FAMILIES[family]}.json" for family in (one, other)]
    output = tmp_path / "c.parquet"
    ran = registry(*IMPORT, *two, "--set", "src=s", "--set", "encoder=x264", "-o", output)
    assert (ran.code, ran.out, output.exists()) == (2, "", False)
    assert "expected one model in a corpus" in ran.err


@pytest.mark.slow
def test_real_logs_of_two_models_are_found_by_their_scores(registry: Program, real: Path, tmp_path: Path) -> None:
    """A 4K model's log beside the usual model's, of one encode: the same features, another score."""
    two = [real / "vmaf_v0.6.1.json", real / "vmaf_4k_v0.6.1.json"]
    options = ["--set", "src=s", "--set", "encoder=x264", "--vmaf-model", "vmaf_v0.6.1", "-o", tmp_path / "c.parquet"]
    ran = registry(*IMPORT, *two, *options)
    assert (ran.code, "for a frame with the features of one that has" in ran.err) == (2, True)
