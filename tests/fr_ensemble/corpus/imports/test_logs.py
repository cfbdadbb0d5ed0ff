"""test_logs.py: libvmaf's logs become rows of a corpus: own tiny logs of every format, and real ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Program
from csv_tables import write_csv
from fr_ensemble.corpus.imports.logs import Log
from fr_ensemble.corpus.record import RECORD_KEY
from fr_ensemble.corpus.rows import read_corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.corpus.vocabulary import SCORES
from logs import read_log
from places import shared_data

from registry_tool.errors import InputError

INTEGER = {name: f"integer_{name}" for name in SCORES if name != "vmaf"}
IMPORT = ("fr-ensemble", "corpus", "import", "--vmaf-model", "vmaf_v0.6.1")
FRAMES = [{name: round(0.5 + 0.01 * place + 0.1 * frame, 6) for place, name in enumerate(SCORES)} for frame in range(3)]


def as_json(path: Path, frames: list[dict[str, Any]] = FRAMES, names: Mapping[str, str] = INTEGER) -> Path:
    listed = [
        {"frameNum": number, "metrics": {names.get(k, k): v for k, v in frame.items()} | {"integer_aim": 0.1}}
        for number, frame in enumerate(frames)
    ]
    path.write_text(json.dumps({"version": "3.0.0", "fps": 9.5, "frames": listed, "pooled_metrics": {}}))
    return path


def as_xml(path: Path, names: Mapping[str, str] = INTEGER, before: str = "") -> Path:
    rows = (
        f'<frame frameNum="{number}" ' + " ".join(f'{names.get(k, k)}="{v:.6f}"' for k, v in frame.items()) + " />"
        for number, frame in enumerate(FRAMES)
    )
    path.write_text(f'{before}<VMAF version="3.0.0"><fyi fps="1" /><frames>{"".join(rows)}</frames></VMAF>')
    return path


def as_csv(path: Path, names: Mapping[str, str] = INTEGER) -> Path:
    head = ["Frame", *(names.get(name, name) for name in SCORES)]
    lines = [head, *([str(number), *(f"{v:.6f}" for v in frame.values())] for number, frame in enumerate(FRAMES))]
    path.write_text("".join(",".join(line) + ",\n" for line in lines))  # libvmaf ends each line with a comma
    return path


def rows_of(log: Log) -> list[tuple[float, ...]]:
    """Frame number, features and score of every frame."""
    columns = (log.numbers.tolist(), *log.features.T.tolist(), log.score.tolist())
    return list(zip(*columns, strict=True))


LONG = {name: f"VMAF_integer_feature_{name}_score" for name in SCORES if name != "vmaf"}


@pytest.mark.parametrize("names", [{}, INTEGER, LONG], ids=["adm2", "integer_adm2", "long"])
@pytest.mark.parametrize("write", [as_json, as_xml, as_csv])
def test_formats_and_names_say_the_same(write: Any, names: Mapping[str, str], tmp_path: Path) -> None:
    """JSON, XML and CSV, with the names of old and new versions, give the same frames, whatever the extension."""
    log = read_log(write(tmp_path / "log.txt", names=names))
    assert rows_of(log) == [(number, *frame.values()) for number, frame in enumerate(FRAMES)]
    assert log.version == ("" if write is as_csv else "3.0.0")
    assert (log.incomplete, log.not_finite) == (0, 0)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("current.json", (0, 0.941898, 0.888526, 0.930255, 0.932046, 0.930529, 0.0, 76.229763)),
        ("current.xml", (0, 0.941898, 0.888526, 0.930255, 0.932046, 0.930529, 0.0, 76.229763)),
        ("current.csv", (0, 0.941898, 0.888526, 0.930255, 0.932046, 0.930529, 0.0, 76.229763)),
        ("v1.3.11.json", (0, 0.96858, 0.82793, 0.98792, 0.99568, 0.99777, 0.0, 90.14414)),
    ],
)
def test_real_logs(name: str, first: tuple[float, ...]) -> None:
    """A log that libvmaf itself wrote is read as it stands, every frame of it."""
    rows = rows_of(read_log(shared_data("libvmaf-logs") / name))
    assert rows[0] == first
    assert [row[0] for row in rows] == [*range(len(rows))]
    assert len(rows) > 20


def test_real_logs_become_one_corpus(registry: Program, tmp_path: Path) -> None:
    """JSON, XML and CSV of one run are found to be twins; a log that names another model is left out, with its name."""
    folder = shared_data("libvmaf-logs")
    output = tmp_path / "c.parquet"
    ran = registry(*IMPORT, folder, "--set", "src=s", "--set", "encoder=x264", "-o", output)
    assert ran.code == 1
    assert "v1.3.11.json: its vmaf is by vmaf_rb_v0.6.3, --vmaf-model says vmaf_v0.6.1: import it apart" in ran.err
    assert ran.err.count("the same scores as") == 1  # the CSV has no more digits than the JSON, and the XML fewer
    assert pq.read_metadata(output).num_rows == sum(
        len(read_log(folder / f"current.{s}").score) for s in ("csv", "json", "xml")
    )


def test_a_log_that_lacks_features_says_which(tmp_path: Path) -> None:
    """The features that are missing are named, and those that are there."""
    thin = [{k: v for k, v in frame.items() if k not in ("vif_scale2", "motion2")} for frame in FRAMES]
    with pytest.raises(InputError, match=r"a\.json: lacks vif_scale2, motion2: found .*integer_adm2.*of vmaf_v0\.6\.1"):
        read_log(as_json(tmp_path / "a.json", thin))


def test_frames_of_a_subsampled_run_are_left_out(tmp_path: Path) -> None:
    """Frames between the scored ones, which have motion alone, are counted and left out; frame numbers stay."""
    log = read_log(as_json(tmp_path / "a.json", [FRAMES[0], {"motion2": 1.0}, FRAMES[2]]))
    assert log.numbers.tolist() == [0, 2]
    assert (log.incomplete, log.not_finite) == (1, 0)


@pytest.mark.parametrize("value", ["NaN", "nan", "-nan", "inf", "-inf", "Infinity", "1e999", "1.#QNAN", "-nan(ind)"])
@pytest.mark.parametrize("write", [as_json, as_xml, as_csv])
def test_frames_that_are_not_finite_are_left_out(write: Any, value: str, tmp_path: Path) -> None:
    """A NaN or an infinity, as C or Python spells it, costs its frame alone, in every format; it is counted."""
    path = write(tmp_path / "log.txt")
    spelled = "nan" if "#" in value or "(" in value else value  # those are no numbers to Python, and JSON's alone
    written = value if write is as_json else spelled
    number = str(FRAMES[1]["vmaf"]) if write is as_json else f"{FRAMES[1]['vmaf']:.6f}"
    path.write_text(path.read_text().replace(number, written, 1))
    log = read_log(path)
    assert log.numbers.tolist() == [0, 2]
    assert (log.incomplete, log.not_finite) == (0, 1)


@pytest.mark.parametrize("value", ['"x"', "true", "[]", "{}"])
def test_a_score_that_is_no_number_is_refused(value: str, tmp_path: Path) -> None:
    """The tool, the frame and the feature of a value that is no number at all are named."""
    log = as_json(tmp_path / "a.json")
    log.write_text(log.read_text().replace(str(FRAMES[1]["vmaf"]), value, 1))
    with pytest.raises(InputError, match=r"a\.json \(libvmaf\), frame 1, vmaf: found .*, expected a number"):
        read_log(log)


def test_a_log_without_one_whole_frame_is_refused(tmp_path: Path) -> None:
    """A log of which no frame is left is not an empty corpus."""
    with pytest.raises(InputError, match=r"a\.json: found no frame with all of"):
        read_log(as_json(tmp_path / "a.json", [FRAMES[0] | {"vmaf": float("nan")}]))


# ---- the command ------------------------------------------------------------------------------------------------


def test_import_by_pattern(registry: Program, tmp_path: Path) -> None:
    """Folders of logs become one corpus: fields of the name, one clip a log, the digests of the logs in the parquet."""
    folder = tmp_path / "logs" / "deep"
    folder.mkdir(parents=True)
    names = ("a_b_200kbps_360p_59.94fps_libx264_vmaf", "a_b_900kbps_720p_60fps_libx265_vmaf")
    as_json(folder / f"{names[0]}.json")
    as_json(folder / f"{names[1]}.json", FRAMES[:2])
    pattern = "{src}_{bitrate}kbps_{height}p_{fps}fps_{encoder}_vmaf.json"
    ran = registry(*IMPORT, tmp_path / "logs", "--pattern", pattern, "-o", tmp_path / "c.parquet")
    said = [
        f"{tmp_path / 'c.parquet'}: 5 rows of 2 logs",
        "target: vmaf by vmaf_v0.6.1",
        "sources: a_b (2 logs)",
        "encoders: libx264 (1 log), libx265 (1 log)",
    ]
    assert (ran.code, ran.out.splitlines()) == (0, said)
    table = pq.read_table(tmp_path / "c.parquet")
    expected = ["src", "encoder", "bitrate", "height", "fps", "clip", "frame_index", *SCORES]
    assert table.column_names == expected
    first, *_, last = table.to_pylist()
    assert first == {
        "src": "a_b",
        "encoder": "libx264",
        "bitrate": 200.0,
        "height": 360.0,
        "fps": 59.94,
        "clip": names[0],
        "frame_index": 0,
        **FRAMES[0],
    }
    assert (last["frame_index"], last["clip"], last["bitrate"]) == (1, names[1], 900.0)
    record = json.loads(table.schema.metadata[RECORD_KEY.encode()])
    assert record["libvmaf"] == ["3.0.0"]
    assert {clip: log["libvmaf"] for clip, log in record["logs"].items()} == dict.fromkeys(names, "3.0.0")
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_import_by_table(registry: Program, tmp_path: Path, suffix: str) -> None:
    """A table gives what names do not; every output format holds the same rows, and a run learns from them."""
    for name, write in (("a.json", as_json), ("b.xml", as_xml)):
        write(tmp_path / name)
    (tmp_path / "t.csv").write_text(
        "log,src,encoder,crf,preset\na.json,s1,x264,20,8\nb.xml,s2,x264,31.5,\nc.csv,s,e,1,f\n"
    )
    output = tmp_path / f"c.{suffix}"
    ran = registry(*IMPORT, tmp_path / "a.json", tmp_path / "b.xml", "--meta", tmp_path / "t.csv", "-o", output)
    assert ran.code == 0
    assert "t.csv: rows that name no log that was given: 1" in ran.err
    assert "b.xml: the same scores as" in ran.err
    corpus = read_corpus(output, ColumnSpec(), keep=["crf", "preset"])
    assert (corpus.n_rows, corpus.sources, corpus.clips) == (6, ("s1", "s2"), ("a", "b"))
    assert corpus.groups["crf"].names == ("20.0", "31.5")
    assert corpus.groups["preset"].names == ("8", "")
    assert corpus.target.tolist() == [frame["vmaf"] for frame in FRAMES] * 2


def test_an_import_normalises_what_it_knows(registry: Program, tmp_path: Path) -> None:
    """Presets and qualities of known encoders get the columns that a build gives, none of them with holes."""
    as_json(tmp_path / "a.json")
    as_json(tmp_path / "b.json", FRAMES[:2])
    columns = {}
    for name, second in {"both": "libsvtav1,32,8", "one": "vp9,32,8000", "none": "wonder,3,fast"}.items():
        (tmp_path / "t.csv").write_text(f"log,src,encoder,crf,preset\na.json,s1,x264,51,medium\nb.json,s2,{second}\n")
        output = tmp_path / f"{name}.parquet"
        logs = [tmp_path / "a.json", tmp_path / "b.json"]
        assert registry(*IMPORT, *logs, "--meta", tmp_path / "t.csv", "-o", output).code == 0
        table = pq.read_table(output).to_pydict()
        columns[name] = {norm: table[norm] for norm in ("preset_norm", "crf_norm") if norm in table}
    assert columns["both"] == {"preset_norm": [5 / 8] * 3 + [5 / 13] * 2, "crf_norm": [1.0] * 3 + [0.5] * 2}
    assert list(columns["one"]) == ["crf_norm"]
    assert columns["none"] == {}


def test_the_table_wins_over_the_name(registry: Program, tmp_path: Path) -> None:
    """With both, a name gives what the table does not, and a table's path tells logs of one name apart."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        as_csv(tmp_path / folder / "x_30.csv")
    (tmp_path / "t.csv").write_text("log,src\none/x_30.csv,A\ntwo/x_30.csv,B\n")
    where = [tmp_path, "--meta", tmp_path / "t.csv", "--pattern", "{encoder}_{crf}.csv", "-o", tmp_path / "c.csv"]
    assert registry(*IMPORT, *where).code == 0
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["src"], row["encoder"], row["crf"]) for row in rows} == {("A", "x", "30.0"), ("B", "x", "30.0")}
    assert len({row["clip"] for row in rows}) == 2
    assert registry(*IMPORT, *where).code == 0, "the table and the old output in the folder are no logs"


