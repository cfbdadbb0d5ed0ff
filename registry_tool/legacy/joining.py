"""joining.py: one entry of version 2 from an unpinned manifest and the rows of its members. Writes to the stage."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from registry_tool.documents.entries import BrokenEntry, Reader, sha256_of, verify_entry
from registry_tool.documents.pinning import with_digests
from registry_tool.errors import InputError, PluginError
from registry_tool.findings import InFile
from registry_tool.legacy.manifests import json_files
from registry_tool.legacy.members import SHARED_FIELDS, misstated_z
from registry_tool.legacy.transfer import Transfer, TransferError, json_object
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import JSON_MAX_BYTES, dump
from registry_tool.values import EMPTY, ENTRY_ID, Entry, Json

STAGE_FOLDER = "joining"  # the folder of an ensemble until the digest of its manifest is known
ORIGINALS_FOLDER = "migrated"  # in it: the unpinned documents as they were
COMMON_FIELDS = ("license", "license_url", "description", "notes", "opset")  # kept where all rows agree on them


@dataclass(frozen=True, slots=True)
class UnpinnedManifest:
    """A manifest that no entry pins. path: in the old registry's folder. digest: of its bytes."""

    path: str
    digest: str
    document: Mapping[str, Json]

    @property
    def id(self) -> str:
        return str(self.document.get("id"))

    @property
    def stage_folder(self) -> str:
        return f"{self.id}/{STAGE_FOLDER}"

    def inside(self, path: str) -> str:
        """A path of the old registry, in the folder of the new entry."""
        return path.removeprefix(f"{posixpath.dirname(self.path)}/") if posixpath.dirname(self.path) else path


@dataclass(frozen=True, slots=True)
class TakenMember:
    """A member that was taken over. row: its entry, where it has one. sidecar: what its sidecar says of these bytes."""

    document: Mapping[str, Json]
    row: Entry | None
    sidecar: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Joined:
    """An ensemble made of the rows `members` and of the unpinned manifest at `source`.

    corrected: fields of that manifest in whose place the sidecars' were taken. completed: whether the kind's plugin
    added what it takes to use it; incomplete: why it could not.
    """

    entry: Entry
    source: str
    members: tuple[str, ...]
    corrected: frozenset[str] = frozenset()
    completed: bool = False
    incomplete: str = ""


def join(manifest: UnpinnedManifest, transfer: Transfer, *, complete: bool = True) -> Joined:
    """Take over the files, with the registry's pins. Raises TransferError, FileProblem, OnnxError.

    complete: whether the kind's plugin is asked for what it takes to use the ensemble.
    """
    registry = transfer.inspection.registry
    if not ENTRY_ID.match(manifest.id):
        raise TransferError(f"{manifest.path}: its id {manifest.id[:80]!r} cannot be an entry's: correct it")
    if not isinstance(manifest.document["members"], list):
        raise TransferError(f"{manifest.path}: its members are no list: correct it")
    members = [_take_member(member, manifest, transfer) for member in manifest.document["members"]]
    rows = {member.row.id: member.row for member in members if member.row is not None}
    if any(row.id == manifest.id for row in registry.entries if row.id not in rows):
        raise TransferError(
            f"{manifest.path}: the entry {manifest.id} is none of its members: give one of them another id"
        )
    corrected = dict(_corrections(manifest, members))
    kept = {key: value for key, value in manifest.document.items() if key != "smoke"}
    migration = {"imported_from": transfer.digest, **_take_originals(manifest, transfer)}
    joined = {**kept, "members": [member.document for member in members], **corrected, "migration": migration}
    data, incomplete = dump(joined), ""
    write_atomic(transfer.stage / manifest.stage_folder / "manifest.json", data, root=transfer.stage)
    try:
        completed = _completed(manifest, data, transfer) if complete else None
    except InputError as error:
        completed, incomplete = None, str(error)
    if completed is not None:
        data = completed
        write_atomic(transfer.stage / manifest.stage_folder / "manifest.json", data, root=transfer.stage)
    folder = f"{manifest.id}/{sha256_of(data)[:12]}"
    (transfer.stage / manifest.stage_folder).rename(transfer.stage / folder)
    transfer.pinned["manifests"] += 1
    document = {
        "id": manifest.id,
        "kind": manifest.document["kind"],
        "manifest": f"{folder}/manifest.json",
        "sha256": sha256_of(data),
        "smoke": True,
        **dict(_common_fields(tuple(rows.values()))),
    }
    if any(row.is_production for row in rows.values()):
        reason = f"joined from {len(rows)} entries of version {registry.schema_version}: no evidence came along"
        document["demotion"] = {"reason": reason, "manifest_sha256": sha256_of(data)}
    entry = Entry.from_dict(document)
    return Joined(entry, manifest.path, tuple(rows), frozenset(corrected), completed is not None, incomplete)


