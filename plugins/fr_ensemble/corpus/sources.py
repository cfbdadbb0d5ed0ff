"""sources.py: how many rows each source of a corpus file has: what summaries can be held against. Knows no features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fr_ensemble.arrays import rows_by_name
from fr_ensemble.corpus.digest import file_sha256
from fr_ensemble.corpus.rows import Corpus, require_names
from registry_tool.toolkit import Columns, missing_column, read_rows


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows by source. sha256: of the file, None for random rows. rows_sha256: None where the columns are not known."""

    n: Mapping[str, int]
    sha256: str | None
    rows_sha256: str | None = None

    @classmethod
    def of(cls, corpus: Corpus) -> SourceRows:
        return cls(rows_by_name(corpus.source, corpus.sources), corpus.sha256, corpus.rows_sha256)


def read_sources(path: Path, names: Mapping[str, str]) -> SourceRows:
    """From the column `src` alone; names: as of `read_rows`. Raises InputError for a file that cannot be used."""
    return SourceRows(count_sources(path, names), file_sha256(path))


def count_sources(path: Path, names: Mapping[str, str]) -> dict[str, int]:
    """The rows of each source. Raises InputError for a row without one, and for a file that cannot be used."""

    def columns(found: Sequence[str]) -> Columns:
        if "src" not in found:
            raise missing_column(path, "src", found)
        return Columns(texts=("src",))

    n: Counter[str] = Counter()
    for batch in read_rows(path, columns, names=names):
        text = batch.texts["src"]
        require_names(text, "src", batch.place, names.get("src", "src"))
        n.update(rows_by_name(text.codes, text.names))
    return dict(n)