@pytest.mark.parametrize("names", ["absolute", "dotted", "from the table's folder"])
def test_a_table_names_logs_by_their_paths(names: str, registry: Program, workdir: Path) -> None:
    """The column `log` may have absolute paths, paths with `./`, and paths from the table's own folder."""
    for folder in ("logs", "tables"):
        (workdir / folder).mkdir()
    as_json(workdir / "logs" / "a.json")
    path = {"absolute": workdir / "logs" / "a.json", "dotted": "./logs/a.json"}.get(names, "../logs/a.json")
    (workdir / "tables" / "t.csv").write_text(f"log,src,encoder\n{path},s,x264\n")
    ran = registry(*IMPORT, "logs", "--meta", "tables/t.csv", "-o", "c.csv")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "c.csv: 3 rows of 1 log")


def test_numbers_of_a_table_are_names_of_presets(registry: Program, tmp_path: Path) -> None:
    """A preset that a parquet holds as a number is the encoder's preset all the same."""
    as_json(tmp_path / "a.json")
    table = {"log": ["a.json", "b.json"], "src": ["s", "t"], "encoder": ["libsvtav1"] * 2, "preset": [8.0, None]}
    pq.write_table(pa.table(table).slice(0, 1), tmp_path / "t.parquet")
    where = ["--meta", tmp_path / "t.parquet", "-o", tmp_path / "c.parquet"]
    assert registry(*IMPORT, tmp_path / "a.json", *where).code == 0
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert {(row["preset"], row["preset_norm"]) for row in rows} == {("8", 5 / 13)}


