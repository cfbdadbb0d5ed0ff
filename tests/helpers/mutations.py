"""mutations.py: systematic changes to a registry's files, and what `validate` says to each. Asserts nothing."""

from __future__ import annotations

import copy
import json
import random
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
from fr_ensemble.artifacts.paths import OOF_PATH, summary_path
from fr_ensemble.evidence.loso import to_files
from fr_ensemble.evidence.oof import Oof, read_oof
from onnx import TensorProto, numpy_helper
from policies import MANUAL
from sandbox import Sandbox, sha256, to_json, tree

from registry_tool.documents.entries import pins_of
from registry_tool.findings import Severity
from registry_tool.hookspec import Level
from registry_tool.plugins.manager import Plugins
from registry_tool.testing.changes import DocumentPath, document_changes
from registry_tool.workflows.validate import validate

# Fields of registry.json that nothing else speaks of: words for people, and bars that `gate --base` guards.
WORDS = {"license", "description", "quant_accuracy_budget_plcc", "reason"}
Choose = Callable[[Iterable[Any]], Iterable[Any]]  # which of the changes of a document are made: a sample, or all
Files = dict[str, bytes | None]  # path in the registry's folder -> its new bytes; None: the file goes


@dataclass(frozen=True)
class Mutation:
    """files: what is written. file: the path that was changed; a finding names it, or a document in `pinned_by`.

    quick: --level quick finds it too.
    """

    name: str
    file: str
    files: Files
    pinned_by: frozenset[str]
    quick: bool = True


@dataclass
class Tally:
    """What a run of mutations showed; the lists hold names."""

    tried: int = 0
    missed: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    @property
    def caught(self) -> int:
        return self.tried - len(self.missed) - len(self.tracebacks)


TIME_OUT = 10.0  # seconds of processor time; a mutation takes milliseconds


def run(folder: Path, plugins: Plugins, mutations: Iterable[Mutation], level: Level = Level.FULL) -> Tally:
    """Write each mutation into the folder, validate, and put the files back."""
    tally, before = Tally(), tree(folder)
    for mutation in mutations:
        tally.tried += 1
        _write(folder, mutation.files)
        began = time.process_time()
        try:
            findings = validate(folder / "registry.json", plugins, level).findings
        except Exception:
            tally.tracebacks.append(f"{mutation.name}: {traceback.format_exc()}")
        else:
            errors = [f for f in findings if f.severity is Severity.ERROR]
            right = {mutation.file, *mutation.pinned_by}
            if failed := [f for f in findings if f.code == "plugin-failed"]:
                tally.tracebacks.append(f"{mutation.name}: {failed[0]}")
            elif not errors:
                tally.missed.append(mutation.name)
            elif not any(f.file in right or mutation.file in str(f) for f in errors):
                tally.misplaced.append(f"{mutation.name}: {errors[0]}")
        if time.process_time() - began > TIME_OUT:
            tally.slow.append(mutation.name)
        _write(folder, {path: before.get(path) for path in mutation.files})
    return tally


def _write(folder: Path, files: Files) -> None:
    for path, data in files.items():
        if data is None:
            (folder / path).unlink(missing_ok=True)
            _remove_empty(folder, (folder / path).parent)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


def _remove_empty(folder: Path, path: Path) -> None:
    """Folders that a forged run left would slow down every further one."""
    while path != folder and path.is_dir() and not any(path.iterdir()):
        path.rmdir()
        path = path.parent


# ---- bytes ------------------------------------------------------------------------------------------------------


