"""thumbs.py: the smallest plugin there is, and how a test puts a plugin of its own beside the installed ones."""

from __future__ import annotations

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