def test_a_bad_log_is_named_and_the_rest_is_written(registry: Program, tmp_path: Path) -> None:
    """Exit 1 says that logs were left out; with none left it is an error, and the old output stays."""
    as_json(tmp_path / "s_a.json")
    as_json(tmp_path / "s_b.json", [{"vmaf": 3.0}])
    output = tmp_path / "c.jsonl"
    ran = registry(*IMPORT, tmp_path, "--pattern", "{src}_{encoder}.json", "-o", output)
    assert ran.code == 1
    assert "s_b.json: lacks adm2, vif_scale0" in ran.err
    assert "1 of 2 logs could not be used" in ran.err
    before = output.read_bytes()
    assert len(before.splitlines()) == 3
    ran = registry(*IMPORT, tmp_path / "s_b.json", "--pattern", "{src}_{encoder}.json", "-o", output)
    assert (ran.code, ran.out) == (2, "")
    assert "lacks adm2" in ran.err
    assert output.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.jsonl", "s_a.json", "s_b.json"]


@pytest.mark.parametrize(
    ("arguments", "table", "code", "message"),
    [
        ([], "", 2, "source and encoder of the logs: expected {src} and {encoder} in --pattern, or --set src=NAME"),
        (["--pattern", "{src}.json"], "", 2, "encoder of the logs: found {src} in --pattern, expected {encoder} in"),
        (
            ["--pattern", "{source}_{codec}"],
            "",
            2,
            "found {source}, {codec} in --pattern, expected {src} and {encoder}",
        ),
        (["--pattern", "{src}_{encoder}_{crf}.json"], "", 2, "a.json: its name does not follow --pattern"),
        (["--pattern", "*_*.json"], "", 2, "found '*_*.json', no field in braces"),
        (["--pattern", "{src}{src}.json"], "", 2, "a field twice: src, expected different fields"),
        (["--pattern", "{vmaf}.json"], "", 2, "a field that the logs give: vmaf"),
        (["--pattern", "{1}.json"], "", 2, "a field that is no name: {1}"),
        (["--pattern", "{src}_{adm3}.json"], "", 2, "expected different fields"),
        (["--set", "src"], "", 2, "found 'src', expected NAME=VALUE"),
        (["--set", "encoder=x264"], "", 2, "source of the logs: expected {src} in --pattern, or --set src=NAME"),
        (["--set", "src=a", "--set", "encoder="], "", 2, "found 'encoder=', expected NAME=VALUE"),
        (["--set", "src=a", "--set", "src=b", "--pattern", "{x}"], "", 2, "found 'src=b', expected NAME=VALUE, each"),
        (["--set", "crf=low", "--pattern", "{src}"], "", 2, "--set crf: found crf 'low', expected a number"),
        (["--set", "vmaf=3", "--pattern", "{src}"], "", 2, "found 'vmaf=3', expected NAME=VALUE"),
        (["--source-column", "a", "--pattern", "{src}"], "", 2, "found no --meta"),
        (["--source-column", "a", "--meta", "t.csv"], "log,src\na.json,b\n", 2, "no column 'a'"),
        (["--meta", "t.csv"], "file,src\na,b\n", 2, "no column 'log'"),
        (["--meta", "t.csv"], "log,src,vmaf\na.json,b,1\n", 2, "found the column 'vmaf'"),
        (["--meta", "t.csv"], "log,src,encoder\nb.json,b,x\n", 2, "no row in t.csv"),
        (["--meta", "t.csv"], "log,video,codec\na.json,b,c\n", 2, "t.csv: no column 'src': found log, video, codec"),
        (["--meta", "t.csv"], "log,src,codec\na.json,b,c\n", 2, "rename it or name it with --encoder-column"),
        (
            ["--meta", "t.csv"],
            "log,src,encoder\na.json,b,x\na.json,c,x\n",
            2,
            r"t.csv:3, column log: found 'a.json' again",
        ),
        (["--meta", "none.csv"], "", 2, "none.csv: file not found"),
        (["--pattern", "{src}.{encoder}", "-o", "c.txt"], "", 2, "found the extension '.txt'"),
        (
            ["--pattern", "{src}.{encoder}", "-o", "no/c.csv"],
            "",
            3,
            "no/c.csv: it cannot be written: the folder",
        ),
    ],
)
def test_a_wrong_call_says_what_was_expected(
    arguments: list[str],
    table: str,
    code: int,
    message: str,
    registry: Program,
    workdir: Path,
) -> None:
    """An option or a table that cannot be used is one line and writes nothing."""
    as_json(workdir / "a.json")
    (workdir / "t.csv").write_text(table)
    ran = registry(*IMPORT, "a.json", "-o", "c.csv", *arguments)
    assert ran.code == code
    assert message in ran.err
    assert not (workdir / "c.csv").exists()