def byte_changes(folder: Path, rng: random.Random, each: int, skip: str = "registry.json") -> Iterator[Mutation]:
    """In every file but the registry's: `each` single bytes changed, cuts, additions, and the file gone."""
    for path, data in tree(folder).items():
        if path == skip or path in (".gitignore", ".gitattributes"):
            continue
        by = pinners(folder, path)
        for _ in range(each):
            at = rng.randrange(len(data))
            changed = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
            yield Mutation(f"{path}: byte {at} changed", path, {path: changed}, by)
        for cut in sorted({0, 1, len(data) // 2, len(data) - 1}):
            yield Mutation(f"{path}: cut to {cut} bytes", path, {path: data[:cut]}, by)
        for name, extra in (("a zero", b"\0"), ("a newline", b"\n"), ("itself", data)):
            yield Mutation(f"{path}: with {name} appended", path, {path: data + extra}, by)
        yield Mutation(f"{path}: gone", path, {path: None}, by)
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
        yield Mutation(f"{path}: an LFS pointer", path, {path: pointer}, by)


def pinners(folder: Path, path: str) -> frozenset[str]:
    """The documents above a file: its manifest, where it has one, and the registry."""
    manifests = (document.parent for document in folder.rglob("manifest.json"))
    above = {
        f"{p.relative_to(folder).as_posix()}/manifest.json" for p in manifests if (folder / path).is_relative_to(p)
    }
    return frozenset({"registry.json", *above})


# ---- documents --------------------------------------------------------------------------------------------------


def registry_changes(folder: Path, harmless: Callable[[str, DocumentPath], bool]) -> Iterator[Mutation]:
    """Every field of registry.json changed, dropped or of another type."""
    document = json.loads((folder / "registry.json").read_bytes())
    for what, at, changed in document_changes(document):
        if not harmless(what, at):
            name = "registry.json"
            yield Mutation(f"{name}: {what}", name, {name: to_json(changed)}, frozenset(named_by(folder)))


def named_by(folder: Path) -> set[str]:
    """Files that a finding may name where the registry was changed: those the changed field speaks of."""
    return {path for path in tree(folder) if path.endswith((".json", ".onnx", ".data"))}


def text_changes(folder: Path) -> Iterator[Mutation]:
    """Every JSON file as documents that parsers disagree on."""
    for path, data in tree(folder).items():
        if not path.endswith(".json"):
            continue
        key = data.split(b'"')[1]
        for name, changed in (
            ("with a BOM", b"\xef\xbb\xbf" + data),
            ("in UTF-16", data.decode().encode("utf-16")),
            ("with a key twice", data.replace(b"{", b'{"' + key + b'": 1,', 1)),
            ("with an escaped key twice", data.replace(b"{", b'{"\\u%04x%s": 1,' % (key[0], key[1:]), 1)),
            ("with NaN", data.replace(b"{", b'{"x": NaN,', 1)),
            ("with a bidirectional mark", data.replace(b"{", '{"x": "\u202e",'.encode(), 1)),
            ("with a huge number", data.replace(b"{", b'{"x": 1' + b"0" * 400 + b",", 1)),
            ("nested deeply", data.replace(b"{", b'{"x": ' + b"[" * 40 + b"]" * 40 + b",", 1)),
            ("without its end", data.rstrip()[:-1]),
            ("as a list", b"[" + data + b"]"),
        ):
            yield Mutation(f"{path}: {name}", path, {path: changed}, pinners(folder, path))


def pinned_changes(folder: Path, choose: Choose = iter) -> Iterator[Mutation]:
    """Every field of every pinned JSON document: what pins it no longer holds."""
    for path, data in tree(folder).items():
        if path.endswith(".json") and path != "registry.json":
            for what, _, changed in choose(document_changes(json.loads(data))):
                yield Mutation(f"{path}: {what}", path, {path: to_json(changed)}, pinners(folder, path))


def model_changes(folder: Path, models: Iterable[tuple[str, bytes]]) -> Iterator[Mutation]:
    """Other models in the place of `plain.onnx`, pinned again; without its sidecar, which speaks of the old one."""
    document = json.loads((folder / "registry.json").read_bytes())
    row = next(row for row in document["models"] if row["id"] == "plain")
    for field_name in ("sidecar_sha256", "opset", "promotion"):
        row.pop(field_name, None)
    row["smoke"] = True
    for name, data in models:
        row["sha256"] = sha256(data)
        files: Files = {"plain.onnx": data, "plain.json": None, "registry.json": to_json(document)}
        yield Mutation(f"model: {name}", "plain.onnx", files, frozenset({"registry.json"}), quick=False)


# ---- forgeries --------------------------------------------------------------------------------------------------


class Forger:
    """Changes artefacts of an ensemble and makes every pin up to the registry fit, as `Sandbox.forge`, in memory."""

    def __init__(self, box: Sandbox) -> None:
        self.box, self.files = box, tree(box.folder)
        self.run = box.artifacts.relative_to(box.folder).as_posix()

    def forged(self, name: str, change: Callable[[dict[str, Any]], object], files: dict[str, bytes]) -> Mutation:
        """manifest changed, artefacts replaced (paths in the run's folder), all pins made again."""
        manifest = copy.deepcopy(self.box.manifest)
        artefacts = {path: data for path, data in self.files.items() if path.startswith(f"{self.run}/")}
        artefacts |= {f"{self.run}/{path}": data for path, data in files.items()}
        for key, pin, _ in pins_of(manifest):
            pin["sha256"] = sha256(artefacts[f"{self.run}/{pin[key]}"])  # type: ignore[index]  # a copy, and a dict
        evidence_sha256 = self.box.evidence_sha256(manifest)
        change(manifest)
        data = to_json(manifest)
        folder = f"{self.box.id}/{sha256(data)[:12]}"
        out: Files = dict.fromkeys(artefacts)
        out |= {f"{folder}/{path.removeprefix(f'{self.run}/')}": data for path, data in artefacts.items()}
        out[f"{folder}/manifest.json"] = data
        document = self.box.registry
        entry = next(model for model in document["models"] if model["id"] == self.box.id)
        entry |= {"manifest": f"{folder}/manifest.json", "sha256": sha256(data)}
        if "promotion" in entry:
            out |= self._verdict(entry, {"manifest_sha256": sha256(data), "evidence_sha256": evidence_sha256})
        out["registry.json"] = to_json(document)
        by = {f"{folder}/{path.removeprefix(f'{self.run}/')}" for path in artefacts} | {"registry.json"}
        return Mutation(name, f"{folder}/manifest.json", out, frozenset(by), quick=False)

    def _verdict(self, entry: dict[str, Any], fields: dict[str, Any]) -> Files:
        data = to_json({**self.box.verdict, **fields})
        where = f"{self.box.id}/verdicts/PROMOTE-{sha256(data)[:12]}.json"
        entry["promotion"] = {"verdict": where, "sha256": sha256(data)}
        return {where: data}

    def manifests(self, unproven: Callable[[str, DocumentPath], bool], choose: Choose = iter) -> Iterator[Mutation]:
        """Every field of the manifest, with pins that fit."""
        changes = document_changes(self.box.manifest)
        for what, _, changed in choose(found for found in changes if not unproven(*found[:2])):

            def change(manifest: dict[str, Any], changed: dict[str, Any] = changed) -> None:
                manifest.clear()
                manifest |= changed

            yield self.forged(f"forged manifest: {what}", change, {})

    def summaries(self, unproven: Callable[[str, DocumentPath], bool], choose: Choose = iter) -> Iterator[Mutation]:
        """Every field of every LOSO summary, with pins that fit."""
        for path, data in self.files.items():
            name = path.removeprefix(f"{self.run}/")
            if name.startswith("evidence/") and name.endswith(".json"):
                changes = document_changes(json.loads(data))
                for what, _, changed in choose(found for found in changes if not unproven(*found[:2])):
                    yield self.forged(f"forged {name}: {what}", lambda manifest: None, {name: to_json(changed)})

    def verdicts(self, unproven: Callable[[str, DocumentPath], bool]) -> Iterator[Mutation]:
        """Every field of the verdict, pinned again."""
        for what, at, changed in document_changes(self.box.verdict):
            if not unproven(what, at):
                document, data = self.box.registry, to_json(changed)
                where = f"{self.box.id}/verdicts/PROMOTE-{sha256(data)[:12]}.json"
                entry = next(model for model in document["models"] if model["id"] == self.box.id)
                entry["promotion"] = {"verdict": where, "sha256": sha256(data)}
                files: Files = {where: data, "registry.json": to_json(document)}
                yield Mutation(f"forged verdict: {what}", where, files, frozenset({"registry.json"}))

    def evidence(self) -> Iterator[Mutation]:
        """Other out-of-fold predictions, with the summaries that they make and pins that fit."""
        oof = read_oof(self.files[f"{self.run}/{OOF_PATH}"])
        name = json.loads(self.files[f"{self.run}/{summary_path(oof.seeds[0])}"])["corpus"]
        for what, changed in evidence_changes(oof):
            files = dict(to_files(changed, name))
            yield self.forged(f"forged evidence: {what}", lambda manifest: None, files)

    def artefacts(self, rng: random.Random, each: int) -> Iterator[Mutation]:
        """Single bytes of every artefact, pinned again."""
        for path, data in self.files.items():
            name = path.removeprefix(f"{self.run}/")
            if name != path and name != "manifest.json":
                for _ in range(each):
                    at = rng.randrange(len(data))
                    changed = data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
                    yield self.forged(f"forged {name}: byte {at}", lambda manifest: None, {name: changed})


def evidence_changes(oof: Oof) -> Iterator[tuple[str, Oof]]:
    """Evidence that says more, or other, than was measured; each by itself is well formed."""
    seeds = range(len(oof.seeds))
    rows = [np.flatnonzero(oof.source == k) for k in range(len(oof.sources))]

    def predicted(predictions: Any) -> Oof:
        return replace(oof, predictions=predictions)

    for first, second in permutations(seeds, 2):
        copied = oof.predictions.copy()
        copied[first] = copied[second]
        yield f"seed {first} a copy of seed {second}", predicted(copied)
        for k, where in enumerate(rows):
            copied = oof.predictions.copy()
            copied[first][where] = copied[second][where]
            yield f"seed {first}, fold {k} a copy of seed {second}", predicted(copied)
    for share in (0.01, 0.1, 0.5, 1.0):
        yield (
            f"predictions moved to the targets by {share}",
            predicted(oof.predictions + share * (oof.target - oof.predictions)),
        )
        for seed, (k, where) in product(seeds, enumerate(rows)):
            moved = oof.predictions.copy()
            moved[seed][where] += share * (oof.target - moved[seed])[where]
            yield f"seed {seed}, fold {k} moved to the targets by {share}", predicted(moved)
    for offset in (1.0, -1.0, 20.0):
        yield f"targets moved by {offset}", replace(oof, target=oof.target + offset)
        for k, where in enumerate(rows):
            target = oof.target.copy()
            target[where] += offset
            yield f"targets of fold {k} moved by {offset}", replace(oof, target=target)
    yield from source_changes(oof, rows)
    for name in ("rows_sha256", "recipe_sha256", "corpus_sha256"):
        yield f"another {name}", replace(oof, **{name: "0" * 64})
    for seed in seeds:
        others = [index for index in seeds if index != seed]
        left = tuple(oof.seeds[index] for index in others)
        yield f"seed {seed} left out", replace(oof, seeds=left, predictions=oof.predictions[others])


def source_changes(oof: Oof, rows: list[Any]) -> Iterator[tuple[str, Oof]]:
    """Sources that are called otherwise, are two, or lack a row. rows: of each source."""
    for k in range(len(rows)):
        names = tuple("other" if index == k else name for index, name in enumerate(oof.sources))
        yield f"source {k} renamed", replace(oof, sources=tuple(names))
        source = oof.source.copy()
        source[rows[k][::2]] = len(rows)
        split = {"sources": (*oof.sources, "more"), "source": source, "clips": None, "clip": None}
        yield f"source {k} in two", replace(oof, **split)
        kept = np.delete(np.arange(len(oof.target)), rows[k][:1])
        fewer = {"source": oof.source[kept], "target": oof.target[kept], "predictions": oof.predictions[:, kept]}
        yield f"source {k} without a row", replace(oof, **fewer, clips=None, clip=None, vmaf=None)


# ---- registries -------------------------------------------------------------------------------------------------


def singles(folder: Path, version: int) -> Path:
    """A registry of single models: plain, with external data, with an int8 variant; sidecars; one in production."""
    rows = []
    for index, name in enumerate(("plain", "external", "quantised")):
        model = tiny_models.model(seed=index)
        fields: dict[str, Any] = {"opset": 17, "description": "a tiny model"}
        if name == "external":
            weights = numpy_helper.to_array(model.graph.initializer[0]).tobytes()
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "external.data"), ("offset", "0"), ("length", str(len(weights)))):
                tensor.external_data.add(key=key, value=value)
            digest = tiny_models.write(folder, "external.data", weights)
            fields["external_data"] = [{"path": "external.data", "sha256": digest, "bytes": len(weights)}]
        if name == "quantised":
            fields |= {"quant_mode": "dynamic", "quant_accuracy_budget_plcc": 0.01}
            fields["int8_sha256"] = tiny_models.write(folder, "quantised.int8.onnx", tiny_models.model(seed=7))
        row = tiny_models.entry(folder, model, name, smoke=name != "plain", **fields)
        row["sidecar_sha256"] = tiny_models.write(folder, f"{name}.json", tiny_models.sidecar(row))
        rows.append(row)
    document: dict[str, Any] = {"schema_version": version, "models": rows}
    if version == 2:
        rows[0]["promotion"] = {"manual": True, "reason": "compared by eye"}
        document["policies"] = {"fr": MANUAL}
    (folder / "registry.json").write_bytes(to_json(document))
    return folder


