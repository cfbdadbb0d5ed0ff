"""export.py: the story of `registry export`: an entry in the folder layout of another program's loader. No click.

The layout `libvmaf` is the public one: a registry.json of version 1, each model with a sidecar of its name. An ensemble
is its members there, beside a manifest. What is written is validated first, and appears whole or not at all.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_tool.checks.registry import check
from registry_tool.checks.runtimes import RUNTIMES
from registry_tool.documents import store
from registry_tool.documents.entries import VerifiedEntry
from registry_tool.documents.manifest import CalibrationFacts, Manifest
from registry_tool.documents.store import Loaded
from registry_tool.errors import InputError, RejectedError
from registry_tool.findings import errors_of
from registry_tool.hookspec import Level
from registry_tool.legacy.members import SHARED_FIELDS
from registry_tool.plugins.manager import Plugins
from registry_tool.plugins.sidecars import ENCODER_COLUMN_PREFIX
from registry_tool.storage.staging import NewFolder
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import dump
from registry_tool.values import Json
from registry_tool.workflows.loading import entry_for_use, inspected

LIBVMAF_LAYOUT = "libvmaf"
MEMBER_KIND = "fr"
PUBLIC_KINDS = ("fr", "nr", "filter")
ENSEMBLE_FIELDS = (
    "ensemble_size",
    "feature_order",
    "feature_mean",
    "feature_std",
    "codec_vocab",
    "codec_vocab_version",
)
PUBLIC_FIELDS = (  # of the public schema, which refuses others; but for its signature, which is over another registry
    *("id", "kind", "onnx", "sha256", "opset", "notes", "smoke", "license", "license_url", "description"),
    *("quant_mode", "quant_calibration_set", "int8_sha256", "quant_accuracy_budget_plcc"),
)
DESCRIBING_FIELDS = ("license", "license_url", "description", "notes")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the ids of the models, and every file."""

    models: tuple[str, ...]
    files: tuple[str, ...]


def export(loaded: Loaded, plugins: Plugins, entry_id: str, output: Path, *, allow_smoke: bool) -> Exported:
    """Write an entry in the layout of libvmaf to a new or empty folder.

    Raises InputError for an entry that the layout cannot hold, RejectedError for one that may not be used or that
    libvmaf does not load.
    """
    with inspected(loaded, plugins) as inspection:
        view = entry_for_use(inspection, entry_id, "say --allow-smoke", allow_smoke=allow_smoke)
        _require_loadable(view)
        files, models = _ensemble(view) if view.entry.manifest else _single(view)
    document = {"schema_version": 1, "models": sorted(models, key=lambda model: str(model["id"]))}
    files["registry.json"] = dump(document)
    with NewFolder(output) as made:
        for path, data in files.items():
            write_atomic(made.path / path, data, root=made.path)
        found = check(store.load(made.path / "registry.json"), plugins, Level.FULL)
        if errors := errors_of(found):
            raise RejectedError(f"{entry_id}: it would not validate in that layout: {errors[0]}", errors)
        made.publish()
    return Exported(tuple(str(model["id"]) for model in models), tuple(sorted(files)))


def _require_loadable(view: VerifiedEntry) -> None:
    runtime = RUNTIMES[LIBVMAF_LAYOUT]
    fused = (view.manifest or {}).get("fused", {}).get("onnx") if view.entry.manifest else None
    for name in (path for path in view.paths if path.endswith(".onnx") and path != fused):
        summary = view.onnx(name)
        for reason, expected in runtime.refusals(summary):
            raise RejectedError(
                f"{view.entry.id}: {name}: libvmaf does not load it: found {reason}, expected {expected}"
            )
        if summary.external:
            raise InputError(f"{view.entry.id}: {name} has weights in other files, which that layout does not pin")