def test_a_stray_file_is_left_out_and_named(registry: Program, tmp_path: Path) -> None:
    """A file whose name does not follow the pattern, or whose content is no log, costs itself alone."""
    as_json(tmp_path / "a_x264_23.json")
    as_json(tmp_path / "notes.json")
    (tmp_path / "b_x264_23.json").write_text("{}")
    ran = registry(*IMPORT, tmp_path, "--pattern", "{src}_{encoder}_{crf}.json", "-o", tmp_path / "c.parquet")
    assert ran.code == 1
    assert "3 rows of 1 log" in ran.out
    assert "notes.json: its name does not follow --pattern" in ran.err
    assert "b_x264_23.json: not a VMAF log" in ran.err
    assert "2 of 3 logs could not be used" in ran.err


def test_no_name_of_a_log_speaks_to_the_terminal(registry: Program, tmp_path: Path) -> None:
    """A log with an escape sequence in its path is named with it spelt out, in warnings and where it is left out."""
    folder = tmp_path / "\x1b[31m"
    folder.mkdir()
    as_json(folder / "a_x264_23.json", [FRAMES[0], FRAMES[1] | {"vmaf": float("nan")}])
    (folder / "b_x264_23.json").write_text("{}")
    ran = registry(*IMPORT, folder, "--pattern", "{src}_{encoder}_{crf}.json", "-o", tmp_path / "c.parquet")
    assert (ran.code, "\x1b" in ran.err) == (1, False)
    assert "\\x1b[31m/a_x264_23.json: left out 1 frame with NaN" in ran.err
    assert "\\x1b[31m/b_x264_23.json: not a VMAF log" in ran.err