def harmless(what: str, at: DocumentPath) -> bool:
    """Whether a change to registry.json leaves a registry that is valid by itself."""
    if at == ("models",) and what.endswith(("emptied", "reversed")):
        return True  # entries less are a diff, and their order says nothing
    if what.endswith("dropped") and (len(at) == 2 or at[-1] in ("opset", "external_data", *WORDS)):
        return at[-1] != "external_data"  # an entry or a word less; external data that nothing pins is found
    if what.endswith("dropped") and at[-1] == "quant_mode":
        return True  # the runtime then loads the other pinned file
    if at[-1] in WORDS and what.endswith(("changed", "emptied", "long", "huge")):
        return True
    if at[-1] == "rules" and what.endswith("changed"):
        return True  # a rule that stands twice asks nothing new
    return at[0] == "policies"


def harmless_in_version_1(what: str, at: DocumentPath) -> bool:
    """Version 1 knows no promotion, and its public form pins no sidecar."""
    return harmless(what, at) or at[-1] == "smoke" or (at[-1] == "sidecar_sha256" and what.endswith("dropped"))


# What a manifest may lack, since older releases did not record it.
LATER_FIELDS = (
    ("codec_stand_in",),
    ("codec_spellings",),
    ("corpus", "encoders"),
    ("probe", "encoder"),
    ("probe", "stages"),
    *(("probe", "stages", name) for name in ("codec_block", "encoder", "features")),
)


