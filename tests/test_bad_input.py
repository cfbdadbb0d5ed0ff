"""Bad input of every kind, through the program: one clear line, a documented exit code, nothing half written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, Ran, program
from registries import FEATURES, Made, write_corpus
from sandbox import Sandbox, sha256, to_json

HEADER = ("src", "encoder", *FEATURES, "vmaf")
TRAIN = ("train", "fr_ensemble", "--id", "new", "--seeds", "0,1", "--epochs", "1", "--no-baselines")


def one_line(ran: Ran, code: int, *parts: str) -> None:
    """The exit code; nothing on stdout; one line on stderr (after warnings) with these parts."""
    assert ran.code == code, ran
    assert ran.out == ""
    lines = [
        line for line in ran.err.splitlines() if not line.startswith(("warning:", "Usage:", "Try ", "\n")) and line
    ]
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0], (part, lines[0])


Row = dict[str, Any]


def rows(change: Callable[[list[Row]], Any] = lambda made: None, sources: int = 3, each: int = 4) -> list[Row]:
    made = [
        {
            "src": f"s{source}",
            "encoder": "libx264",
            **dict.fromkeys(FEATURES, 0.1 * row + 0.05),
            "vmaf": 20.0 * row + source,
        }
        for source in range(sources)
        for row in range(each)
    ]
    return change(made) or made


def csv(folder: Path, made: list[Row], columns: tuple[str, ...] = HEADER) -> Path:
    lines = [",".join(columns), *(",".join(str(row[name]) for name in columns) for row in made)]
    (folder / "c.csv").write_text("\n".join(lines) + "\n")
    return folder / "c.csv"


def jsonl(folder: Path, made: list[Row]) -> Path:
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return folder / "c.jsonl"


def cell(name: str, value: Any, at: int = 5) -> Callable[[list[Row]], Any]:
    def change(made: list[Row]) -> None:
        made[at][name] = value

    return change


def raw(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def without(name: str) -> Callable[[Path], Path]:
    return lambda folder: csv(folder, rows(), tuple(column for column in HEADER if column != name))


CORPORA: list[tuple[str, Callable[[Path], Path], tuple[str, ...]]] = [
    ("no such file", lambda folder: folder / "none.csv", ("none.csv",)),
    ("a folder", lambda folder: folder, ()),
    ("an unknown form", raw("c.xlsx", b"PK"), ("c.xlsx",)),
    ("an empty file", raw("c.csv", b""), ("c.csv",)),
    ("a header alone", lambda folder: csv(folder, []), ("c.csv", "no rows")),
    ("not text", raw("c.csv", bytes(range(256)) * 8), ("c.csv",)),
    ("not parquet", raw("c.parquet", b"PAR1 no PAR1"), ("c.parquet",)),
    ("not JSON", raw("c.jsonl", b'{"src": "a"\n'), ("c.jsonl",)),
    ("no objects", raw("c.jsonl", b"[1, 2]\n"), ("c.jsonl",)),
    ("no target", without("vmaf"), ("c.csv", "vmaf")),
    ("no feature", without("vif_scale2"), ("c.csv", "vif_scale2")),
    ("no source", without("src"), ("c.csv", "src")),
    ("no encoder", without("encoder"), ("c.csv", "encoder")),
    ("one source only", lambda folder: csv(folder, rows(sources=1)), ("c.csv", "at least 2")),
    ("a source without a name", lambda folder: csv(folder, rows(cell("src", ""))), ("c.csv", "src")),
    ("NaN in a feature", lambda folder: csv(folder, rows(cell("adm2", "nan"))), ("c.csv", "adm2")),
    ("infinity in a feature", lambda folder: csv(folder, rows(cell("motion2", "inf"))), ("c.csv", "motion2")),
    ("text in a feature", lambda folder: csv(folder, rows(cell("adm2", "high"))), ("c.csv", "adm2")),
    ("nothing in a feature", lambda folder: csv(folder, rows(cell("adm2", ""))), ("c.csv", "adm2")),
    ("null in a feature", lambda folder: jsonl(folder, rows(cell("adm2", None))), ("c.jsonl", "adm2")),
    ("a boolean in a feature", lambda folder: jsonl(folder, rows(cell("adm2", True))), ("c.jsonl", "adm2")),
    ("a huge number", lambda folder: csv(folder, rows(cell("adm2", "1e999"))), ("c.csv", "adm2")),
    ("a target out of range", lambda folder: csv(folder, rows(cell("vmaf", 101))), ("c.csv", "vmaf", "0..100")),
    ("NaN in the target", lambda folder: csv(folder, rows(cell("vmaf", "nan"))), ("c.csv", "vmaf")),
]


@pytest.mark.parametrize(("what", "make", "parts"), CORPORA, ids=[case[0] for case in CORPORA])
def test_a_corpus_that_cannot_be_used(
    registry: Program, tmp_path: Path, what: str, make: Callable[[Path], Path], parts: tuple[str, ...]
) -> None:
    """Exit code 2 and one line that names file and column, before any training; no registry is made."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    path = tmp_path / "model" / "registry.json"
    one_line(registry(*TRAIN, "--corpus", make(folder), "--registry", path), 2, *parts)
    assert not path.parent.exists()


