"""Every field of a document that is kept is held by a finding that docs/reference/recorded.md names, or listed there.

A field that is called held is changed in a valid document, within what the schema takes, all pins fitting: the finding
must come. One that is listed as recorded is changed the same way: no error may come, or the list is out of date.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import key_pair
from command_line import run
from fr_ensemble.plugin import RECORDED_FIELDS
from places import EXAMPLES, ROOT
from policies import MANUAL, rules, set_policy
from registries import write_corpus
from sandbox import Sandbox, sha256, to_json
from schema_fields import Codes, Document, Example, More, fields_of
from thumbs import with_plugin

from registry_tool import schemas
from registry_tool.hookspec import Kind, Level, hookimpl
from registry_tool.plugins.manager import load
from registry_tool.workflows import explain
from registry_tool.workflows.validate import validate

PAGE = ROOT / "docs" / "reference" / "recorded.md"
KEPT = ("registry", "registry-v1", "manifest", "fr_ensemble", "verdict", "reproduction")
RECORDED = "recorded: "
POLICY = rules("mean_plcc >= 0.1")
ROOMS = ("registry_tool", "plugins/fr_ensemble")
NAMES = ("--source-column", "clip", "--encoder-column", "codec")


Boxes = dict[str, Sandbox]


@cache
def page(section: str) -> Mapping[str, str]:
    """Row -> what stands beside it, in a section of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))


def held(name: str) -> dict[str, str]:
    """Field of a document -> what the page says holds it: a code, or `recorded: ` and why."""
    return {field: words.strip("`") for field, words in page(f"`{name}`").items()}


@pytest.mark.parametrize("name", KEPT)
def test_the_page_has_every_field(name: str) -> None:
    """The page has the schema's fields and no others; each has the code of a finding, or a reason."""
    rows, rules = held(name), {rule.code: rule for group in explain.declared(load()) for rule in group.rules}
    assert [*rows] == [*fields_of(name)]
    assert [words for words in rows.values() if words not in rules and not re.match(rf"{RECORDED}.", words)] == []