def unproven(what: str, at: DocumentPath) -> bool:
    """What a manifest claims and nothing in the registry can prove: docs/security.md names each."""
    in_sample = at[:1] == ("eval",) and not str(at[-1]).startswith("loso_")
    named = {
        ("corpus", "name"),
        ("corpus", "record"),
        ("target", "name"),
        ("probe", "codec_block"),
    }  # a slot that no training row had
    ranges = at[:2] == ("intervals", "input_ranges") and at[-1] != "name" and len(at) > 3
    if at in (("evidence",), ("corpus", "encoders")) and what.endswith("reversed"):
        return True  # the order of files says nothing
    if (at in LATER_FIELDS and what.endswith("dropped")) or (at == ("corpus", "encoders") and what.endswith("emptied")):
        return True  # as an older release writes it
    if at == ("metrics_version",) or (at == ("probe", "stages") and what.endswith("changed")):
        return True  # which figures may not be missing, as in a verdict; a stage that nothing has
    return in_sample or at[:1] == ("environment",) or at[:2] in named or ranges


def unproven_words(what: str, at: DocumentPath) -> bool:
    """A summary's name for its corpus; a verdict's list of plugins, and a stricter policy than the registry's.

    A verdict's metrics_version too, which says what may not be missing: its metrics are all recomputed; and its
    warnings, which another release says in other words: `gate` gives its own.
    """
    return at[:1] in (("corpus",), ("plugins",), ("policy",), ("metrics_version",), ("warnings",))