def test_a_field_that_no_name_holds_is_set(registry: Program, tmp_path: Path) -> None:
    """--set gives a field to every log; a name or a row of the table that has it wins."""
    for name in ("a_20.json", "b_30.json"):
        as_json(tmp_path / name, FRAMES[: 2 + (name == "a_20.json")])
    (tmp_path / "t.csv").write_text("log,video,codec\na_20.json,one,libx265\nb_30.json,two,\n")
    columns = ["--source-column", "video", "--encoder-column", "codec", "--meta", tmp_path / "t.csv"]
    values = ["--set", "encoder=libx264", "--set", "preset=medium", "--set", "fps=25", "--set", "crf=1"]
    where = [tmp_path, *columns, *values, "--pattern", "{name}_{crf}.json", "-o", tmp_path / "c.parquet"]
    assert registry(*IMPORT, *where).code == 0
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    found = {(r["src"], r["encoder"], r["crf"], r["preset"], r["fps"], r["name"]) for r in rows}
    assert found == {("one", "libx265", 20.0, "medium", 25.0, "a"), ("two", "libx264", 30.0, "medium", 25.0, "b")}


def test_a_column_left_out_because_of_one_log_is_named(registry: Program, tmp_path: Path) -> None:
    """Where one log has no preset of its encoder's scale, the column is left out, and that log and why are said."""
    as_json(tmp_path / "a.json")
    as_json(tmp_path / "b.json", FRAMES[:2])
    (tmp_path / "t.csv").write_text("log,src,encoder,crf,preset\na.json,s,x264,20,fast\nb.json,t,x264,99,swift\n")
    where = [tmp_path, "--meta", tmp_path / "t.csv", "-o", tmp_path / "c.parquet"]
    ran = registry(*IMPORT, *where)
    assert ran.code == 0
    assert "no column preset_norm: " in ran.err
    assert "b.json: preset 'swift' is none of libx264's" in ran.err
    assert "b.json: quality 99 is outside libx264's 0 to 51" in ran.err
    assert not {"preset_norm", "crf_norm"} & {*pq.read_schema(tmp_path / "c.parquet").names}


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("crf", "20,5", "found crf '20,5', expected a number: it has a decimal comma: write 20.5"),
        ("crf", "abc", "found crf 'abc', expected a number"),
        ("crf", "nan", "found crf 'nan', expected a number"),
        ("qp", "-1", "found qp -1, expected a number from 0"),
        ("bitrate_kbps", "-900", "found bitrate_kbps -900, expected a number above 0"),
        ("bitrate", "0", "found bitrate 0, expected a number above 0"),
        ("height", "1080p", "found height '1080p', expected a number"),
        ("src", "two\nlines", r"found src 'two\nlines', expected visible characters"),
        ("clip", "a\tb", r"found clip 'a\tb', expected visible characters"),
        ("session", "\x1b[2J", r"found session '\x1b[2J', expected visible characters"),
    ],
)
def test_a_field_that_no_encode_has_costs_its_log(
    column: str, cell: str, message: str, registry: Program, tmp_path: Path
) -> None:
    """What a table says of one log is named, found and expected, and its log left out; as a constant it ends it all."""
    as_json(tmp_path / "a.json")
    as_json(tmp_path / "b.json", FRAMES[:2])
    names = ["log", *dict.fromkeys(["src", "encoder", column])]
    rows = [{"log": "a.json", "src": "s", "encoder": "x264"} | ({} if column == "src" else {column: "20"})]
    rows.append(rows[0] | {"log": "b.json", column: cell})
    write_csv(tmp_path / "t.csv", rows, names)
    where = [tmp_path / "a.json", tmp_path / "b.json", "-o", tmp_path / "c.parquet"]
    ran = registry(*IMPORT, *where, "--meta", tmp_path / "t.csv")
    assert (ran.code, "3 rows of 1 log\n" in ran.out) == (1, True)
    assert f"left out: {tmp_path / 'b.json'}: {message}" in ran.err
    assert pq.read_table(tmp_path / "c.parquet").num_rows == 3
    fixed = ["--set", "encoder=x264", *([] if column == "src" else ["--set", "src=s"]), "--set", f"{column}={cell}"]
    ran = registry(*IMPORT, *where, *fixed)
    assert (ran.code, ran.out) == (2, "")
    assert f"--set {column}: {message}" in ran.err


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (["crf=77"], "no column crf_norm: {log}: quality 77 is outside libx264's 0 to 51"),
        (["preset=20"], "no column preset_norm: {log}: preset '20' is none of libx264's"),
        (["crf=30", "encoder=wonder"], "no column crf_norm: {log}: the quality scale of encoder 'wonder' is not known"),
        ([], ""),
    ],
)
def test_a_column_that_no_log_can_have_is_said(
    fixed: list[str], message: str, registry: Program, tmp_path: Path
) -> None:
    """Where no log's number is on its encoder's scale, that is said as well; without any, nothing is."""
    log = as_json(tmp_path / "a.json")
    fixed = [*fixed, "src=s", *([] if "encoder=wonder" in fixed else ["encoder=libx264"])]
    ran = registry(*IMPORT, log, *[word for text in fixed for word in ("--set", text)], "-o", tmp_path / "c.csv")
    assert ran.code == 0
    assert message.format(log=log) in ran.err
    assert ("no column" in ran.err) is bool(message)


