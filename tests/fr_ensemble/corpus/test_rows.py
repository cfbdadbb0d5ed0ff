"""test_rows.py: vocabularies, corpora in three formats, what they refuse and how they say it."""

from __future__ import annotations

import hashlib
import json
import math
import sys

import numpy as np
import pytest
from csv_tables import write_csv
from fr_ensemble.corpus.rows import random_corpus, read_batches, read_corpus
from fr_ensemble.corpus.spec import ColumnSpec, Condition
from fr_ensemble.corpus.vocabulary import CANONICAL_6, VOCABULARIES, encode, spellings, stand_in, vocabulary
from places import shared_data

from registry_tool.errors import InputError, WorldError


def make_rows(n=12):
    rng = np.random.default_rng(0)
    return [
        {
            "src": f"s{i % 3}",
            "encoder": ("libx264", "hevc", "rav1e")[i // 2 % 3],
            "cq": 20 + i % 2,
            **{name: round(float(value), 6) for name, value in zip(CANONICAL_6, rng.random(6), strict=True)},
            "vmaf": round(float(rng.uniform(0, 100)), 4),
            "kbps": 100.5 + i,
        }
        for i in range(n)
    ]


def write(path, rows, columns=None):
    """Rows as the file format that the extension names."""
    columns = columns or list(rows[0])
    if path.suffix == ".csv":
        write_csv(path, rows, columns)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


HEADER = ",".join(("src,encoder,vmaf", *CANONICAL_6)).encode()
FORMATS = ["rows.parquet", "rows.jsonl", "rows.csv"]


@pytest.mark.parametrize(
    ("name", "two", "one"),
    [
        *((name, 0, 0) for name in ("libx264", "x264", "H264", "h.264", "AVC")),
        *((name, 1, 1) for name in ("libx265", "X265", "h265", "hevc")),
        *((name, 2, 2) for name in ("libsvtav1", "SVT-AV1", "svt_av1", "av1")),
        *((name, 3, 3) for name in ("libvvenc", "vvenc", "vvc")),
        *((name, 4, 4) for name in ("libvpx-vp9", "libvpx_vp9", "vp9")),
        *(("h264_nvenc", 5, 5), ("hevc_nvenc", 6, 5), ("nvenc_hevc", 6, 5), ("av1-nvenc", 7, 5)),
        *(("h264_qsv", 8, 5), ("h265_qsv", 9, 5), ("av1_qsv", 10, 5)),
        *((name, 11, 5) for name in ("unknown", "rav1e", "libaom-av1", "h264_amf", "VideoToolbox-HEVC", "av1_vaapi")),
    ],
)
def test_encoders_as_people_write_them(name, two, one):
    """Every alias finds its slot in both vocabularies; what has none is unknown."""
    assert (encode([name], 2)[0].tolist(), encode([name], 1)[0].tolist()) == ([two], [one])


def test_every_slot_finds_itself_and_unknown_names_are_counted():
    """A vocabulary's own names are its slots in order; other names are counted, `unknown` itself is not."""
    for version, slots in VOCABULARIES.items():
        found, unknown = encode(slots, version)
        assert found.tolist() == list(range(len(slots)))
        assert not unknown
    assert [len(vocabulary(version)) for version in (1, 2, 3)] == [6, 12, 16]
    assert encode(["foo", "x264", "foo", ""])[1] == {"foo": 2, "": 1}
    assert encode(["h264_nvenc"], 1)[1] == {"h264_nvenc": 1}
    with pytest.raises(InputError, match="version 4"):
        vocabulary(4)


@pytest.mark.parametrize("version", VOCABULARIES)
def test_spellings_are_data_for_other_languages(version):
    """A reader that knows a manifest's table alone finds the slot that this program finds, for any name."""
    table, otherwise = spellings(version), stand_in(version)
    assert list(table) == list(vocabulary(version))
    slots = {spelling: slot for slot, names in table.items() for spelling in names}
    for name in ("H.264", "AVC", "x264", "HEVC", "SVT-AV1", "nvenc_hevc", "av1", "rav1e", "VP9", "unknown", "foo", ""):
        short = name.lower().translate(dict.fromkeys(map(ord, "-_. ")))
        index = encode([name], version)[0][0]
        assert vocabulary(version)[index] == slots.get(short, otherwise)


def test_spellings_of_a_version_never_change():
    """Manifests carry them: another spelling is another version of the vocabulary."""
    digests = {
        version: hashlib.sha256(json.dumps(spellings(version)).encode()).hexdigest()[:16] for version in VOCABULARIES
    }
    assert digests == {1: "46897c7a3c379426", 2: "9d6c44ee2efca365", 3: "eda1861e6ea6b926"}


def test_the_vocabulary_of_the_public_trainer():
    """Version 3 has its sixteen slots in its order; a name without a slot takes the first, and is counted."""
    names = "libx264 libaom-av1 libx265 h264_nvenc hevc_nvenc av1_nvenc h264_amf hevc_amf av1_amf h264_qsv hevc_qsv"
    assert vocabulary(3) == (
        *names.split(),
        "av1_qsv",
        "libvvenc",
        "libsvtav1",
        "h264_videotoolbox",
        "hevc_videotoolbox",
    )
    others = ("vp9", "libvpx-vp9", "rav1e", "unknown", "av1_vaapi", "foo")
    slots, missing = encode(others, 3)
    assert slots.tolist() == [0] * len(others)
    assert missing == dict.fromkeys(others, 1)
    assert [stand_in(version) for version in (1, 2, 3)] == ["unknown", "unknown", "libx264"]


@pytest.mark.parametrize("name", FORMATS)
def test_three_formats_say_the_same(tmp_path, name):
    """Parquet, JSONL and CSV with the same rows give the same arrays and the same digest of rows."""
    rows = make_rows()
    spec = ColumnSpec(conditioning=(Condition.parse("log2:kbps"), Condition.parse("cq")))
    corpus = read_corpus(write(tmp_path / name, rows), spec, keep=["cq"])
    assert corpus.n_rows == 12
    assert corpus.features.tolist() == [[row[column] for column in CANONICAL_6] for row in rows]
    assert corpus.target.tolist() == [row["vmaf"] for row in rows]
    assert corpus.conditioning[:, 1].tolist() == [row["cq"] for row in rows]
    assert corpus.conditioning[:, 0] == pytest.approx([math.log2(row["kbps"]) for row in rows])
    assert corpus.sources == ("s0", "s1", "s2")
    assert [corpus.sources[i] for i in corpus.source] == [row["src"] for row in rows]
    assert corpus.codec.tolist() == [0, 0, 1, 1, 11, 11] * 2
    assert corpus.unknown_encoders == {"rav1e": 4}
    assert [corpus.groups["cq"].names[code] for code in corpus.groups["cq"].codes] == [str(row["cq"]) for row in rows]
    assert [corpus.groups["encoder"].names[code] for code in corpus.groups["encoder"].codes] == [
        r["encoder"] for r in rows
    ]
    assert corpus.rows_sha256 == read_corpus(write(tmp_path / "other.jsonl", rows), spec).rows_sha256
    data = corpus.training_data()
    assert (data.n_sources, data.n_slots, data.numeric.shape) == (3, 12, (12, 8))


def test_digest_of_rows_depends_on_rows_alone(tmp_path):
    """The digest is the same for any batch size, another for another order, value, source or encoder."""
    rows = make_rows()
    path = write(tmp_path / "a.csv", rows)
    digest = read_corpus(path, ColumnSpec()).rows_sha256
    seen = {digest}
    swapped = [rows[1], rows[0], *rows[2:]]
    changes = [swapped, rows[:-1]]
    changes += [
        [rows[0] | {key: value}, *rows[1:]] for key, value in (("vmaf", 1.5), ("src", "s2"), ("encoder", "x264"))
    ]
    for changed in changes:
        seen.add(read_corpus(write(tmp_path / "b.csv", changed), ColumnSpec()).rows_sha256)
    assert len(seen) == 6
    from fr_ensemble.corpus.digest import RowsDigest

    for batch_rows in (1, 5, 100):
        again = RowsDigest()
        for batch in read_batches(path, ColumnSpec(), batch_rows):
            again.update(batch.raw)
        assert again.hexdigest() == digest


def test_clips_come_from_a_column_or_from_source_encoder_and_quality(tmp_path):
    """A clip column wins; else source, encoder and quality make clips; else they are not known."""
    rows = make_rows()
    corpus = read_corpus(write(tmp_path / "a.jsonl", rows), ColumnSpec())
    assert len(corpus.clips) == len({(row["src"], row["encoder"], row["cq"]) for row in rows})
    assert "s0|libx264|20" in corpus.clips
    bare = [{key: value for key, value in row.items() if key != "cq"} for row in rows]
    assert read_corpus(write(tmp_path / "b.jsonl", bare), ColumnSpec()).clips is None
    named = [row | {"clip": f"take{i % 2}"} for i, row in enumerate(rows)]
    corpus = read_corpus(write(tmp_path / "c.jsonl", named), ColumnSpec())
    assert corpus.clips == ("s0/take0", "s0/take1", "s1/take0", "s1/take1", "s2/take0", "s2/take1")
    assert [corpus.clips[i].split("/")[0] for i in corpus.clip] == [row["src"] for row in rows]


def test_codec_is_another_name_for_encoder(tmp_path):
    """A column `codec` serves where there is no `encoder`, with the same digest."""
    rows = make_rows()
    renamed = [{"codec" if key == "encoder" else key: value for key, value in row.items()} for row in rows]
    one, other = (read_corpus(write(tmp_path / n, r), ColumnSpec()) for n, r in (("a.csv", rows), ("b.csv", renamed)))
    assert one.codec.tolist() == other.codec.tolist()
    assert one.rows_sha256 == other.rows_sha256


@pytest.mark.parametrize("name", FORMATS)
def test_rows_to_predict_need_no_target_nor_source(tmp_path, name):
    """Rows without target and source stream in batches; further columns come along as they are."""
    rows = [
        {k: v for k, v in row.items() if k not in ("vmaf", "src")} | {"note": f"n{i}"}
        for i, row in enumerate(make_rows())
    ]
    batches = list(read_batches(write(tmp_path / name, rows), ColumnSpec(target=None), 5, keep=["note"]))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [batch.first for batch in batches] == [0, 5, 10]
    assert all(batch.target is None and batch.source is None for batch in batches)
    assert [note for batch in batches for note in batch.values["note"]] == [row["note"] for row in rows]
    everything = next(read_batches(tmp_path / name, ColumnSpec(target=None), keep=None))
    assert set(everything.values) == set(rows[0])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("adm2", None, ["adm2", "nothing", "a number", "correct or drop the row"]),
        ("adm2", math.nan, ["adm2", "nan", "finite"]),
        ("motion2", math.inf, ["motion2", "inf", "finite"]),
        ("motion2", -1e39, ["motion2", "-1e+39", "at most 1e+12 in size"]),
        ("vmaf", 100.5, ["vmaf", "100.5", "0..100", "correct or drop the row"]),
        ("vmaf", -1.0, ["vmaf", "-1", "0..100"]),
        ("kbps", 0.0, ["kbps", "found 0", "positive"]),
        ("src", None, ["src", "nothing", "a name"]),
        ("src", "a\u202eb", ["src", "'a\\u202eb'", "visible characters"]),
        ("encoder", "x\x1b[31m", ["encoder", "visible characters"]),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(tmp_path, name, column, value, words):
    """One bad value among thousands is one line: file, row or line, column, found, expected, what to do."""
    rows = make_rows()
    rows[7][column] = value
    spec = ColumnSpec(conditioning=(Condition("kbps", "log2"),))
    with pytest.raises(InputError) as error:
        read_corpus(write(tmp_path / name, rows), spec)
    place = {"rows.parquet": "rows.parquet, row 8", "rows.jsonl": "rows.jsonl:8", "rows.csv": "rows.csv:9"}[name]
    for word in (place, *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["fast", True, [1], {"a": 1}, "0.5", 10**400])
def test_what_is_no_number_in_json_is_refused(tmp_path, value):
    """Texts, booleans, lists, objects and integers beyond float64 are not numbers."""
    rows = make_rows()
    rows[3]["adm2"] = value
    with pytest.raises(InputError, match=r"rows\.jsonl:4, column adm2: found .*, expected a number"):
        read_corpus(write(tmp_path / "rows.jsonl", rows), ColumnSpec())


def test_what_is_no_number_in_csv_and_parquet_is_refused(tmp_path):
    """A word in a numeric CSV column is named by its line, a parquet column of texts by its type."""
    rows = make_rows()
    rows[3]["adm2"] = "fast"
    with pytest.raises(InputError, match=r"rows\.csv:5, column adm2: found 'fast', expected a number"):
        read_corpus(write(tmp_path / "rows.csv", rows), ColumnSpec())
    rows = [row | {"adm2": str(row["adm2"])} for row in make_rows()]
    with pytest.raises(InputError, match="column adm2: found a column of string, expected numbers"):
        read_corpus(write(tmp_path / "rows.parquet", rows), ColumnSpec())


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_column_names_its_nearest_match(tmp_path, name):
    """The columns that are there are listed, and the likeliest one is offered."""
    rows = [{"VMAF" if key == "vmaf" else key: value for key, value in row.items()} for row in make_rows()]
    with pytest.raises(InputError, match=r"no column 'vmaf': found src, encoder, .*: is it 'VMAF'\? rename it"):
        read_corpus(write(tmp_path / name, rows), ColumnSpec())


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("none.csv", None, "file not found"),
        ("rows.xlsx", b"x", "found the extension '.xlsx', expected one of .parquet, .feather, .arrow, .jsonl"),
        ("rows.parquet", b"not parquet", "not a readable parquet file"),
        ("rows.parquet", b"PAR1" + b"\0" * 40 + b"PAR1", "not a readable parquet file"),
        ("rows.jsonl", b'{"src": 1\n', "rows.jsonl:1: not JSON"),
        ("rows.jsonl", b"[1, 2]\n", "rows.jsonl:1: found list, expected one JSON object"),
        ("rows.jsonl", b"[" * 100_000, "rows.jsonl:1: not JSON"),
        ("rows.jsonl", b"\xff\xfe", "not UTF-8"),
        ("rows.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("rows.csv", HEADER + b'\n"open,1\n', "rows.csv:2: not CSV"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "found the column 'a' twice"),
        ("empty.csv", b"", "found no rows"),
        ("empty.jsonl", b"\n\n", "found no rows"),
        ("header.csv", HEADER + b"\n", "found no rows"),
        ("short.csv", HEADER + b"\ns,x264,1\n", "short.csv:2: found 3 fields"),
    ],
)
def test_a_file_that_is_no_corpus_is_one_line(tmp_path, name, data, words):
    """A missing, foreign, broken or empty file is one InputError that says what it is."""
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read_corpus(tmp_path / name, ColumnSpec())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_parquet_and_a_truncated_one_are_refused(tmp_path):
    """A parquet file without rows is an empty corpus; one cut in the middle is not parquet."""
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    path = write(tmp_path / "rows.parquet", make_rows())
    whole = path.read_bytes()
    parquet.write_table(pa.Table.from_pylist(make_rows()).slice(0, 0), path)
    with pytest.raises(InputError, match="found no rows"):
        read_corpus(path, ColumnSpec())
    path.write_bytes(whole[:100] + b"\0" * 200 + whole[300:])
    with pytest.raises(InputError, match="not a readable parquet file"):
        read_corpus(path, ColumnSpec())


