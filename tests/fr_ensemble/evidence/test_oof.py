"""test_oof.py: evidence written, read back, recomputed; and every way of faking it."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fr_ensemble.evidence import oof as oof_room
from fr_ensemble.evidence.loso import to_files
from fr_ensemble.evidence.oof import read_oof
from fr_ensemble.evidence.statistics import plcc, rmse, srocc
from predictions import CORPUS, FILES, OOF, RECIPE, SEEDS, make_oof, measure, set_fold, summaries

from registry_tool import archive
from registry_tool.archive import EvidenceProblem


def edited(seed, change):
    """All summary files, one of them changed in place."""
    document = json.loads(FILES[f"evidence/loso_seed{seed}.json"])
    change(document)
    return FILES | {f"evidence/loso_seed{seed}.json": json.dumps(document).encode()}


def test_files_are_reproducible_and_read_back():
    """The same predictions give the same bytes, and the bytes the same predictions, in float32."""
    assert to_files(OOF, "corpus.parquet") == FILES
    assert sorted(FILES) == [
        "evidence/loso_seed0.json",
        "evidence/loso_seed1.json",
        "evidence/loso_seed2.json",
        "evidence/oof.npz",
    ]
    again = read_oof(FILES["evidence/oof.npz"])
    assert to_files(again, "corpus.parquet") == FILES
    assert (again.seeds, again.sources, again.clips) == (OOF.seeds, OOF.sources, OOF.clips)
    assert np.array_equal(again.predictions, OOF.predictions)
    assert np.array_equal(again.target, CORPUS.target)
    assert (again.rows_sha256, again.recipe_sha256, again.corpus_sha256) == (CORPUS.rows_sha256, RECIPE, None)
    with np.load(io.BytesIO(FILES["evidence/oof.npz"]), allow_pickle=False) as arrays:  # as other tools would
        assert arrays["sources"].tolist() == list(CORPUS.sources)
        assert arrays["predictions"].dtype == np.float32
    no_clips = replace(OOF, clip=None, clips=None)
    assert read_oof(to_files(no_clips, "c")["evidence/oof.npz"]).clips is None


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b", "\x00", "\x7f", "\x85", "\u2028"])
def test_a_name_with_a_control_character_is_refused(sign):
    """It would begin a line of its own, or move a terminal's cursor, wherever the fold is printed."""
    with pytest.raises(EvidenceProblem, match="control characters"):
        replace(OOF, sources=(f"a{sign}::error::b", *OOF.sources[1:]))


@pytest.mark.parametrize(
    ("rows", "sources", "seeds", "good"),
    [
        (1_000_000, 80, 5, True),
        (80_000, 1_000, 5, True),
        (1_001, 1_001, 2, False),
        (78_125, 78, 64, True),
        (78_125, 2, 65, False),
        (40_000, 40_000, 2, False),
        (5_000, 1_001, 5, False),
        (1_000_000, 81, 5, False),
        (1_000_001, 22, 5, False),
        (1_500_000, 53, 2, True),
        (1_500_001, 2, 2, False),
        (1_250_001, 2, 4, False),
    ],
)
def test_evidence_has_a_size_that_can_be_measured(rows, sources, seeds, good):
    """A million rows of five seeds, a thousand sources of five seeds; more is refused before it is measured."""
    if good:
        oof_room.check_size(rows, sources, seeds)
    else:
        with pytest.raises(EvidenceProblem, match="expected at most"):
            oof_room.check_size(rows, sources, seeds)


def test_too_many_clips_are_refused(monkeypatch):
    """Clips are calibrated beside the rows: a million of them would take as long again."""
    monkeypatch.setattr(oof_room, "MAX_CLIPS", len(OOF.clips) - 1)
    with pytest.raises(EvidenceProblem, match=f"clips: found {len(OOF.clips)}, expected at most"):
        replace(OOF)


