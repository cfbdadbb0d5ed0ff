"""forging.py: a program that calibrates with a step of a forger's. Asserts nothing but that it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from fr_ensemble.hooks import calibrate as hook
from sandbox import Sandbox

from registry_tool.errors import PluginError
from registry_tool.hookspec import CalibrateRequest, Trained
from registry_tool.workflows.calibrate import calibrate

Forge = Callable[..., Any]  # a step of hooks/calibrate.py, given the honest one as `make`


def edited(change: Callable[[dict[str, Any]], object], *places: str) -> Forge:
    """The step `make` with a manifest that is changed in place, or what it has at these places one inside the other."""

    def forge(parent: hook.Parent, entry_id: str, measured: hook.Measured, make: Forge) -> Trained:
        trained: Trained = make(parent, entry_id, measured)
        manifest = part = json.loads(json.dumps(trained.manifest))
        for place in places:
            part = part[place]
        change(part)
        return replace(trained, manifest=manifest)

    return forge


def refused(monkeypatch: pytest.MonkeyPatch, box: Sandbox, request: CalibrateRequest, step: str, forge: Forge) -> str:
    """Why an entry is not written that is calibrated with another step."""
    monkeypatch.setattr(hook, step, partial(forge, make=getattr(hook, step)))
    with pytest.raises(PluginError) as caught:
        calibrate(box.path, box.plugins, "tiny", request)
    return str(caught.value)
