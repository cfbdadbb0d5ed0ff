"""thumbs.py: the smallest plugin there is, and how a test puts a plugin of its own beside the installed ones."""

from __future__ import annotations

from typing import Any

from policies import MANUAL
from sandbox import Sandbox, sha256, to_json

from registry_tool.hookspec import Kind, hookimpl
from registry_tool.plugins.manager import Plugins, load


class Thumbs:
    """The smallest plugin that provides a kind of its own: `thumb`, one ONNX file."""

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("thumb", "thumbnail rankers")]


def with_plugin(plugin: object, name: str = "extra") -> Plugins:
    """A fresh manager with the installed plugins and one more."""
    loaded = load()
    loaded.add(plugin, name, "7")
    return loaded


def put_sidecar(thumb: Sandbox, fields: dict[str, Any]) -> None:
    """Give the entry a sidecar with these fields and pin it; a person decides about its kind."""
    sidecar = to_json({"id": "t", "kind": "thumb", **fields})
    (thumb.folder / "t.json").write_bytes(sidecar)
    document = thumb.registry
    document["policies"] = {"thumb": MANUAL}
    document["models"][0]["sidecar_sha256"] = sha256(sidecar)
    thumb.path.write_bytes(to_json(document))