def test_too_many_sources_are_refused_before_anything_is_measured():
    """A small file of 40,000 sources took minutes and gigabytes."""
    n = 40_000
    names = tuple(f"s{k}" for k in range(n))
    with pytest.raises(EvidenceProblem, match="sources: found 40000"):
        replace(
            OOF,
            sources=names,
            source=np.arange(n),
            target=np.zeros(n),
            predictions=np.zeros((3, n)),
            clips=None,
            clip=None,
        )


def test_summaries_have_the_public_fields():
    """A summary carries what the public tools write, and our digests."""
    document = summaries()[1]
    assert set(document) == {
        "seed",
        "corpus",
        "n_folds",
        "folds",
        "mean_plcc",
        "std_plcc",
        "mean_srocc",
        "mean_rmse",
        "recipe_sha256",
        "rows_sha256",
    }
    assert (document["seed"], document["corpus"], document["n_folds"]) == (1, "corpus.parquet", 4)
    fold = document["folds"][2]
    rows = CORPUS.source == 2
    assert fold == {
        "held_out": "random2",
        "n_train": 120,
        "n_val": 40,
        "plcc": plcc(OOF.predictions[1][rows], CORPUS.target[rows]),
        "srocc": srocc(OOF.predictions[1][rows], CORPUS.target[rows]),
        "rmse": rmse(OOF.predictions[1][rows], CORPUS.target[rows]),
    }
    assert document["std_plcc"] == pytest.approx(np.std([f["plcc"] for f in document["folds"]], ddof=1))


def test_metrics_are_means_over_folds_then_seeds():
    """PLCC_i is seed i's mean over folds; spread, worst seed and worst fold follow from the same table."""
    metrics, problems, details = measure(
        OOF, summaries(), seeds=SEEDS, rows_sha256=CORPUS.rows_sha256, recipe_sha256=RECIPE
    )
    table = np.array([[fold["plcc"] for fold in summaries()[seed]["folds"]] for seed in SEEDS])
    assert problems == ()
    assert metrics["mean_plcc"] == pytest.approx(table.mean())
    assert metrics["plcc_spread"] == pytest.approx(np.ptp(table.mean(axis=1)))
    assert metrics["min_seed_plcc"] == pytest.approx(table.mean(axis=1).min())
    assert metrics["worst_fold_plcc"] == pytest.approx(table.mean(axis=0).min())
    assert (metrics["n_seeds"], metrics["n_folds"], metrics["n_rows"]) == (3, 4, 160)
    assert details["folds"][3]["plcc"]["1"] == pytest.approx(table[1, 3])
    assert [fold["n"] for fold in details["folds"]] == [40] * 4
    json.dumps(details, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_fold(0, plcc=0.5), "#/folds/0/plcc: found 0.5"),
        (set_fold(0, plcc=True), "#/folds/0/plcc: found True"),
        (set_fold(0, plcc="0.99"), "#/folds/0/plcc: found '0.99'"),
        (set_fold(0, plcc=None), "#/folds/0/plcc: found None"),
        (set_fold(0, plcc=1.3), "#/folds/0/plcc: found 1.3"),
        (set_fold(1, n_val=41), "#/folds/1/n_val: found 41"),
        (set_fold(1, n_train=160), "#/folds/1/n_train: found 160"),
        (set_fold(1, n_train=120.0), "#/folds/1/n_train: found 120"),
        (set_fold(2, held_out="random0"), "#/folds/2/held_out: found 'random0'"),
        (lambda d: d["folds"].pop(), "folds: found ["),
        (lambda d: d["folds"].append(d["folds"][0]), "folds: found ["),
        (lambda d: d.update(folds=None), "folds: found None"),
        (lambda d: d.update(mean_plcc=0.999), "mean_plcc: found 0.999"),
        (lambda d: d.pop("mean_plcc"), "mean_plcc: found nothing"),
        (lambda d: d.update(std_plcc=0), "std_plcc: found 0"),
        (lambda d: d.update(n_folds=True), "n_folds: found True"),
        (lambda d: d.update(seed=2), "seed: found 2"),
        (lambda d: d.update(recipe_sha256="0" * 64), "recipe_sha256: found"),
    ],
)
def test_a_summary_that_disagrees_with_the_predictions_is_a_problem(change, words):
    """Whatever is edited in a summary, the recomputation says otherwise, and the metrics stay the recomputed ones."""
    metrics, problems, _ = measure(OOF, summaries(edited(1, change)))
    assert any(words in problem for problem in problems)
    assert all(problem.startswith("loso_seed1.json") and "\n" not in problem for problem in problems)
    assert metrics == measure(OOF, summaries())[0]


