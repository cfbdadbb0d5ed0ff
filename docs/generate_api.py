"""generate_api.py: docs/reference/api.md, what `import registry_tool` offers, from its docstrings. Adds no description.

`python docs/generate_api.py` writes the page, `--check` only compares (exit 1 where it is not current).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import publish

import registry_tool
from registry_tool import errors, findings

PAGE = Path(__file__).parent / "reference" / "api.md"
CLASSES = (registry_tool.Registry, registry_tool.Model, registry_tool.Prediction)
VALUES = (registry_tool.Validation, registry_tool.Verdict, findings.Finding)
ERRORS = (errors.RegistryError, errors.InputError, errors.RejectedError, errors.WorldError, errors.PluginError)
INTRO = """\
# Python API

What a program finds in `import registry_tool`, made from the docstrings: `python docs/generate_api.py`. Importing it
loads nothing; a name is loaded when it is used. It reads and judges, and never writes.

```python
import registry_tool

registry = registry_tool.open("model/registry.json")
model = registry.load("fr_vmaf_ensemble_v1")
prediction = model.predict(
    {
        "adm2": [0.98, 0.91],
        "vif_scale0": [0.81, 0.42],
        "vif_scale1": [0.95, 0.80],
        "vif_scale2": [0.97, 0.88],
        "vif_scale3": [0.98, 0.92],
        "motion2": [4.1, 4.1],
        "encoder": ["libx264", "libx264"],
    },
    levels=[0.8, 0.95],
)
for mu, low, high in zip(prediction.mu, *prediction.interval(0.95)):
    print(f"{mu:.1f} ({low:.1f} to {high:.1f})")

print(registry.gate("fr_vmaf_ensemble_v1").decision)
for finding in registry.validate(level="quick").findings:
    print(finding)
```

These names, their parameters and the meaning of what they give stay until the next major release.
"""


def render() -> str:
    """The page: `open`, the classes, the values they give, the errors."""
    parts = [INTRO, *_function("registry_tool.open", registry_tool.open)]
    for kind in CLASSES:
        parts += [f"## {kind.__name__}", "", _text(kind), ""]
        for name, member in vars(kind).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                parts += _function(f"{kind.__name__}.{name}", member)
    parts += ["## What they give", ""]
    for kind in VALUES:
        parts += [f"### {kind.__name__}", "", _text(kind), ""]
    parts += ["## Errors", "", "Each is one line for a person; all are in `registry_tool.errors`.", ""]
    parts += [f"- `{kind.__name__}`: {_text(kind).splitlines()[0]}" for kind in ERRORS]
    return "\n".join(parts) + "\n"


def _function(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        annotation = inspect.signature(member.fget).return_annotation if member.fget else ""
        yield from (f"### {name}: {annotation}", "", _text(member), "")
    else:
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(member)))
        signature = re.sub(r"\(self(, )?", "(", signature)
        yield from (f"### {name}{signature}", "", _text(member), "")


def _text(item: Any) -> str:
    """Its docstring, paragraphs as they are, each parameter's line on its own."""
    return inspect.getdoc(item) or ""


if __name__ == "__main__":
    publish(PAGE, render)
