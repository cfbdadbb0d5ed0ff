"""sketches.py: a plugin that owns `sketch`, a kind with a manifest that pins one model, and trains it in no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_models
from thumbs import with_plugin

from registry_tool.hookspec import Kind, Trained, TrainRequest, hookimpl
from registry_tool.plugins.manager import Plugins
from registry_tool.values import Policy, Rule
from registry_tool.workflows import train as train_workflow
from registry_tool.workflows.train import Registered

MODEL = tiny_models.model().SerializeToString()
DEFAULT = Policy((Rule("score", ">=", 0.5),))
SCHEMA = {"type": "object", "required": ["id", "kind", "weights"], "properties": {"weights": {"type": "object"}}}


class Trainer:
    """Owns `sketch`, a kind with a manifest that pins one model; trains it in no time."""

    def __init__(self, model: bytes = MODEL, hurt: Callable[[], object] = lambda: None, **manifest: Any) -> None:
        self.model, self.hurt, self.more = model, hurt, manifest
        self.requests: list[TrainRequest] = []

    @hookimpl
    def registry_kinds(self) -> list[Kind]:
        return [Kind("sketch", "sketches", schema=SCHEMA, default_policy=DEFAULT)]

    @hookimpl
    def registry_train(self, request: TrainRequest) -> Trained:
        self.requests.append(request)
        self.hurt()
        manifest = {"id": request.entry_id, "kind": "sketch", "weights": {"onnx": "w.onnx"}, **self.more}
        return Trained({"w.onnx": self.model}, manifest, {"license": "MIT", "of_the_plugin": 1})


def train(path: Path, trainer: Any, entry_id: str = "s", plugins: Plugins | None = None, **more: Any) -> Registered:
    return train_workflow.train(path, plugins or with_plugin(trainer), TrainRequest("sketch", entry_id, **more))