def _single(view: VerifiedEntry) -> tuple[dict[str, bytes], list[dict[str, Json]]]:
    """The model as it is, with its sidecar."""
    document, onnx = view.entry.document, str(view.entry.onnx)
    if view.entry.kind not in PUBLIC_KINDS:
        raise InputError(f"{view.entry.id}: kind {view.entry.kind!r}: that layout has {', '.join(PUBLIC_KINDS)}")
    if view.sidecar is None:
        raise InputError(f"{view.entry.id}: it has no sidecar, expected one: libvmaf reads its inputs from there")
    names = {path: posixpath.basename(path) for path in view.paths if path.endswith((".onnx", ".json"))}  # no evidence
    files = {name: view.read(path) for path, name in names.items()}
    if view.sidecar not in names:
        raise InputError(
            f"{view.entry.id}: its sidecar is not pinned, expected it pinned: `registry migrate` does that"
        )
    fields = {name: value for name, value in document.items() if name in PUBLIC_FIELDS}
    return files, [{**fields, "onnx": names[onnx]}]


def _ensemble(view: VerifiedEntry) -> tuple[dict[str, bytes], list[dict[str, Json]]]:
    """Its members, each with a sidecar, and a manifest beside them."""
    manifest: Mapping[str, Json] = view.manifest or {}
    if not {"members", "codec_block", *ENSEMBLE_FIELDS} <= manifest.keys():
        raise InputError(f"{view.entry.id}: kind {view.entry.kind!r}: that layout has no place for it")
    _refuse_offset(view, Manifest.of(manifest).calibration)
    files: dict[str, bytes] = {}
    models: list[dict[str, Json]] = []
    sidecar = dict(_shared(view, manifest))
    for member in manifest["members"]:
        name = f"{member['id']}.onnx"
        own = {
            "id": member["id"],
            "kind": MEMBER_KIND,
            "onnx": name,
            "seed": member["seed"],
            "sha256": member["sha256"],
        }
        files[name] = view.read(member["onnx"])
        files[f"{member['id']}.json"] = dump({**sidecar, **own})
        described = {key: view.entry.document[key] for key in DESCRIBING_FIELDS if key in view.entry.document}
        fields = {key: own[key] for key in ("id", "kind", "onnx", "sha256")}
        models.append({**described, **fields, "opset": manifest["opset"], "smoke": view.entry.smoke})
    kept = {name: manifest[name] for name in (*ENSEMBLE_FIELDS, "confidence") if name in manifest}
    members = [{**member, "onnx": f"{member['id']}.onnx"} for member in manifest["members"]]
    identity = {"id": view.entry.id, "kind": view.entry.kind, "members": members, "smoke": view.entry.smoke}
    files[f"{view.entry.id}.json"] = dump({**kept, **identity})
    return files, models


def _refuse_offset(view: VerifiedEntry, calibration: CalibrationFacts | None) -> None:
    """A loader of that layout takes the members' mean: it would know the intervals, and not where their middle is."""
    if calibration is not None and calibration.offset:
        parent = calibration.parent
        raise InputError(
            f"{view.entry.id}: its offset of {calibration.offset:+.4g} is in its fused graph, that layout has members "
            f"alone: export one calibrated without --offset: `registry calibrate {parent} --corpus FILE --id NEW`"
        )


def _shared(view: VerifiedEntry, manifest: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """What the sidecars of all members say."""
    conditions = [column for column in manifest["codec_block"] if column["transform"] != "onehot"]
    scaled = [c["name"] for c in conditions if (c["transform"], c["mean"], c["std"]) != ("none", 0.0, 1.0)]
    if scaled:
        raise InputError(
            f"{view.entry.id}: its members take {', '.join(scaled)} transformed or scaled, which no sidecar says: "
            "train it with --member-conditions raw"
        )
    for field, name in SHARED_FIELDS:
        yield name, manifest[field]
    slots = [f"{ENCODER_COLUMN_PREFIX}{name}]" for name in manifest["codec_vocab"]]
    yield "codec_block_layout", [*slots, *(column["name"] for column in conditions)]
    yield from {"codec_aware": True, "ensemble_id": view.entry.id, "opset": manifest["opset"]}.items()
    yield from {"input_names": list(manifest["inputs"]), "output_names": list(manifest["outputs"])}.items()
