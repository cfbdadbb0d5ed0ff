"""migrate.py: a registry of version 0 or 1 made anew in version 2, in a folder of its own. Never writes to the old one.

Every file is read once, held against its pin, and written; what was not pinned gets the sha256 of the bytes written.
Holes are what `validate` finds in the old registry and in the new one: nothing is judged twice by other rules.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry_tool.checks.registry import check
from registry_tool.documents import store
from registry_tool.documents.entries import ONNX_MAX_BYTES, pins_of, sha256_of, stem
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError
from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.hookspec import Level, Progress
from registry_tool.legacy.manifests import SHARED, json_files
from registry_tool.onnx_summary import OnnxError
from registry_tool.plugins.manager import Plugins
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import FileProblem, Folder, check_path, write_atomic
from registry_tool.storage.staging import NewFolder
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, dump, parse
from registry_tool.values import EMPTY, Entry, Json, Policy, Registry
from registry_tool.workflows.opening import usable
from registry_tool.workflows.train import ID

JOINING = "joining"  # the folder of an ensemble until the digest of its manifest is known
ORIGINALS = "migrated"  # in it: the loose documents as they were
SAME = ("license", "license_url", "description", "notes", "opset")  # kept by a joined entry where all rows say the same
MENDED = {  # code of a hole -> what the migration does about it
    "onnx-external-weak": "its sha256 is pinned now",
    "onnx-external-unpinned": "its sha256 is pinned now",
    "loose-verdict": "kept beside the manifest as it was; it promotes nothing",
    "loose-smoke-mismatch": "the entry is smoke: no evidence came along",
    "loose-sidecar-disagrees": "what the members' sidecars say was taken",
    "loose-codec-width": "the vocabulary of the members' sidecars was taken",
    "loose-member-disagrees": "what the registry says was taken",
    "digest-mismatch": "the registry's pin was taken; what the manifest measured, it measured on other members",
}
LOOSE = ("loose-smoke-mismatch", "loose-sidecar-disagrees", "loose-codec-width", "loose-member-disagrees")

NOT_JOINED = FindingRule(
    "migration-not-joined",
    "manifest not joined with its members' entries",
    why="The members stay entries of their own; what the manifest says of them is left behind.",
    message="not joined with its members: {reason}",
    hint="correct that, or train the ensemble again",
    example="a member whose file is missing",
    severity=Severity.WARNING,
)


class _Broken(Exception):
    """Why an entry, or a manifest, cannot be taken over."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A finding on the old registry or on the new one; mended: what was done about it, "" where it is still there."""

    finding: Finding
    mended: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """An ensemble made of the rows `members` and of the loose manifest at `source`."""

    entry: Entry
    source: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did. written: False where the folder held this result already, or where `broken` stopped it.

    broken: entry -> why it cannot be taken over. skipped: whether they were left out. left_behind: files that nothing
    in the old registry names. pinned: how many files of each sort have a sha256 now.
    """

    old: Path
    new: Path
    imported_from: str
    registry: Registry
    written: bool
    holes: tuple[Hole, ...]
    joined: tuple[Joined, ...]
    pinned: Mapping[str, int]
    left_behind: tuple[str, ...]
    broken: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    skipped: bool = False

    @property
    def done(self) -> bool:
        return self.skipped or not self.broken


def migrate(
    path: Path, new: Path, plugins: Plugins, *, skip_broken: bool = False, progress: Progress | None = None
) -> Migration:
    """Make NEW/registry.json and every file it names; the new folder appears whole, or not at all.

    Raises InputError for a registry of version 2, and for a folder that is not empty and not this very result.
    """
    plugins.need_all()
    loaded = usable(path)
    if loaded.registry.schema_version == store.VERSION:
        raise InputError(f"{path}: it is of version {store.VERSION} already: there is nothing to migrate")
    if new.resolve().is_relative_to(path.resolve().parent):
        raise InputError(f"{new}: it lies in the old registry's folder, which is not written to: name another folder")
    before = check(loaded, plugins, Level.FULL, progress)
    broken: dict[str, str] = {}
    refused: dict[str, str] = {}  # loose manifests that are not joined, and why
    with NewFolder(new) as made, Folder(loaded.folder) as folder, Prober() as prober:
        while True:  # again where something is left out: at most once a manifest or entry, commonly never
            made.clear()
            skip = set(broken) if skip_broken else set()
            work = _Work(loaded, plugins, folder, prober, made.path, skip, refused)
            registry = work.build()
            write_atomic(made.path / "registry.json", dump(registry.to_dict()))
            after = check(store.load(made.path / "registry.json"), plugins, Level.FULL, progress)
            errors = {f.entry or "": str(f) for f in reversed(after) if f.severity is Severity.ERROR}
            found = {j.source: errors[j.entry.id] for j in work.joined if j.entry.id in errors}
            if found or work.refused.keys() - refused.keys():
                refused |= found | work.refused
                continue
            wrong = work.broken | errors
            fresh = wrong.keys() - broken.keys()
            broken |= {name: why for name, why in wrong.items() if name in fresh}
            if not (fresh and skip_broken) or "" in wrong:
                break
        done = not broken or (skip_broken and "" not in broken)
        written = made.publish() if done else False
        behind = [i.path for i in folder.inventory() if i.kind != "folder" and i.path not in work.taken]
    return Migration(
        path,
        new,
        work.digest,
        registry,
        written,
        tuple(work.holes(before, after)),
        tuple(work.joined),
        work.pinned,
        tuple(p for p in behind if p != loaded.name),
        broken,
        skip_broken and done,
    )


@dataclass(slots=True)
class _Work:
    """One attempt: what was taken from `folder` into `stage`, and what it became."""

    loaded: Loaded
    plugins: Plugins
    folder: Folder
    prober: Prober
    stage: Path
    skip: set[str]
    refused: dict[str, str]
    joined: list[Joined] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)  # path in the old folder -> sha256
    placed: dict[str, str] = field(default_factory=dict)  # path in the new folder -> sha256
    corrected: set[tuple[str, str]] = field(default_factory=set)  # (manifest, field)
    pinned: Counter[str] = field(default_factory=Counter)

    @property
    def registry(self) -> Registry:
        return self.loaded.registry

    @property
    def digest(self) -> str:
        return sha256_of(self.loaded.document.data)

    def build(self) -> Registry:
        self.refused = dict(self.refused)
        entries, rows = [], set()
        for path, digest, manifest in self._loose():
            try:
                one = self._join(path, digest, manifest)
            except (_Broken, FileProblem, OnnxError) as problem:
                self.refused[path] = str(problem)
                continue
            self.joined.append(one)
            entries.append(one.entry)
            rows |= set(one.members)
        for row in self.registry.entries:
            if row.id in rows or row.id in self.skip:
                continue
            try:
                if any(entry.id == row.id for entry in entries):
                    raise _Broken(f"{row.id}: duplicate id: give one of the entries another")
                entries.append(self._with_manifest(row) if row.manifest else self._single(row))
            except (_Broken, FileProblem, OnnxError) as problem:
                self.broken.setdefault(row.id, str(problem))
        kinds = [self.plugins.kinds[kind] for kind in {entry.kind for entry in entries} & self.plugins.kinds.keys()]
        policies = {kind.name: kind.default_policy for kind in kinds} | dict(self.registry.policies)
        return Registry(store.VERSION, tuple(sorted(entries, key=lambda e: e.id)), policies)

    # ---- files ----------------------------------------------------------------------------------------------------

    def _take(self, path: str, digest: str | None, target: str, most: int) -> bytes:
        """Read a file once, hold it against its pin, write it. Raises FileProblem, _Broken."""
        data = self.folder.read(check_path(path), most)
        found = sha256_of(data)
        if digest is not None and found != digest:
            raise _Broken(f"{path}: its sha256 is {found}, the registry says {digest}: restore the file")
        if self.placed.setdefault(target, found) != found:
            raise _Broken(f"{target}: two different files would have this name: rename one")
        write_atomic(self.stage / target, data, root=self.stage)
        self.taken[path] = found
        return data

    def _model(
        self, onnx: str, digest: str, says: Mapping[str, Json], most: int, to: Callable[[str], str]
    ) -> dict[str, Any]:
        """Take a model and what stands beside it: pins with old paths, and the sidecar's `data`. says: its row."""
        graphs = {onnx: digest}
        if "int8_sha256" in says:
            graphs[f"{stem(onnx)}.int8.onnx"] = says["int8_sha256"]
        checksums: dict[str, set[str]] = {}  # SHA-1 that the graphs give for a file with weights
        for path, pin in graphs.items():
            data = self._take(path, pin, to(path), most)
            for tensor in self.prober.read(data, sha256=self.taken[path]).external:
                where = posixpath.join(posixpath.dirname(path), check_path(tensor.location))
                checksums.setdefault(where, set()).update([tensor.checksum.lower()] if tensor.checksum else [])
        known = {pin["path"]: pin["sha256"] for pin in says.get("external_data", ())}
        model: dict[str, Any] = {"graphs": list(graphs), "external_data": [], "data": None}
        for path in sorted({*checksums, *known}):
            data = self._take(path, known.get(path), to(path), most)
            sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            if wrong := checksums.get(path, set()) - {sha1}:
                raise _Broken(f"{path}: its SHA-1 is {sha1}, the model says {min(wrong)}: restore the file")
            model["external_data"].append({"path": path, "sha256": self.taken[path], "bytes": len(data)})
        sidecar, bundle = f"{stem(onnx)}.json", says.get("sigstore_bundle")
        if "sidecar_sha256" in says or self.folder.exists(sidecar):
            model["data"] = self._take(sidecar, says.get("sidecar_sha256"), to(sidecar), JSON_MAX_BYTES)
            model["sidecar"] = {"path": sidecar, "sha256": self.taken[sidecar]}
        if bundle is not None and self.folder.exists(bundle):
            self._take(bundle, None, to(bundle), JSON_MAX_BYTES)
            model["bundle"] = {"path": bundle, "sha256": self.taken[bundle]}
        self.pinned.update(
            models=len(graphs), sidecars=int("sidecar" in model), external_data=len(model["external_data"])
        )
        return model

    def _cap(self, kind: str) -> int:
        cap: int = self.registry.policies.get(kind, Policy()).extra.get("max_file_bytes", ONNX_MAX_BYTES)
        return cap

    # ---- entries --------------------------------------------------------------------------------------------------

    def _single(self, row: Entry) -> Entry:
        """A single model as it was, with everything beside it pinned."""
        model = self._model(row.onnx or "", row.sha256, row.document, self._cap(row.kind), lambda path: path)
        document = {**row.document, "smoke": row.smoke}
        if row.is_production:
            document["promotion"] = {"imported_from": self.digest}
        if model["external_data"]:
            document["external_data"] = model["external_data"]
        if "sidecar" in model:
            document["sidecar_sha256"] = model["sidecar"]["sha256"]
        if not document.get("license"):  # version 1 takes an empty one
            document.pop("license", None)
        return Entry.from_dict(document)

    def _with_manifest(self, row: Entry) -> Entry:
        """An entry that pins a manifest already: its files and its verdict move to where version 2 expects them."""
        path, folder = row.manifest or "", f"{row.id}/{row.sha256[:12]}"
        data = self._take(path, row.sha256, f"{folder}/manifest.json", JSON_MAX_BYTES)
        for key, pin, _ in pins_of(_object(path, data)):
            source = posixpath.join(posixpath.dirname(path), pin[key])
            self._take(source, pin.get("sha256"), f"{folder}/{pin[key]}", self._cap(row.kind))
        if "verdict" in (row.promotion or EMPTY):
            verdict = (row.promotion or EMPTY)["verdict"]
            self._take(verdict, (row.promotion or EMPTY)["sha256"], verdict, JSON_MAX_BYTES)
        return row.with_fields(smoke=row.smoke, manifest=f"{folder}/manifest.json")

    def _loose(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Manifests beside the models, of a kind that has a schema; those that were refused before are left alone."""
        for path in json_files(self.folder, self.loaded):
            try:
                data = self.folder.read(path, JSON_MAX_BYTES)
                value = _object(path, data)
            except (_Broken, FileProblem):
                continue  # a hole of the old registry
            kind = self.plugins.kinds.get(str(value.get("kind")))
            if path not in self.refused and kind is not None and kind.schema is not None and value.get("members"):
                yield path, sha256_of(data), value

    def _join(self, path: str, digest: str, manifest: dict[str, Any]) -> Joined:
        """One entry of a loose manifest and the rows of its members, with the registry's pins. Raises _Broken."""
        name, kind = str(manifest.get("id")), str(manifest["kind"])
        if not ID.match(name):
            raise _Broken(f"{path}: its id {name[:80]!r} cannot be an entry's: correct it")
        base, at = posixpath.dirname(path), f"{name}/{JOINING}"
        by_file = {row.onnx: row for row in self.registry.entries if row.onnx}
        rows: dict[str, Entry] = {}
        members, sidecars = [], []

        def inside(old: str) -> str:
            return old[len(base) + 1 :] if base and old.startswith(f"{base}/") else old

        def pin(document: Mapping[str, Json]) -> dict[str, Json]:
            return {**document, "path": inside(document["path"])}

        for member in manifest["members"]:
            if not isinstance(member, dict) or not isinstance(member.get("onnx"), str):
                raise _Broken(f"{path}: one of its members names no ONNX file: correct it")
            row = self.registry.entry(str(member.get("id"))) or by_file.get(posixpath.join(base, member["onnx"]))
            onnx = (row.onnx if row else None) or posixpath.join(base, member["onnx"])
            says = row.document if row else EMPTY
            model = self._model(
                onnx,
                row.sha256 if row else str(member.get("sha256")),
                says,
                self._cap(kind),
                lambda old: f"{at}/{inside(old)}",
            )
            document = {**member, "onnx": inside(onnx), "sha256": self.taken[onnx]}
            if row is not None:
                rows[row.id] = row
                document["row"] = {key: value for key, value in says.items() if key not in ("onnx", "sha256")}
            if model["external_data"]:
                document["external_data"] = [pin(one) for one in model["external_data"]]
            document |= {key: pin(model[key]) for key in ("sidecar", "bundle") if key in model}
            if len(model["graphs"]) > 1:
                document["int8"] = {"onnx": inside(model["graphs"][1]), "sha256": says["int8_sha256"]}
            members.append(document)
            said = _object(onnx, model["data"]) if model["data"] is not None else {}
            sidecars.append(said if said.get("sha256", document["sha256"]) == document["sha256"] else {})
        others = [row for row in self.registry.entries if row.id not in rows]
        if any(row.id == name for row in others):
            raise _Broken(f"{path}: the entry {name} is none of its members: give one of them another id")
        new = {key: value for key, value in manifest.items() if key != "smoke"} | {"members": members}
        for key, theirs in SHARED:
            values = [sidecar.get(theirs) for sidecar in sidecars]
            if values[0] is not None and values[0] != new.get(key) and all(value == values[0] for value in values):
                new[key] = values[0]
                self.corrected.add((path, key))
        new["migration"] = {"imported_from": self.digest, **self._originals(path, digest, at)}
        data = dump(new)
        folder = f"{name}/{sha256_of(data)[:12]}"
        write_atomic(self.stage / at / "manifest.json", data, root=self.stage)
        (self.stage / at).rename(self.stage / folder)
        entry: dict[str, Json] = {"id": name, "kind": kind, "manifest": f"{folder}/manifest.json"}
        entry |= {"sha256": sha256_of(data), "smoke": True}
        for key in SAME:
            values = [row.document.get(key) for row in rows.values()]
            if values and values[0] and all(value == values[0] for value in values):
                entry[key] = values[0]
        if any(row.is_production for row in rows.values()):
            version = self.registry.schema_version
            reason = f"joined from {len(rows)} entries of version {version}: no evidence came along"
            entry["demotion"] = {"reason": reason, "manifest_sha256": sha256_of(data)}
        self.pinned["manifests"] += 1
        return Joined(Entry.from_dict(entry), path, tuple(rows))

    def _originals(self, path: str, digest: str, at: str) -> dict[str, Json]:
        """The loose manifest, and the verdicts named after it, kept and pinned as they were."""

        def keep(source: str, digest: str | None = None) -> dict[str, Json]:
            target = f"{ORIGINALS}/{posixpath.basename(source)}"
            self._take(source, digest, f"{at}/{target}", JSON_MAX_BYTES)
            return {"path": target, "sha256": self.taken[source]}

        kept: dict[str, Json] = {"manifest": keep(path, digest)}
        stem_, files = path.removesuffix(".json"), json_files(self.folder, self.loaded)
        verdicts = [keep(p) for p in files if p != path and p.startswith(stem_) and self._is_verdict(p)]
        return kept | ({"verdicts": verdicts} if verdicts else {})

    def _is_verdict(self, path: str) -> bool:
        try:
            return _object(path, self.folder.read(path, JSON_MAX_BYTES)).get("verdict") in ("PROMOTE", "HOLD")
        except (_Broken, FileProblem):
            return False

    # ---- holes ----------------------------------------------------------------------------------------------------

    def holes(self, before: Iterable[Finding], after: Iterable[Finding]) -> Iterator[Hole]:
        """What was wrong with the old registry, with what became of it; then what is wrong with the new one alone."""
        after = list(after)
        still = {(finding.code, finding.entry) for finding in after}
        sources = {one.source for one in self.joined}
        for finding in before:
            yield Hole(finding, "" if (finding.code, finding.entry) in still else self._mended(finding, sources))
        known = {(finding.code, finding.entry) for finding in before}
        for path, why in sorted(self.refused.items()):
            yield Hole(NOT_JOINED.at(path, reason=why))
        yield from (Hole(finding) for finding in after if (finding.code, finding.entry) not in known)

    def _mended(self, finding: Finding, sources: set[str]) -> str:
        code, file = finding.code, finding.file or ""
        if finding.entry is not None and finding.entry in self.broken:
            return ""
        if code == "file-unregistered":
            return "left behind"
        if code == "loose-verdict" and file not in self.taken:
            return ""
        if code in ("digest-mismatch", *LOOSE) and file not in sources:
            return ""
        if code == "loose-sidecar-disagrees" and (file, (finding.pointer or "")[1:]) not in self.corrected:
            return ""
        return MENDED.get(code, "")


def _object(path: str, data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes, or _Broken."""
    try:
        value = parse(data).value
    except JsonProblem as problem:
        raise _Broken(f"{path}: {problem}") from problem
    if not isinstance(value, dict):
        raise _Broken(f"{path}: found no JSON object, expected one")
    return value
