"""registry-tool: governance for model registries kept in git.

For programs:

    import registry_tool

    registry = registry_tool.open("model/registry.json")  # reads and checks the document
    registry.validate()  # every byte and every claim: a Validation with findings
    registry.gate("fr_vmaf_ensemble_v1")  # its evidence, judged now: a Verdict
    model = registry.load("fr_vmaf_ensemble_v1")  # verified bytes; production only, unless allow_smoke=True
    prediction = model.predict({"adm2": [0.98], ..., "encoder": ["libx264"]})
    prediction.mu, prediction.lower, prediction.upper  # numpy arrays, one value a row

Everything else that is public is for those who write plugins: `hookspec`, `values`, `findings`, `errors`, `figures`,
`toolkit`, `strictjson`, `onnx_summary`, `archive`, `measures`, and the packages `schemas` and `testing`. Any other
folder is private.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from registry_tool.version import __version__ as __version__

if TYPE_CHECKING:
    from registry_tool.api import Model as Model
    from registry_tool.api import Prediction as Prediction
    from registry_tool.api import Registry as Registry
    from registry_tool.api import Validation as Validation
    from registry_tool.api import Verdict as Verdict
    from registry_tool.api import open as open

# Releases of onnxruntime report their use to its maker. They read this when they are loaded; what a user set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Model", "Prediction", "Registry", "Validation", "Verdict", "__version__", "open"]


def __getattr__(name: str) -> Any:
    """The names above, imported when they are used: `import registry_tool` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from registry_tool.errors import need_linux

    need_linux()
    from registry_tool import api

    return getattr(api, name)