@pytest.mark.parametrize("score", [-5.0, 150.0, 100.001])
def test_a_score_that_its_model_does_not_give_is_refused(score: float, registry: Program, tmp_path: Path) -> None:
    """A log with a score outside its model's range is left out, with frame and range; of a foreign model any may be."""
    as_json(tmp_path / "a.json")
    bad = as_json(tmp_path / "b.json", [FRAMES[0], FRAMES[1] | {"adm2": 0.9, "vmaf": score}])
    where = [tmp_path, "--set", "src=s", "--set", "encoder=x264", "-o", tmp_path / "c.csv"]
    ran = registry(*IMPORT, *where)
    assert (ran.code, "3 rows of 1 log\n" in ran.out) == (1, True)
    assert f"{bad} (libvmaf), frame 1, vmaf: found {score:g}, expected 0..100 by vmaf_v0.6.1: score it" in ran.err
    ran = registry("fr-ensemble", "corpus", "import", "--vmaf-model", "mine", *where)
    assert (ran.code, "5 rows of 2 logs" in ran.out) == (0, True)


MEANS = [((0.0, 0.0, 0.0), True), ((4.0, 20.0, 9.0), True), ((9.0, 80.0, 9.0), False)]


@pytest.mark.parametrize(
    ("motion", "scores", "count"),
    [
        ([0.0, 2.0, 1.0, 0.0, 0.0, 0.0], [90.0, 91.0, 92.0, 40.0, 30.0, 20.0], 3),
        ([0.0, 2.0, 1.0, 0.0, 0.0, 0.0], [90.0, 91.0, 92.0, 99.0, 99.0, 99.0], 0),  # a scene that stands still
        ([0.0, 2.0, 1.0, 2.0, 0.0, 0.0], [90.0, 91.0, 92.0, 93.0, 20.0, 20.0], 0),
        ([0.0, 2.0, 0.0, 0.0, 0.0, 3.0], [90.0, 91.0, 20.0, 20.0, 20.0, 90.0], 0),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [90.0, 91.0, 92.0, 20.0, 20.0, 20.0], 0),  # nothing moves at all
    ],
)
def test_a_reference_that_ends_first_is_said(
    motion: list[float], scores: list[float], count: int, registry: Program, tmp_path: Path
) -> None:
    """From there the encode is scored against one still picture: how many frames are is said, and they are kept."""
    pairs = enumerate(zip(motion, scores, strict=True))
    frames = [FRAMES[0] | {"adm2": 0.5 + place / 10, "motion2": m, "vmaf": v} for place, (m, v) in pairs]
    as_json(tmp_path / "a_libx264.json", frames)
    ran = registry(*IMPORT, tmp_path, "--pattern", "{src}_{encoder}.json", "-o", tmp_path / "c.csv")
    assert (ran.code, ran.out.splitlines()[0].split(": ")[1]) == (0, "6 rows of 1 log")
    assert ("its last 3 frames meet a still picture" in ran.err) == (count == 3)
    assert ("meet a still picture" in ran.err) == bool(count)