def test_a_folder_and_a_file_that_may_not_be_read(tmp_path):
    """A folder is the user's slip; a file without permission is the world's."""
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(InputError, match="found a folder"):
        read_corpus(tmp_path / "rows.csv", ColumnSpec())
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)  # unreadable for root too
    with pytest.raises(WorldError, match="cannot be read"):
        read_corpus(loop, ColumnSpec())


def test_one_source_is_enough_to_evaluate_but_not_to_train(tmp_path):
    """Leave-one-source-out needs two sources; evaluation does not."""
    path = write(tmp_path / "rows.csv", [row | {"src": "only"} for row in make_rows()])
    with pytest.raises(InputError, match=r"column src: found 1 source \(only\), expected at least 2"):
        read_corpus(path, ColumnSpec())
    assert read_corpus(path, ColumnSpec(), min_sources=1).sources == ("only",)


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        ("session", {"source_column": "session"}, "column session: found nothing"),
        ("chip", {"encoder_column": "chip"}, "column chip: found 'x\\ny'"),
        ("codec", {}, "column codec: found 'x\\ny'"),
    ],
)
def test_a_bad_name_is_of_the_column_that_the_file_has(tmp_path, given, names, words):
    """Where options or vmaf-tune call the column of sources or encoders otherwise, messages do so, too."""
    rows, asked = make_rows(), "src" if "source_column" in names else "encoder"
    for row in rows:
        row[given] = row.pop(asked)
    rows[7][given] = None if asked == "src" else "x\ny"
    with pytest.raises(InputError) as error:
        read_corpus(write(tmp_path / "rows.csv", rows), ColumnSpec(**names))
    assert words in str(error.value)