def test_rounding_in_a_summary_is_not_a_lie():
    """A difference below the named tolerance passes: another machine sums in another order."""
    change = lambda document: set_fold(0, plcc=document["folds"][0]["plcc"] + 1e-9)(document)  # noqa: E731  # one use
    assert measure(OOF, summaries(edited(1, change)))[1] == ()


def test_missing_extra_and_foreign_seeds_are_problems():
    """Every seed needs its summary and its member, and no other."""
    two = {seed: document for seed, document in summaries().items() if seed != 1}
    assert "seed 1: found no loso_seed1.json, expected one" in measure(OOF, two)[1]
    extra = summaries() | {9: summaries()[0]}
    assert any("loso_seed9.json" in problem for problem in measure(OOF, extra)[1])
    assert any("those of the members" in problem for problem in measure(OOF, summaries(), seeds=(0, 1, 2, 3))[1])
    for field in ("rows_sha256", "recipe_sha256", "corpus_sha256"):
        assert any(f"oof.npz {field}" in problem for problem in measure(OOF, summaries(), **{field: "0" * 64})[1])


def test_copied_seeds_folds_and_collapsed_members_are_problems():
    """Five copies of one seed, one copied fold, or members that differ by rounding alone are no ensemble."""
    for noise in (0.0, 1e-6):  # VMAF points
        copied = make_oof(predictions=OOF.predictions[[0, 0, 1]] + np.array([[0.0], [noise], [0.0]]))
        found = measure(copied, summaries(to_files(copied, "c")))[1]
        assert any("seeds 0 and 1: found the same predictions" in problem for problem in found)
    one_fold = OOF.predictions.copy()
    one_fold[2, CORPUS.source == 3] = one_fold[0, CORPUS.source == 3]
    partly = make_oof(predictions=one_fold)
    assert measure(partly, summaries(to_files(partly, "c")))[1] == (
        "seeds 0 and 2, fold random3: found the same predictions, expected two models: one was copied",
    )
    nearly = make_oof(predictions=OOF.predictions[0] + np.array([[0.0], [1e-5], [2e-5]]))
    assert any("median sigma" in problem for problem in measure(nearly, summaries(to_files(nearly, "c")))[1])


def test_repeated_and_single_seeds_and_single_sources_are_problems():
    """Seeds 0,0,0, one seed, or one source are never a pass."""
    repeated = make_oof(seeds=(0, 0, 1))
    assert "seed 0: found 2 times, expected once" in measure(repeated, {})[1]
    single = make_oof(seeds=(0,), predictions=OOF.predictions[:1])
    assert "seeds: found 1, expected at least 2" in measure(single, {})[1]
    lone = make_oof(sources=("a",), source=np.zeros(160, np.int64), clips=None, clip=None)
    assert "folds: found 1, expected at least 2 sources" in measure(lone, {})[1]


