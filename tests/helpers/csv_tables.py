"""csv_tables.py: rows of a CSV as a test changes them: read, and written again. Tests nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_csv(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = (), delimiter: str = ",") -> Path:
    """columns: those of the first row where none are given."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or [*rows[0]], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path