def test_the_page_has_every_schema() -> None:
    """What is read back has fields that are held; the other documents are printed by the command that they name."""
    texts = [path.read_text(encoding="utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    read = {name for text in texts for name in re.findall(r'schemas\.load\("([\w-]+)"\)', text)}
    assert read <= {*KEPT, "known_findings"}
    printed = page("Printed, and never read")
    assert {*printed} == {*schemas.names()} - {*KEPT, "known_findings"}
    assert {name: schemas.load(name)["title"] for name in printed} == printed


def test_reasons_are_those_of_the_plugin() -> None:
    """What the page calls recorded of an ensemble's manifest, `registry plugins --check` gives with the same reason."""
    reasons = {field: words[len(RECORDED) :] for field, words in held("fr_ensemble").items() if RECORDED in words}
    assert reasons
    for name, reason in reasons.items():
        place = "/" + name.replace("[]", "").replace(".", "/")
        assert reason in [why for base, why in RECORDED_FIELDS.items() if f"{place}/".startswith(f"{base}/")], name


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_another_value_is_found_or_recorded(name: str, boxes: Boxes, tmp_path: Path) -> None:
    """Each field with another value gives the finding that the page names; one that is recorded gives no error."""
    made, rows = examples(name, boxes, tmp_path), held(name)
    owners = {field: [one for one in made if one.has(field)] for field in rows}
    assert [field for field, having in owners.items() if not having] == [], "no example has it"
    before: Codes = set().union(*(codes for one in made for codes in one.put(one.document)))
    assert before & {*rows.values()} == set()
    for one in made:
        recorded = [field for field in rows if rows[field].startswith(RECORDED) and owners[field][0] is one]
        found = set().union(*one.put(with_others(one, name, recorded))) - before
        assert found == set(), f"{', '.join(recorded)}: another value in each is found"
    checked = {field: words for field, words in rows.items() if not words.startswith(RECORDED)}
    assert {
        field: code for field, code in checked.items() if not any(one.finds(name, field, code) for one in owners[field])
    } == {}


def with_others(example: Example, name: str, fields: list[str]) -> Document:
    """The document with another value at each of these fields."""
    for field in fields:
        example = replace(example, document=next(example.changes(name, field)))
    return example.document


# ---- valid documents that have every field ----------------------------------------------------------------------


def named_corpus(path: Path, sources: int, rows: int, seed: int) -> Path:
    """Rows whose columns of sources and encoders have other names, with a condition, a frame rate and a session."""
    with write_corpus(path.with_suffix(".plain"), sources, rows, seed).open(newline="") as file:
        found = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for number, row in enumerate([dict(zip(found[0], found[0], strict=True)), *found]):
            source, encoder, *values = row.values()
            more = (number % 7 + 20, 25 + number % 3) if number else ("crf", "fps")
            names = (source, encoder) if number else ("clip", "codec")
            writer.writerow((*names, *values, *more))
    return path


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Boxes:
    """Registries of one production entry each: trained, signed and attested, and calibrated twice."""
    base = tmp_path_factory.mktemp("recorded")
    corpus, mine = (named_corpus(base / f"{seed}.csv", 4, 12, seed) for seed in (1, 2))
    mine.write_text(mine.read_text().replace("s23,libsvtav1", "s23,libvvenc"))  # two encoders of too few sources
    first = Sandbox(base / "model" / "registry.json")

    def type(*arguments: object) -> None:
        ran = run(base, *arguments, "--registry", first.path)
        assert ran.code == 0, ran.err

    training = ("--seeds", "0,1", "--recipe", "auto", "--condition", "log2:crf", "--license", "MIT")
    training += ("--leave-out-encoders",)
    type("train", "fr_ensemble", "--id", "tiny", "--corpus", corpus, *NAMES, *training)
    for name, options in (("here", (*NAMES, "--offset")), ("there", (*NAMES[2:], "--group", "clip", "--by-encoder"))):
        type("calibrate", "tiny", "--corpus", mine, "--id", name, *options)
    pair = key_pair(base, "ci")
    shutil.copy(pair.public, first.folder / "ci.pem")
    signers = [{"public_key": "ci.pem", "sha256": sha256(pair.public.read_bytes())}]
    first.edit(set_policy("fr_ensemble", POLICY))
    made = {}
    for name in ("tiny", "here", "there"):
        box = made[name] = Sandbox(first.copy(base / name).path, name)
        box.edit(lambda document, name=name: document.update(models=[r for r in document["models"] if r["id"] == name]))
        for other in {"tiny", "here", "there"} - {name}:
            shutil.rmtree(box.folder / other)
        assert run(base, "flip", name, "--registry", box.path).code == 0
    signed = made["signed"] = made["tiny"].copy(base / "signed")
    signed.edit(set_policy("fr_ensemble", {**POLICY, "signers": signers, "signatures": 1}))
    for command in ("sign", "attest"):
        ran = run(base, command, "tiny", "--key", pair.private, "--registry", signed.path)
        assert ran.code == 0, ran.err
    result = {
        "entry": "tiny",
        "manifest_sha256": signed.entry["sha256"],
        "outcome": "identical",
        "made_sha256": "0" * 64,
        "made_with": {"numpy": "2"},
        "files": {"manifest.json": True},
        "unchecked": ["evidence/baselines.npz"],
        "changes": [{"pointer": "/a", "then": 1, "now": 2, "explained": True}],
        "added": ["/b"],
        "environment": [{"name": "numpy", "then": "1", "now": "2", "decides": "weights"}],
        "agreements": [{"name": "mu", "largest": 0.1, "rms": 0.1, "tolerance": 1.0, "unit": "vmaf", "holds": True}],
        "warnings": ["w"],
    }
    (signed.folder / "tiny/verdicts/again.json").write_bytes(to_json(result))
    pin = {"path": "tiny/verdicts/again.json", "sha256": sha256(to_json(result))}
    signed.edit_entry(promotion={**signed.entry["promotion"], "reproductions": [pin]})
    assert signed.errors() == []
    return made


def looks(box: Sandbox) -> Iterator[Codes]:
    """The codes that each level finds, the quick one first; a warning is a finding, too."""
    yield from ({finding.code for finding in box.findings(level)} for level in (Level.QUICK, Level.FULL))


# Values that no example has. Of a policy, each asks for what the entry does not meet.
ASKED: dict[str, Any] = {
    "gate": "manual",
    "against": "nobody",
    "signers[].public_key": [{"public_key": "k.pem", "sha256": "0" * 64}],
    "signers[].certificate": [{"certificate": "k.pem", "sha256": "0" * 64}],
    "signers[].sha256": [{"public_key": "ci.pem", "sha256": "0" * 64}],
    "signatures": 2,
    "max_file_bytes": 100,
    "max_opset": 7,
    "max_ir_version": 3,
    "runtime": "libvmaf",
    "operators": ["Add"],
    "max_loops": 0,
}
RECORD = {"sha256": "0" * 64, "settings": {"model": "vmaf_v0.6.1"}}


def asked(base: tuple[str, ...], name: str) -> More:
    """What a policy at `base` may ask for; `name` is what docs/formats.md calls it."""
    more = {f"{name}.{key}": [((*base, key.partition("[")[0]), value)] for key, value in ASKED.items()}
    return {**more, f"{name}.rules[].op": [((*base, "rules", 0, "op"), "<")]}


def of_registry(box: Sandbox, kind: str, **more: Any) -> Example:
    def put(document: Any) -> Iterator[Codes]:
        box.path.write_bytes(to_json(document))
        yield from looks(box)

    known = {f"models[].{key}": [(("models", 0, key), value)] for key, value in more.items()}
    if "verdict" in box.registry["models"][0].get("promotion", {}):
        both = (("path", "gone"), ("sha256", box.registry["models"][0]["promotion"]["verdict"]))
        for list_name, (key, path) in product(("attestations", "reproductions"), both):
            pins = [{"path": path, "sha256": "0" * 64}]
            known[f"models[].promotion.{list_name}[].{key}"] = [(("models", 0, "promotion", list_name), pins)]
    return Example(box.registry, put, {**asked(("policies", kind), "policies.*"), **OF_THE_REGISTRY, **known})


OF_THE_REGISTRY: More = {
    "$schema": [(("$schema",), "registry.schema.json")],
    "requires[].plugin": [(("requires",), [{"plugin": "house-rules"}])],
    "requires[].version": [(("requires",), [{"plugin": "fr_ensemble", "version": "<0.0.1"}])],
    "optional_plugins": [(("optional_plugins",), ["house-rules"])],
}


def of_manifest(box: Sandbox) -> Example:
    def put(document: Any) -> Iterator[Codes]:
        box.forge(document)
        yield from looks(box)

    manifest = box.manifest
    other = {**manifest["target"], "definition": "vmaf_4k_v0.6.1"}
    corpus = {**manifest["corpus"], "record": RECORD}
    more: dict[str, Any] = {
        "smoke": [(("smoke",), True)],
        "target.definition": [((), {**manifest, "target": other, "corpus": corpus})],
        "target.libvmaf": [(("target", "libvmaf"), "3.0.0")],
        "corpus.record.sha256": [(("corpus", "record"), RECORD)],
        "corpus.record.settings": [(("corpus", "record"), RECORD)],
    }
    if "calibration" in manifest:
        parts = {"record": RECORD, "encoders": [{"name": "x", "n_rows": 1}], "ranges": [{"name": "x", "range": [0, 1]}]}
        for name in fields_of("fr_ensemble"):
            part = name.removeprefix("calibration.corpus.").partition("[")[0].partition(".")[0]
            if name.startswith("calibration.corpus.") and part in parts:
                more[name] = [(("calibration", "corpus", part), parts[part])]
    return Example(manifest, put, more)


def of_verdict(box: Sandbox) -> Example:
    def put(document: Any) -> Iterator[Codes]:
        box.forge_verdict(**document)
        yield from looks(box)

    return Example(box.verdict, put, asked(("policy",), "policy"))


def of_reproduction(box: Sandbox) -> Example:
    promotion = box.entry["promotion"]
    path = box.folder / promotion["reproductions"][0]["path"]

    def put(document: Any) -> Iterator[Codes]:
        path.write_bytes(to_json(document))
        pin = {**promotion["reproductions"][0], "sha256": sha256(path.read_bytes())}
        box.edit_entry(promotion={**promotion, "reproductions": [pin]})
        yield from looks(box)

    return Example(json.loads(path.read_bytes()), put)


class Manual:
    """A kind with a manifest of which its plugin checks nothing: what is found, the core found."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("plain", "a kind of manifests", schema={"type": "object"})]


def of_any_kind(base: Path) -> Example:
    """The manifest of a kind that checks nothing itself, with all that the core reads."""
    weights = tiny_models.model()
    corpus = {"name": "c", "n_rows": 9, "sources": ["a"], "rows_sha256": "0" * 64}
    document: dict[str, Any] = {
        "members": [{"onnx": "m.onnx", "sha256": sha256(weights.SerializeToString())}],
        "target": {"name": "vmaf", "range": [0, 100], "definition": "x", "libvmaf": "3.0.0"},
        "corpus": corpus,
        "calibration": {"corpus": corpus, "offset": 0.0, "group": "src"},
        "calibrated_from": {"id": "o"},
        "environment": [{"name": "numpy", "version": "1"}],
    }
    document |= {"id": "m", "kind": "plain", "random_rows": False, "opset": 17, "onnx_opset": 17, "ir_version": 8}
    document |= {"feature_order": tiny_models.FEATURES, "codec_vocab": ["x264"]}
    document |= {"recipe": {"epochs": 3}, "recipe_sha256": "0" * 64}
    plugins = with_plugin(Manual())

    def put(changed: Any) -> Iterator[Codes]:
        shutil.rmtree(base / "m", ignore_errors=True)
        digest = sha256(to_json(changed))
        place = f"m/{digest[:12]}"
        tiny_models.write(base, f"{place}/m.onnx", weights)
        tiny_models.write(base, f"{place}/manifest.json", to_json(changed))
        row = {"id": "m", "kind": "plain", "manifest": f"{place}/manifest.json", "sha256": digest, "smoke": False}
        row |= {"license": "MIT", "promotion": {"manual": True, "reason": "seen"}}
        registry = {"schema_version": 2, "policies": {"plain": MANUAL}, "models": [row]}
        tiny_models.write(base, "registry.json", registry)
        for level in (Level.QUICK, Level.FULL):
            yield {finding.code for finding in validate(base / "registry.json", plugins, level).findings}

    return Example(document, put)


def evidenced(base: Path) -> Sandbox:
    """A model with operators that libvmaf lacks, a loop, a sidecar, an int8 variant within its budget, and evidence."""
    model, variant = looping(1.0), looping(1.2)
    for name, made in (("m", model), ("v", variant)):
        tiny_models.write(base, f"{name}.onnx", made)
    row = {"id": "m", "kind": "fr", "onnx": "m.onnx", "sha256": sha256(model.SerializeToString())}
    tiny_models.write(base, "m.json", tiny_models.sidecar(row, onnx=None))
    rng = np.random.default_rng(1)
    features = rng.normal(0.5, 0.1, (12, 6))
    scores = np.sin((features - 0.5) / 0.1 @ WEIGHTS)
    lines = [[*row, number % 2, score] for number, (row, score) in enumerate(zip(features, scores, strict=True))]
    names = [*tiny_models.FEATURES, "src", "mos"]
    (base / "rows.csv").write_text("\n".join(",".join(map(str, line)) for line in [names, *lines]) + "\n")
    box = Sandbox(base / "model" / "registry.json", "m")
    add = ("m.onnx", "--kind", "fr", "--id", "m", "--license", "MIT", "--int8", "v.onnx", "--quant-budget", "1")
    for command in (("add", *add), ("evidence", "m", "--data", "rows.csv", "--target", "mos")):
        ran = run(base, *command, "--registry", box.path)
        assert ran.code == 0, ran.err
    return box


def looping(factor: float) -> onnx.ModelProto:
    """features [N, 6] -> score [N, 1] through Sin, and a loop of one round."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", w]) for n, w in (("features", 6), ("score", 1))]
    inner = [helper.make_tensor_value_info(*port) for port in LOOP_PORTS]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("on", "still"), ("x", "y"))]
    body = helper.make_graph(nodes, "body", inner[:3], inner[3:])
    weights = (WEIGHTS * factor).astype(np.float32).reshape(6, 1)
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "w"], ["product"]),
            helper.make_node("Sin", ["product"], ["start"]),
            helper.make_node("Loop", ["rounds", "always", "start"], ["score"], body=body),
        ],
        *("looping", ports[:1], ports[1:]),
        [numpy_helper.from_array(np.array(v), n) for n, v in (("w", weights), ("rounds", 1), ("always", True))],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WEIGHTS = np.linspace(-0.5, 0.5, 6)