def test_an_encoder_with_a_name_longer_than_documents_take_is_refused(tmp_path):
    """Before anything is computed: a manifest counts the rows of each."""
    rows = make_rows()
    rows[7]["encoder"] = "x" * 1025
    with pytest.raises(InputError, match="column encoder: found a name of 1025 characters, expected at most 1024"):
        read_corpus(write(tmp_path / "rows.csv", rows), ColumnSpec())
    rows[7]["encoder"] = "x" * 1024
    assert read_corpus(write(tmp_path / "again.csv", rows), ColumnSpec()).unknown_encoders["x" * 1024] == 1


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    """On the base install a parquet corpus asks for the extra, and CSV works."""
    rows = make_rows()
    path = write(tmp_path / "rows.parquet", rows)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install pyarrow"):
        read_corpus(path, ColumnSpec())
    assert read_corpus(write(tmp_path / "rows.csv", rows), ColumnSpec()).n_rows == 12


def test_dictionary_columns_and_integers_are_read(tmp_path):
    """Parquet's dictionary-encoded texts with unused entries, nulls in encoder, integer features and sources work."""
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "src": pa.array([1, 2, 1, 2]),
            "encoder": pa.DictionaryArray.from_arrays(pa.array([1, None, 1, 2], pa.int32()), ["unused", "hevc", "av1"]),
            **{name: pa.array([0, 1, 2, 3]) for name in CANONICAL_6},
            "vmaf": pa.array([1, 2, 3, 4], pa.float32()),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    corpus = read_corpus(tmp_path / "rows.parquet", ColumnSpec())
    assert corpus.sources == ("1", "2")
    assert corpus.codec.tolist() == [1, 11, 1, 2]
    assert corpus.unknown_encoders == {"": 1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "dmos"}, "target 'dmos': its range is not known"),
        ({"target": "dmos", "target_range": (5.0, 1.0)}, "target range: found 5..1"),
        ({"target": "vmaf", "target_range": (0.0, math.inf)}, "target range"),
        ({"target": "adm2", "target_range": (0.0, 1.0)}, "as the target and as an input"),
        ({"features": ()}, "features: found none"),
        ({"features": ("a", "b", "a")}, "column 'a': found twice"),
        ({"conditioning": (Condition("adm2"),)}, "column 'adm2': found twice"),
        ({"vocabulary_version": 7}, "version 7"),
    ],
)
def test_columns_that_cannot_go_together_are_refused(fields, words):
    """A target of unknown range, among the inputs, or a column twice is said before any file is read."""
    with pytest.raises(InputError) as error:
        ColumnSpec(**fields)
    assert words in str(error.value)


