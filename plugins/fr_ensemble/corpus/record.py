"""record.py: what a corpus says of how it was made, and by which model its scores are. Knows no rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fr_ensemble.corpus.vmaf_models import canonical
from registry_tool.errors import InputError
from registry_tool.toolkit import Columns, read_metadata, read_rows
from registry_tool.values import Json

RECORD_KEY = "fr_ensemble.corpus"  # of a parquet's metadata: how the corpus was made, as JSON
MODEL_COLUMN = "vmaf_model"  # of a corpus without metadata, as vmaf-tune writes it too: the model, in every row
DEFINED_TARGETS = ("vmaf", "vmaf_score")  # columns that a VMAF model computed
MAX_NAME = 128  # characters of a definition, as in a manifest's schema


@dataclass(frozen=True, slots=True)
class Definition:
    """What a target is: the model that scored it (`vmaf_v0.6.1`), and libvmaf's version, "" where it is not known."""

    model: str
    libvmaf: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"definition": self.model} | ({"libvmaf": self.libvmaf} if self.libvmaf else {})


def read_record(path: Path) -> dict[str, Json] | None:
    """What `corpus build` or `import` wrote into a parquet about its making; None elsewhere."""
    try:
        found = json.loads(read_metadata(path, RECORD_KEY) or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_definition(path: Path, target: str | None) -> Definition | None:
    """By which model a corpus's target is: from its column MODEL_COLUMN, else from its record; None where neither says.

    Raises InputError for a column that names two models.
    """
    if target not in DEFINED_TARGETS:
        return None
    return _of_column(path) or definition_in(read_record(path))


def definition_in(record: Mapping[str, Json] | None) -> Definition | None:
    """The definition in a record of `corpus build` or `import`, or in its settings."""
    record = record or {}
    model, versions = record.get("model"), record.get("libvmaf")
    if not isinstance(model, str) or not model:
        return None
    known = [versions] if isinstance(versions, str) else versions if isinstance(versions, list) else []
    libvmaf = ", ".join(str(version) for version in known)
    return Definition(canonical(model)[:MAX_NAME], libvmaf if len(libvmaf) <= MAX_NAME else "")


class _Stop(Exception):
    """What was asked is known."""


def column_names(path: Path) -> list[str]:
    """The names of a file's columns; no more of it is read than says them."""
    names: list[str] = []

    def pick(found: Sequence[str]) -> Columns:
        names.extend(found)
        raise _Stop

    with suppress(_Stop):
        next(read_rows(path, pick, 1))
    return names


def _of_column(path: Path) -> Definition | None:
    import numpy as np

    if MODEL_COLUMN not in column_names(path):
        return None
    first: str | None = None
    for batch in read_rows(path, lambda _: Columns((), (MODEL_COLUMN,))):
        text = batch.texts[MODEL_COLUMN]
        names = [canonical(name) for name in text.names]
        first = names[text.codes[0]] if first is None else first
        other = np.isin(text.codes, [code for code, name in enumerate(names) if name != first])
        if other.any():
            index = int(other.argmax())
            raise InputError(
                f"{batch.place(index)}, column {MODEL_COLUMN}: found {names[text.codes[index]] or 'nothing'!r}, rows "
                f"before it have {first or 'nothing'!r}, expected one model in a corpus: leave the rows of one out"
            )
    return Definition(first[:MAX_NAME]) if first else None
