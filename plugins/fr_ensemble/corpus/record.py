"""record.py: what the parquet of a corpus says of how it was made. Knows no rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from registry_tool.toolkit import read_metadata

RECORD_KEY = "fr_ensemble.corpus"  # of a parquet's metadata: how the corpus was made, as JSON


def read_record(path: Path) -> dict[str, Any] | None:
    """What `corpus build` or `import` wrote into a parquet about its making; None elsewhere."""
    try:
        found = json.loads(read_metadata(path, RECORD_KEY) or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
