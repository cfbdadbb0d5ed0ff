"""inventory.py: what lies in the folder: unregistered files, colliding names, unused runs. Writes nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from posixpath import dirname

from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.storage.files import Folder, InventoryItem
from registry_tool.storage.paths import FileProblem
from registry_tool.values import Registry

MODEL_SUFFIXES = (  # models and weights of other formats, some of which run code when they are loaded
    ".onnx",
    ".data",
    ".onnx_data",
    ".ort",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".safetensors",
    ".bin",
    ".tflite",
    ".h5",
    ".hdf5",
    ".keras",
    ".pb",
    ".gguf",
    ".mlmodel",
    ".pdparams",
    ".engine",
    ".trt",
    ".plan",
    ".torchscript",
    ".caffemodel",
    ".weights",
    ".mnn",
    ".dlc",
    ".rknn",
)
OTHER_REGISTRY = re.compile(r"(?:.*/)?\.?registry\.json.+\Z")  # what an editor or a killed program left beside it
ARTIFACT_FOLDER = re.compile(r"[^/]+/[0-9a-f]{12}\Z")

NAME_COLLISION = FindingRule(
    "name-collision",
    "names that collide on other file systems",
    why="A checkout on macOS or Windows keeps only one of the files.",
    message="{name!r} and {other!r} are one name on other file systems",
    hint="rename one of them",
    example="Model.onnx and model.onnx",
)
FOLDER_UNUSED = FindingRule(
    "folder-unused",
    "unused folder of a training run",
    why="It only takes room.",
    message="no entry uses this training run",
    hint="`registry prune` removes it",
    example="ens_v1/3f9c0a7b21de",
    severity=Severity.NOTE,
)
UNREGISTERED = FindingRule(
    "file-unregistered",
    "unregistered file",
    why="A program may load it by name, although no check covers it.",
    message="unregistered file: no entry pins it",
    hint="register it, or remove it",
    example="old_model.onnx",
    severity=Severity.WARNING,
)


def list_files(folder: Folder) -> list[InventoryItem] | Finding:
    try:
        return folder.inventory()
    except FileProblem as problem:
        return problem.at(".")


def check_inventory(items: Sequence[InventoryItem], known: set[str], registry: Registry) -> Iterator[Finding]:
    """What lies in the registry's folder and should not: models that nothing pins, names that collide, old runs."""
    named = {dirname(e.manifest) for e in registry.entries if e.manifest}
    unused = set(unused_runs(items, registry)) if registry.schema_version >= 2 else set()
    seen: dict[str, str] = {}
    for path, kind in items:
        key = one_name(path)
        if key in seen:
            yield NAME_COLLISION.at(path, name=path, other=seen[key])
        seen[key] = path
        if (path in known or _is_gits(path, known)) and path not in unused:
            continue
        run = "/".join(path.split("/", 2)[:2])
        owner = run if ARTIFACT_FOLDER.match(run) else None
        if path in unused:
            yield FOLDER_UNUSED.at(path)
        elif (
            owner not in unused
            and kind != "folder"
            and (
                owner in named
                or kind == "symlink"
                or path.lower().endswith(MODEL_SUFFIXES)
                or OTHER_REGISTRY.match(path)
            )
        ):
            yield UNREGISTERED.at(path)


def _is_gits(path: str, known: set[str]) -> bool:
    """Whether it tells git or DVC about a file that is pinned: no program takes it for a model."""
    return path.rpartition("/")[2] == ".gitignore" or (path.endswith(".dvc") and path.removesuffix(".dvc") in known)


def one_name(text: str) -> str:
    """What a file system that ignores case or Unicode forms takes for the same name."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def unused_runs(items: Iterable[InventoryItem], registry: Registry) -> list[str]:
    """Artefact folders (ID/DIGEST with a manifest.json in it) in which no entry pins anything."""
    paths = {item.path for item in items}
    used = {dirname(entry.path) for entry in registry.entries}
    used |= {dirname(pin["path"]) for entry in registry.entries for pin in entry.document.get("external_data", ())}
    runs = [path for path in sorted(paths) if ARTIFACT_FOLDER.match(path) and f"{path}/manifest.json" in paths]
    return [run for run in runs if not any(folder == run or folder.startswith(f"{run}/") for folder in used)]