def test_a_fold_without_correlation_is_a_problem_and_no_metric():
    """A constant prediction has no PLCC: the fold is named, and the metric left out, so that no rule passes on it."""
    flat = OOF.predictions.copy()
    flat[1, CORPUS.source == 2] = 50.0
    oof = make_oof(predictions=flat)
    files = to_files(oof, "c")
    metrics, problems, details = measure(oof, summaries(files))
    assert "seed 1, fold random2: found the PLCC nan, expected a number from -1 to 1" in problems
    assert "mean_plcc" not in metrics
    assert "mean_rmse" in metrics
    assert details["folds"][2]["plcc"]["1"] is None
    assert json.loads(files["evidence/loso_seed1.json"])["folds"][2]["plcc"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictions": np.full((3, 160), math.nan)}, r"predictions\[0, 0\]: found nan"),
        ({"predictions": np.full((3, 160), 1e39)}, r"predictions\[0, 0\]: found inf"),
        ({"predictions": np.zeros((2, 160))}, "found the shape"),
        ({"target": np.full(160, math.inf)}, r"target\[0\]: found inf"),
        ({"source": np.zeros(160, np.int64)}, "do not use each of the 4 names"),
        ({"source": np.arange(160) % 5}, "do not use each of the 4 names"),
        ({"source": np.arange(160) % 4 - 1}, "do not use each of the 4 names"),
        ({"source": np.zeros(3, np.int64)}, "expected one a row"),
        ({"sources": ("a", "b", "c", "c")}, "different names"),
        ({"sources": ("a", "b", "c", "")}, "different names"),
        ({"clip": np.roll(CORPUS.clip, 1)[np.arange(160) // 2]}, "one source a clip"),
        ({"clip": None}, "expected both or neither"),
        ({"target": np.zeros(0), "predictions": np.zeros((3, 0))}, "found no rows"),
    ],
)
def test_predictions_that_mean_nothing_are_refused(changes, words):
    """Shapes, indexes, names and numbers are checked when predictions are made or read."""
    with pytest.raises(EvidenceProblem, match=words):
        make_oof(**changes)


def member(name):
    """The header that training writes: no time and no system of its own."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    return info


def repack(change):
    """oof.npz with its members changed: name -> bytes, or None to leave one out."""
    with zipfile.ZipFile(io.BytesIO(FILES["evidence/oof.npz"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= change(members) if callable(change) else change
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(member(name), data)
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable archive"),
        (b"PK\x03\x04 no zip", "not a readable archive"),
        (FILES["evidence/oof.npz"][:-30], "not a readable archive"),
        (repack({"extra.npy": b"x"}), "found the arrays"),
        (repack({"clip.npy": None}), "found the arrays"),
        (repack({"target.npy": b"not numpy"}), "not a readable archive"),
        (repack({"target.npy": npy(np.zeros(160, np.float32))}), "target: found <f4"),
        (repack({"target.npy": npy(np.zeros((160, 1)))}), r"target: found <f8 of shape \(160, 1\)"),
        (repack({"predictions.npy": npy(np.zeros((3, 160), np.float32, order="F"))}), "C order"),
        (repack({"sources.npy": npy(np.array(["a", None], object), allow_pickle=True)}), r"sources: found \|O"),
        (repack(lambda m: {"target.npy": m["target.npy"][:-8]}), "target: found 1272 bytes"),
        (repack({"version.npy": npy(np.array(2, "<i8"))}), "found version 2"),
        (repack({"digests.npy": npy(np.array(["a"], "<U64"))}), "three digests"),
        (repack({"sources.npy": npy(np.array(["", "", "", ""]))}), "different names"),
        (repack({"sources.npy": npy(np.array([0x110000] * 4, "<u4").view("<U1"))}), "not a readable archive"),
    ],
)
def test_foreign_bytes_in_place_of_predictions_are_refused(data, words):
    """Anything but exactly our arrays is one clear line: no pickle is loaded, no missing byte invented."""
    with pytest.raises(EvidenceProblem, match=words) as error:
        read_oof(data)
    assert "\n" not in str(error.value)


def padded(data, text):
    """A .npy member with another text in its header, as long as the old one."""
    start = data.index(b"{")
    end = data.index(b"\n", start)
    return data[:start] + text.encode().ljust(end - start)[: end - start] + data[end:]


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (160,), }  # and a message",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0xA0,), }",
        "{'shape': (160,), 'descr': '<f8', 'fortran_order': False, }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (160,), }" + " " * 20 + "\t",
        " {'descr': '<f8', 'fortran_order': False, 'shape': (160,), }",
    ],
)
def test_a_header_hides_nothing(text):
    """The header of an array is the text that numpy writes: no comment, no other spelling of the same shape."""
    with pytest.raises(EvidenceProblem, match=r"target: found another \.npy header"):
        read_oof(repack(lambda m: {"target.npy": padded(m["target.npy"], text)}))


def test_headers_of_numpy_before_1_25_are_plain():
    """The padding that numpy added for a longer first axis may be there or not."""
    for older in (0, 1):
        text = "{'descr': '<f8', 'fortran_order': False, 'shape': (160,), }"
        length = -(-(10 + len(text) + 1 + 18 * (1 - older)) // 64) * 64
        header = b"\x93NUMPY\1\0" + struct.pack("<H", length - 10) + text.encode().ljust(length - 11) + b"\n"
        data = repack(lambda m, header=header: {"target.npy": header + m["target.npy"][-160 * 8 :]})
        assert np.array_equal(read_oof(data).target, OOF.target)


def test_compression_is_not_content():
    """Another zlib gives other bytes and the same content; another order, name or number is other content."""
    data = FILES["evidence/oof.npz"]
    with zipfile.ZipFile(io.BytesIO(data)) as container:
        members = {name: container.read(name) for name in container.namelist()}

    def packed(members, level):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as container:
            for name, content in members.items():
                container.writestr(member(name), content, zipfile.ZIP_DEFLATED, level)
        return stream.getvalue()

    other = packed(members, 1)
    assert other != data
    assert archive.same_content(data, other)
    assert to_files(read_oof(other), "corpus.parquet") == FILES
    changed = members | {"target.npy": members["target.npy"][:-1] + b"\0"}
    for content in (changed, dict(reversed(members.items())), {**members, "more.npy": b""}):
        assert not archive.same_content(data, packed(content, 9))
    assert not archive.same_content(data, data[:-1])
    assert not archive.same_content(data, data + b"\0")
    with pytest.raises(EvidenceProblem, match="in this order"):
        read_oof(packed(dict(reversed(members.items())), 9))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    """The sizes in the archive's directory are checked first; one that lies there is cut off and refused."""
    bomb = repack({"target.npy": npy(np.zeros(4_000_000))})
    assert len(bomb) < 100_000
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000_000)
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(EvidenceProblem, match=r"found 320[0-9]+ bytes unpacked, expected at most 10000000"):
        read_oof(bomb)
    monkeypatch.undo()
    size = struct.pack("<I", 4_000_000 * 8 + 128)
    lying = bomb.replace(size, struct.pack("<I", 128 + 160 * 8))
    assert lying != bomb
    with pytest.raises(EvidenceProblem):
        read_oof(lying)


def test_a_changed_byte_changes_nothing_or_is_refused():
    """Of every 7th byte of oof.npz, flipped: the predictions are the same as before, or there is one clear error."""
    data = FILES["evidence/oof.npz"]
    refused = 0
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x55
        try:
            assert to_files(read_oof(bytes(changed)), "corpus.parquet") == FILES
        except EvidenceProblem:
            refused += 1
    assert refused > len(data) // 7 * 0.99


def test_nothing_hides_around_the_arrays():
    """No comment, no extra field, no gap, no byte behind an array's compressed ones."""
    data = FILES["evidence/oof.npz"]
    start = data.index(b"PK\x01\x02")
    commented = data[:-2] + struct.pack("<H", 6) + b"secret"
    moved = data[:start] + b"secret" + data[start:-6] + struct.pack("<L", start + 6) + data[-2:]
    dated = data.replace(struct.pack("<H", (1 << 5) | 1), struct.pack("<H", (2 << 5) | 1))
    for changed in (commented, moved, dated, b"secret" + data):
        assert changed != data
        with pytest.raises(EvidenceProblem, match=r"another (header|directory)"):
            read_oof(changed)