LOOP_PORTS = [
    ("round", TensorProto.INT64, []),
    ("on", TensorProto.BOOL, []),
    ("x", TensorProto.FLOAT, None),
    ("still", TensorProto.BOOL, []),
    ("y", TensorProto.FLOAT, None),
]


def examples(name: str, boxes: Boxes, base: Path) -> list[Example]:
    """Valid documents of a schema; together they have every field."""

    def box(key: str) -> Sandbox:
        return boxes[key].copy(base / key)

    match name:
        case "registry" | "registry-v1":
            whole = evidenced(base)
            older = [Sandbox(shutil.copytree(EXAMPLES / "valid" / n, base / n) / "registry.json") for n in OLDER]
            single = Sandbox(mutations.singles(base / "single", 2) / "registry.json", "plain")
            first = box("signed" if name == "registry" else "tiny")
            if name == "registry-v1":
                for one in (first, whole, single, *older):
                    lower_the_version(one)
            return [
                of_registry(first, "fr_ensemble", **WORDS),
                of_registry(whole, "fr", quant_mode="static", quant_calibration_set="rows of A"),
                *(of_registry(one, "fr") for one in (single, *older)),
            ]
        case "manifest":
            return [of_any_kind(base / "any")]
        case "fr_ensemble":
            return [of_manifest(box(key)) for key in ("tiny", "here", "there")]
        case "verdict":
            return [of_verdict(box("tiny"))]
        case _:
            return [of_reproduction(box("signed"))]


OLDER = ("demoted", "migrated")
WORDS = {"license_url": "javascript:x", "notes": "x", "sigstore_bundle": "none.sigstore.json"}


def lower_the_version(box: Sandbox) -> None:
    """The registry says version 1, without what that does not know."""
    for row in box.registry["models"]:
        Sandbox(box.path, row["id"]).edit_entry(evidence=None)
    box.edit(lambda document: document.update(schema_version=1))
