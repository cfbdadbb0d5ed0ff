"""What commands print as JSON holds to its schema, whatever the registry: every example, and odder ones made here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from certificates import key_pair
from command_line import Program, Ran
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft202012Validator
from policies import MANUAL
from sandbox import Sandbox, to_json

from registry_tool import schemas

EXAMPLES = sorted(path.parent for path in (Path(__file__).parent / "examples").glob("*/*/registry.json"))


CYCLONEDX, OUT = "cyclonedx", "out.json"


@dataclass(frozen=True, slots=True)
class Command:
    """Its words and the schema of what it prints, CYCLONEDX for a bill of materials.

    {} is the registry, NEW a folder that is not there, ID each id, KEY a public key. OUT is a file, in which the
    document is then, in the place of stdout.
    """

    words: tuple[str, ...]
    schema: str

    def for_each(self, path: Path) -> list[list[str]]:
        new, key, out = (str(path.parent.with_name(name)) for name in ("new", "signer.pub", OUT))
        places = {"{}": str(path), "NEW": new, "KEY": key, "OUT": out}
        words = [places.get(word, word) for word in self.words]
        ids = ids_of(path) if "ID" in words else [""]
        if not {"OUT", "bom"} & {*words, *self.words}:
            words += ["--format", "json"]
        return [[name if word == "ID" else word for word in words] for name in ids]


COMMANDS = (
    Command(("validate", "{}", "--level", "quick"), "findings"),
    Command(("list", "--registry", "{}"), "entries"),
    Command(("show", "ID", "--registry", "{}"), "entry"),
    Command(("paths", "ID", "--allow-smoke", "--registry", "{}"), "paths"),
    Command(("gate", "ID", "--registry", "{}"), "verdict"),
    Command(("gate", "--base-file", "{}", "--registry", "{}"), "comparison"),
    Command(("flip", "ID", "--registry", "{}"), "flip"),
    Command(("flip", "ID", "--reason", "because", "--registry", "{}"), "flip"),
    Command(("flip", "ID", "--demote", "--reason", "because", "--registry", "{}"), "flip"),
    Command(("history", "ID", "--registry", "{}"), "history"),
    Command(("migrate", "{}", "-o", "NEW", "--skip-broken"), "migration"),
    Command(("repromote", "ID", "--reason", "because", "--registry", "{}"), "flip"),
    Command(("paths", "ID", "--allow-smoke", "--registry", "{}"), "paths"),
    Command(("verify-signature", "ID", "--public-key", "KEY", "--registry", "{}"), "signatures"),
    Command(("verify-attestation", "ID", "--public-key", "KEY", "--registry", "{}"), "attestations"),
    Command(("ci", "--level", "quick", "--json", "OUT", "--registry", "{}"), "ci"),
    Command(("known-findings", "write", "--level", "quick", "-o", "OUT", "--registry", "{}"), "known_findings"),
    Command(("bom", "ID", "--registry", "{}"), CYCLONEDX),
)


def ids_of(path: Path) -> list[str]:
    """The ids that are texts, as far as the document can be read at all; else one that is not there."""
    try:
        models = json.loads(path.read_bytes())["models"]
        ids = [row["id"] for row in models if isinstance(row["id"], str) and not row["id"].startswith("-")]
    except (ValueError, KeyError, TypeError, RecursionError):
        ids = []
    return list(dict.fromkeys(ids))[:3] or ["absent"]


@cache
def validator_of(schema: str) -> Draft202012Validator:
    return Draft202012Validator(schemas.bundled(schemas.load(schema)))


def check(ran: Ran, schema: str, file: Path | None = None) -> None:
    """One document of this schema, or, where the command could do nothing, no output and one line of why.

    file: where the document is, if it is there, in the place of stdout.
    """
    if file is not None and file.is_file():
        ran = replace(ran, out=file.read_text(encoding="utf-8"))
    if not ran.out:
        assert ran.code != 0, schema
        assert len(ran.err.splitlines()) == 1, ran.err
        return
    document = json.loads(ran.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    if schema == CYCLONEDX:
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(ran.out) is None
        return
    validator_of(schema).validate(document)


def check_each(registry: Program, model: Path) -> None:
    """Every command on a copy of the folder, as it was."""
    public = key_pair(model.parent, "signer").public
    for number, command in enumerate(COMMANDS):
        copy = model.with_name(f"copy{number}") / "model"
        shutil.copytree(model, copy, symlinks=True)
        shutil.copy(public, copy.parent)
        for words in command.for_each(copy / "registry.json"):
            check(registry(*words), command.schema, copy.parent / OUT)
            (copy.parent / OUT).unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_examples_print_what_the_schema_says(
    tmp_path: Path, registry: Program, monkeypatch: pytest.MonkeyPatch, example: Path
) -> None:
    """Every command on every valid and invalid example: its document, or one line of why there is none."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(example, tmp_path / "model", symlinks=True)
    check_each(registry, tmp_path / "model")


def one(folder: Path, version: int = 1, **fields: Any) -> dict[str, Any]:
    """A registry of one model, with these fields in its row."""
    row = tiny_models.entry(folder, tiny_models.model(), "m", **fields)
    return {"schema_version": version, "models": [row]} | ({"policies": {"fr": MANUAL}} if version == 2 else {})


def nothing(folder: Path) -> dict[str, Any]:
    return {"schema_version": 1, "models": []}