def _completed(manifest: UnpinnedManifest, data: bytes, transfer: Transfer) -> bytes | None:
    """The manifest as the kind's plugin completes it, whose files are written; None where it adds nothing.

    Raises InputError with the reason where it cannot be completed.
    """
    inspection, path = transfer.inspection, f"{manifest.stage_folder}/manifest.json"
    entry = Entry(manifest.id, str(manifest.document["kind"]), True, sha256_of(data), manifest=path)
    with Folder(transfer.stage) as folder:
        reader = Reader(folder, inspection.plugins.kinds, transfer.prober)
        view = verify_entry(reader, entry, InFile(path, entry.id), transfer.max_file_bytes(entry.kind))
        if isinstance(view, BrokenEntry):
            return None  # `check` says it of the new registry
        made = inspection.plugins.migrate(view)
        if made is None:
            return None
        kept = {name: view.read(name) for name in view.paths if name != "manifest.json"}
    if clash := sorted(made.files.keys() & {*kept, "manifest.json"}):
        raise InputError(f"{manifest.id}: {clash[0]} is the name of another file already: rename that file")
    try:
        completed = dump(with_digests(replace(made, files={**kept, **made.files})))
    except (FileProblem, TypeError, ValueError) as error:
        owner = inspection.plugins.owner(entry.kind).name
        raise PluginError(f"plugin {owner}: what it completed cannot be joined: {error}: report it") from error
    for name, content in made.files.items():
        write_atomic(transfer.stage / manifest.stage_folder / name, content, root=transfer.stage)
    return completed


def _take_member(member: Json, manifest: UnpinnedManifest, transfer: Transfer) -> TakenMember:
    if not isinstance(member, dict) or not isinstance(member.get("onnx"), str):
        raise TransferError(f"{manifest.path}: one of its members names no ONNX file: correct it")
    registry, path = transfer.inspection.registry, posixpath.join(posixpath.dirname(manifest.path), member["onnx"])
    by_file = {row.onnx: row for row in registry.entries if row.onnx}
    row = registry.entry(str(member.get("id"))) or by_file.get(path)
    onnx = (row.onnx if row else None) or path
    fields = row.document if row else EMPTY
    model = transfer.take_model(
        onnx,
        row.sha256 if row else str(member.get("sha256")),
        fields,
        str(manifest.document["kind"]),
        lambda old: f"{manifest.stage_folder}/{manifest.inside(old)}",
    )
    digest = transfer.taken[onnx]
    document: dict[str, Json] = {**member, "onnx": manifest.inside(onnx), "sha256": digest}
    if row is not None:
        document["row"] = {key: value for key, value in fields.items() if key not in ("onnx", "sha256")}

    def inside(pin: Mapping[str, Json]) -> dict[str, Json]:
        return {**pin, "path": manifest.inside(pin["path"])}

    if model.external_data:
        document["external_data"] = [inside(pin) for pin in model.external_data]
    document |= {key: inside(pin) for key, pin in (("sidecar", model.sidecar), ("bundle", model.bundle)) if pin}
    if len(model.graphs) > 1:
        document["int8"] = {"onnx": manifest.inside(model.graphs[1]), "sha256": fields["int8_sha256"]}
    sidecar = json_object(onnx, model.data) if model.data is not None else {}
    return TakenMember(document, row, sidecar if sidecar.get("sha256", digest) == digest else EMPTY)


def _corrections(manifest: UnpinnedManifest, members: Sequence[TakenMember]) -> Iterator[tuple[str, Json]]:
    """Fields that the members' sidecars agree on and the manifest has otherwise, as the sidecars have them; z."""
    for key, sidecar_key in SHARED_FIELDS:
        values = [member.sidecar[sidecar_key] for member in members if member.sidecar.get(sidecar_key) is not None]
        if values and values[0] != manifest.document.get(key) and all(value == values[0] for value in values):
            yield key, values[0]
    if (z := misstated_z(manifest.document)) is not None:
        yield "confidence", {**manifest.document["confidence"], "gaussian_z": z}


def _common_fields(rows: Sequence[Entry]) -> Iterator[tuple[str, Json]]:
    for key in COMMON_FIELDS:
        values = [row.document.get(key) for row in rows]
        if values and values[0] and all(value == values[0] for value in values):
            yield key, values[0]


def _take_originals(manifest: UnpinnedManifest, transfer: Transfer) -> dict[str, Json]:
    """The unpinned manifest, and the verdicts named after it, kept and pinned as they were."""

    def keep(source: str, digest: str | None = None) -> dict[str, Json]:
        target = f"{ORIGINALS_FOLDER}/{posixpath.basename(source)}"
        transfer.take(source, digest, f"{manifest.stage_folder}/{target}")
        return {"path": target, "sha256": transfer.taken[source]}

    kept: dict[str, Json] = {"manifest": keep(manifest.path, manifest.digest)}
    prefix, inspection = manifest.path.removesuffix(".json"), transfer.inspection
    named = (path for path in json_files(inspection.folder, inspection.loaded) if path.startswith(prefix))
    verdicts = [keep(path) for path in named if path != manifest.path and _is_verdict(path, transfer)]
    return kept | ({"verdicts": verdicts} if verdicts else {})


def _is_verdict(path: str, transfer: Transfer) -> bool:
    try:
        data = transfer.inspection.folder.read(path, JSON_MAX_BYTES)
        return json_object(path, data).get("verdict") in ("PROMOTE", "HOLD")
    except (TransferError, FileProblem):
        return False