@pytest.mark.parametrize(("scores", "named"), MEANS)
def test_frames_that_do_not_belong_together_are_named(
    scores: tuple[float, ...], named: bool, registry: Program, tmp_path: Path
) -> None:
    """A log near 0 throughout, or near 10 on average, is imported, and the pairing of its frames asked about."""
    path = as_json(tmp_path / "a.json", [frame | {"vmaf": score} for frame, score in zip(FRAMES, scores, strict=True)])
    ran = registry(*IMPORT, path, "--set", "src=s", "--set", "encoder=x264", "-o", tmp_path / "c.csv")
    assert ran.code == 0
    assert ("a mean vmaf of" in ran.err) is named


def test_an_empty_folder_is_named(registry: Program, tmp_path: Path) -> None:
    """A folder without logs is an error, not an empty corpus; so is a log that is not there."""
    (tmp_path / "logs").mkdir()
    ran = registry(*IMPORT, tmp_path / "logs", "--pattern", "{src}_{encoder}", "-o", tmp_path / "c.csv")
    assert (ran.code, "found no .json, .xml, .csv file" in ran.err) == (2, True)
    ran = registry(*IMPORT, tmp_path / "a_b", "--pattern", "{src}_{encoder}", "-o", tmp_path / "c.csv")
    assert (ran.code, ran.err) == (2, f"registry: {tmp_path / 'a_b'}: file not found: check the path\n")
    as_json(tmp_path / "a_b.json")
    where = [tmp_path / "a.json", tmp_path / "a_b.json", "--pattern", "{src}_{encoder}", "-o", tmp_path / "c.csv"]
    ran = registry(*IMPORT, *where)
    assert (ran.code, "a.json: file not found: check the path" in ran.err) == (1, True)
    assert "encoders: b (1 log)" in ran.out