def without_sidecar(folder: Path) -> dict[str, Any]:
    return one(folder)


def with_external_data(folder: Path) -> dict[str, Any]:
    tiny_models.write(folder, "m.onnx.data", b"\0" * 24)
    return one(folder)


def of_version_0(folder: Path) -> dict[str, Any]:
    return one(folder, 0)


def of_another_kind(folder: Path) -> dict[str, Any]:
    return one(folder, kind="unheard_of")


def with_unknown_fields(folder: Path) -> dict[str, Any]:
    return one(folder, 2, mood={"deep": [None, 1.5, "\u2028"]}, quant_accuracy_budget_plcc=0.01) | {"more": True}


def with_wide_characters(folder: Path) -> dict[str, Any]:
    return one(folder, 2, description="\U0001f600 \u202e \u0007", license="é")


def with_large_numbers(folder: Path) -> dict[str, Any]:
    return one(folder, 2, opset=10**19)


def with_long_texts(folder: Path) -> dict[str, Any]:
    return one(folder, 2, notes="x" * 2_000_000)


def with_an_odd_demotion(folder: Path) -> dict[str, Any]:
    return one(folder, 2, demotion={"reason": "a\tb", "manifest_sha256": "0" * 64})


def with_notes_beside(folder: Path) -> dict[str, Any]:
    tiny_models.write(folder, "m.json", {"id": "m", "notes": None})
    tiny_models.write(folder, "stray.onnx", b"")
    tiny_models.write(folder, "stray.json", {"kind": 1, "members": [{"onnx": "m.onnx"}]})
    return one(folder)


ODD: list[Callable[[Path], dict[str, Any]]] = [
    nothing,
    without_sidecar,
    with_external_data,
    of_version_0,
    of_another_kind,
    with_unknown_fields,
    with_wide_characters,
    with_large_numbers,
    with_long_texts,
    with_an_odd_demotion,
    with_notes_beside,
]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_odd_registries_print_what_the_schema_says(
    tmp_path: Path, registry: Program, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """Inputs that no example has: nothing in them, nothing beside them, and too much of everything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    tiny_models.write(tmp_path / "model", "registry.json", to_json(make(tmp_path / "model")))
    check_each(registry, tmp_path / "model")


HEADER = "src,encoder,crf,adm2,vif_scale0,vif_scale1,vif_scale2,vif_scale3,motion2,vmaf"
CORPORA = {  # rows below the header, or a whole file
    "one row": ["a,libx264,30,1,1,1,1,1,0,100"],
    "one source": ["a,libx264,30,1,1,1,1,1,0,100", "a,libx265,40,0.9,0.5,0.6,0.7,0.8,3,60"],
    "rows that are equal": ["a,libx264,30,1,1,1,1,1,0,100"] * 4 + ["b,libx264,30,1,1,1,1,1,0,100"] * 4,
    "encoders without a slot": [
        f"{s},{e},{i},0.{i}5,0.5,0.6,0.7,0.8,{i},{i}0" for s in "ab" for i, e in enumerate("xyz")
    ],
    "no encoder's name": ["a,,1,1,1,1,1,1,0,100", "b,,2,0.9,0.5,0.6,0.7,0.8,3,60"],
    "wide names": ["\U0001f600,libx264,30,1,1,1,1,1,0,100", '"a,b",libx265,40,0.9,0.5,0.6,0.7,0.8,3,60'],
    "large numbers": ["a,libx264,30,1e11,-1e11,1,1,1,0,100", "b,libx264,30,1e-300,0,0,0,0,0,0"],
    "no rows": [],
    "a word for a number": ["a,libx264,30,high,1,1,1,1,0,100"],
}
ON_CORPORA = (
    Command(("fr-ensemble", "corpus", "info", "{}"), "corpus_info"),
    Command(("evaluate", "tiny", "--corpus", "{}", "--registry", "model"), "evaluation"),
    Command(("fr-ensemble", "exchangeable", "tiny", "--corpus", "{}"), "exchangeability"),
    Command(
        ("fr-ensemble", "recommend", "tiny", "--corpus", "{}", "--target", "60", "--confidence", "0.8"),
        "recommendation",
    ),
    Command(("reproduce", "tiny", "--corpus", "{}", "--registry", "model"), "reproduction"),
)


@pytest.mark.parametrize("command", ON_CORPORA, ids=lambda command: " ".join(command.words))
@pytest.mark.parametrize("rows", CORPORA.values(), ids=CORPORA)
def test_odd_corpora_print_what_the_schema_says(
    smoke: Sandbox, registry: Program, monkeypatch: pytest.MonkeyPatch, rows: list[str], command: Command
) -> None:
    """Rows that are few, equal, unknown or extreme: figures that cannot be computed are null."""
    monkeypatch.chdir(smoke.folder.parent)
    corpus = smoke.folder.parent / "rows.csv"
    corpus.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    for words in command.for_each(corpus):
        check(registry(*words), command.schema)


def test_plugins_print_what_the_schema_says(registry: Program) -> None:
    """Those that are installed here."""
    check(registry("plugins", "--format", "json"), "plugins")
    check(registry("plugins", "--check", "--format", "json"), "plugins")
    check(registry("metrics", "--format", "json"), "metrics")
    check(registry("rule", "--format", "json"), "rules")