@pytest.mark.parametrize("what", [case[0] for case in CORPORA if case[0] not in ("one source only", "an unknown form")])
def test_rows_that_cannot_be_used(registry: Program, smoke: Sandbox, tmp_path: Path, what: str) -> None:
    """evaluate says the same of the same faults, and predict where it needs the column."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    make, parts = next((make, parts) for name, make, parts in CORPORA if name == what)
    corpus = make(folder)
    one_line(registry("evaluate", "tiny", "--corpus", corpus, "--registry", smoke.path), 2, *parts)
    if "target" not in what and "source" not in what:
        one_line(registry("predict", "tiny", "--corpus", corpus, "--registry", smoke.path), 2, *parts)


def test_a_row_is_named_by_its_line(registry: Program, smoke: Sandbox, tmp_path: Path) -> None:
    """The line that a person sees in an editor: header is 1, the sixth row is 7."""
    path = csv(tmp_path, rows(cell("adm2", "nan")))
    assert (
        "7"
        in registry("predict", "tiny", "--corpus", path, "--registry", smoke.path)
        .err.split("adm2")[0]
        .split("c.csv")[1]
    )


OPTIONS: list[tuple[tuple[str, ...], str]] = [
    (("--target", "mos2"), "mos2"),
    (("--target", "mos2", "--target-range", "1,5"), "mos2"),
    (("--target-range", "5"), "--target-range"),
    (("--target-range", "low,high"), "--target-range"),
    (("--target-range", "100,0"), "range"),
    (("--target-range", "0,inf"), "range"),
    (("--target-range", ""), "--target-range"),
    (("--features", ""), "column ''"),
    (("--features", "adm2,adm2"), "adm2"),
    (("--features", "vmaf"), "vmaf"),
    (("--features", "adm3"), "adm3"),
    (("--condition", "crf"), "crf"),
    (("--condition", "log3:crf"), "log3"),
    (("--vocabulary", "4"), "--vocabulary"),
    (("--seeds", "one,two"), "--seeds"),
    (("--seeds", "0"), "--seeds"),
    (("--seeds", "0,0"), "--seeds"),
    (("--seeds", "0,-1"), "--seeds"),
    (("--seeds", "0,4294967296"), "--seeds"),
    (("--seeds", ""), "--seeds"),
    (("--epochs", "0"), "--epochs"),
    (("--epochs", "many"), "--epochs"),
    (("--batch-size", "0"), "--batch-size"),
    (("--learning-rate", "0"), "--learning-rate"),
    (("--learning-rate", "nan"), "--learning-rate"),
    (("--weight-decay", "-1"), "--weight-decay"),
    (("--dropout", "1"), "--dropout"),
    (("--dropout", "nan"), "--dropout"),
    (("--input-noise", "-1"), "--input-noise"),
    (("--hidden", "0"), "--hidden"),
    (("--interval", "guess"), "--interval"),
    (("--jobs", "0"), "--jobs"),
    (("--id", "New"), "--id"),
    (("--id", "a/b"), "--id"),
    (("--id", ""), "--id"),
    (("--license", "x" * 129), "--license"),
    (("--license", ""), "--license"),
    (("--license", "MIT\u202e"), "--license"),
    (("--description", "x" * 257), "--description"),
    (("--description", "bell\a"), "--description"),
]


@pytest.mark.parametrize(
    ("options", "part"), OPTIONS, ids=[" ".join(case[0])[:40].encode("ascii", "replace").decode() for case in OPTIONS]
)
def test_an_option_that_means_nothing(
    registry: Program, made: Made, tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    """Exit code 2 and one line that names the option, before any training."""
    path = tmp_path / "model" / "registry.json"
    one_line(registry(*TRAIN, "--corpus", made.corpus, "--registry", path, *options), 2, part)
    assert not path.parent.exists()


def test_an_id_that_ships_is_refused_at_once(production: Sandbox, registry: Program) -> None:
    """A production id is rejected (1) before the corpus is even looked for."""
    before = production.tree()
    ran = registry("train", "fr_ensemble", "--id", "tiny", "--corpus", "none.csv", "--registry", production.path)
    one_line(ran, 1, "tiny", "production", "new --id")
    assert production.tree() == before


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


REGISTRIES: list[tuple[str, Callable[[Path], object], int]] = [
    ("missing", lambda path: path.unlink(), 2),
    ("missing folder", lambda path: shutil.rmtree(path.parent), 2),
    ("empty", lambda path: path.write_bytes(b""), 1),
    ("not JSON", lambda path: path.write_bytes(b"models: []"), 1),
    ("not text", lambda path: path.write_bytes(b"\xff\xfe\x00"), 1),
    ("a list", lambda path: path.write_bytes(b"[]"), 1),
    ("deep", lambda path: path.write_bytes(b"[" * 100_000), 1),
    ("NaN", lambda path: path.write_bytes(b'{"schema_version": NaN}'), 1),
    ("newer", lambda path: path.write_bytes(b'{"schema_version": 3, "policies": {}, "models": []}'), 1),
    ("a folder", make_folder, 2),
    ("a link to nothing", make_link, 1),
]


@pytest.mark.parametrize(("what", "hurt", "code"), REGISTRIES, ids=[case[0] for case in REGISTRIES])
def test_a_registry_that_cannot_be_used(
    smoke: Sandbox, registry: Program, what: str, hurt: Callable[[Path], object], code: int
) -> None:
    """validate reports a document that does not parse (1) or is not there (2); every other command exits with 2."""
    hurt(smoke.path)
    ran = registry("validate", smoke.path)
    assert ran.code == code
    assert (ran.out if code == 1 else ran.err).count("\n") == (2 if code == 1 else 1)
    for command in (
        ("list",),
        ("show", "tiny"),
        ("gate", "tiny"),
        ("flip", "tiny"),
        ("flip", "tiny", "--demote", "--reason", "x"),
        ("evaluate", "tiny", "--smoke"),
        ("predict", "tiny", "--corpus", "c.csv"),
        ("prune",),
        ("card", "tiny"),
    ):
        one_line(registry(*command, "--registry", smoke.path), 2)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/proc/self/mem", "/"])
def test_what_is_no_file_is_not_read(registry: Program, path: str) -> None:
    """A device or a folder given as the registry ends at once."""
    ran = registry("validate", path)
    assert ran.code == 2
    assert (ran.out + ran.err).count("\n") <= 2


def test_files_that_are_no_models(smoke: Sandbox, registry: Program, made: Made) -> None:
    """A fused graph that is no ONNX file though every pin fits: a finding for validate, one line for its users."""
    smoke.forge(files={"tiny.onnx": b"this is no model"})
    assert registry("validate", smoke.path).code == 1
    for command in (("evaluate", "tiny", "--smoke"), ("predict", "tiny", "--corpus", made.heldout)):
        one_line(registry(*command, "--registry", smoke.path), 2, "tiny")


def test_evidence_that_is_no_archive(smoke: Sandbox, registry: Program) -> None:
    """An oof.npz that holds something else though every pin fits: exit 2 from gate, a refusal from flip."""
    smoke.forge(files={"evidence/oof.npz": b"PK\x03\x04 no archive"})
    one_line(registry("gate", "tiny", "--registry", smoke.path), 2, "oof.npz")
    before = smoke.tree()
    one_line(registry("flip", "tiny", "--registry", smoke.path), 1, "evidence")
    assert smoke.tree() == before


@pytest.mark.parametrize("command", ["gate", "flip", "evaluate", "show", "card", "validate"])
def test_an_entry_of_an_unknown_kind(thumb: Sandbox, registry: Program, command: str) -> None:
    """A kind that nobody owns is named wherever it is needed, never skipped and never a traceback."""
    more = {"evaluate": ("t", "--smoke", "--registry"), "validate": ()}.get(command, ("t", "--registry"))
    ran = registry(command, *more, thumb.path)
    if command == "show":
        assert ran.code == 0
        return
    assert ran.code == (1 if command in ("validate", "flip") else 2)
    assert "thumb" in ran.out + ran.err
    assert (ran.out + ran.err).count("\n") <= 2


def test_a_version_1_manifest_is_validated_and_not_used(smoke: Sandbox, registry: Program, made: Made) -> None:
    """The public manifest has no fused graph and no evidence: gate, evaluate and predict say so."""
    keep = ("id", "kind", "ensemble_size", "members", "feature_order", "feature_mean", "feature_std", "codec_vocab")

    def downgrade(manifest: dict[str, Any]) -> None:
        for name in set(manifest) - {*keep, "codec_vocab_version", "confidence"}:
            del manifest[name]

    smoke.forge(downgrade)
    for command in (("gate", "tiny"), ("evaluate", "tiny", "--smoke"), ("predict", "tiny", "--corpus", made.heldout)):
        one_line(registry(*command, "--registry", smoke.path), 2, "tiny")
    assert registry("flip", "tiny", "--registry", smoke.path).code == 2
    assert smoke.entry["smoke"]


# ---- disks ------------------------------------------------------------------------------------------------------


def limited(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in a process that may write no file past `size` bytes, as on a full disk."""
    command = [sys.executable, "-B", "-m", "registry_tool", *map(str, arguments)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("size", [0, 900])
def test_a_disk_that_is_full(smoke: Sandbox, registry: Program, size: int) -> None:
    """A real limit on what may be written: exit 3, one line, and the registry is the old one and validates."""
    before = smoke.tree()
    run = limited(size, "flip", "tiny", "--registry", smoke.path)
    assert (run.returncode, run.stderr.count("\n")) == (3, 1), run
    after = smoke.tree()
    assert after["registry.json"] == before["registry.json"]
    assert {name for name in set(after) - set(before) if not name.startswith("tiny/verdicts/")} == set()
    assert registry("validate", smoke.path).code == 0
    assert program("flip", "tiny", "--registry", smoke.path).returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(smoke: Sandbox, registry: Program) -> None:
    """A folder without write permission: exit 3 and one line for all that write; reading goes on."""
    smoke.folder.chmod(0o555)
    try:
        before = smoke.tree()
        one_line(registry("flip", "tiny", "--registry", smoke.path), 3, str(smoke.folder))
        one_line(registry("prune", "--registry", smoke.path), 3)
        assert registry("validate", smoke.path).code == 0
        assert smoke.tree() == before
    finally:
        smoke.folder.chmod(0o755)


def test_a_read_only_disk(smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system refuses every new file, what writes exits with 3 and what reads goes on."""
    from registry_tool.storage import disk

    real = disk.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", os.fspath(path))
        return real(path, flags, *arguments, **options)

    before = smoke.tree()
    monkeypatch.setattr(disk, "open", refuse)
    one_line(registry("flip", "tiny", "--registry", smoke.path), 3, "read-only")
    assert registry("validate", smoke.path).code == 0
    assert registry("gate", "tiny", "--registry", smoke.path).code == 0
    assert smoke.tree() == before


def test_the_table_is_sound(made: Made, tmp_path: Path, registry: Program, smoke: Sandbox) -> None:
    """The rows that the cases above spoil are good rows: evaluate takes them as they are."""
    for path in (csv(tmp_path, rows()), jsonl(tmp_path, rows()), write_corpus(tmp_path / "w.csv", 2, 3, seed=9)):
        assert registry("evaluate", "tiny", "--corpus", path, "--registry", smoke.path).code == 0
    assert sha256(to_json(smoke.registry)) == sha256(smoke.path.read_bytes())