def test_conditions_as_typed():
    """`cq` and `log2:bitrate_kbps` are conditions and print as typed; another transform is refused."""
    assert [str(Condition.parse(text)) for text in ("cq", "log2:bitrate_kbps", "none:cq")] == [
        "cq",
        "log2:bitrate_kbps",
        "cq",
    ]
    assert ColumnSpec(target="mos").bounds == (1.0, 5.0)
    for text in ("ln:cq", "log2:", ""):
        with pytest.raises(InputError, match=r"expected COLUMN or log2:COLUMN"):
            Condition.parse(text)


def test_random_rows_are_reproducible_and_valid():
    """The same seed gives the same rows: several sources, all numbers inside their ranges."""
    spec = ColumnSpec(target="mos", conditioning=(Condition("kbps", "log2"),))
    one, same, other = (random_corpus(100, spec, seed) for seed in (0, 0, 1))
    assert one.rows_sha256 == same.rows_sha256 != other.rows_sha256
    assert len(one.sources) == 4
    assert one.sha256 is None
    assert ((one.target >= 1) & (one.target <= 5)).all()
    assert np.corrcoef(one.features.mean(axis=1), one.target)[0, 1] > 0.5


def test_real_frames_and_clips_are_read():
    """The public AVT-VQDB-UHD-1 tables: 29,100 frames and 564 clips of nine sources, as VMAF and as MOS."""
    folder = shared_data("avt-vqdb-uhd-1")
    frames = read_corpus(folder / "frames.parquet", ColumnSpec(), keep=["height"])
    assert (frames.n_rows, len(frames.sources), len(frames.clips)) == (29_100, 9, 564)
    assert not frames.unknown_encoders
    assert sorted(frames.groups["height"].names) == ["1080", "2160", "360", "720"]
    spec = ColumnSpec(("vmaf",), "mos", (Condition("bitrate_kbps", "log2"), Condition("height")))
    clips = read_corpus(folder / "clips.parquet", spec)
    assert (clips.n_rows, clips.features.shape[1], clips.conditioning.shape[1]) == (564, 1, 2)
    assert ((clips.target >= 1) & (clips.target <= 5)).all()
    assert clips.sources == frames.sources
