"""split.py: sets some sources of a corpus aside, whole ones, never rows. Changes no row."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fr_ensemble.corpus.sources import count_sources
from registry_tool.errors import InputError
from registry_tool.toolkit import FORMATS, Columns, format_of, output_file, read_rows, write_rows
from registry_tool.values import Json


def choose(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """About this share of the sources, at least one and never all; the same for the same names and seed."""
    if len(names) < 2:
        raise InputError(f"found {len(names)} source, expected at least two: one of them is set aside")
    n = min(max(round(share * len(names)), 1), len(names) - 1)
    return frozenset(random.Random(seed).sample(sorted(names), n))


def split(path: Path, column: str, aside: frozenset[str], outputs: Mapping[bool, Path]) -> dict[bool, int]:
    """Writes the rows of the sources set aside to outputs[True], the others' to outputs[False]: how many each has.

    Both have the file's columns and its format, where it is one of FORMATS; of a parquet, types and metadata too.
    Raises InputError for another format.
    """
    form = path.suffix.lower().removeprefix(".")
    known = [form] if form in FORMATS else list(FORMATS)
    for output in outputs.values():
        if format_of(output) not in known:
            expected = " or ".join(f".{name}" for name in known)
            raise InputError(f"{output}: found the extension {output.suffix!r}, expected {expected} for rows of {path}")
    if form == "parquet":
        return _split_parquet(path, column, aside, outputs)
    return {part: write_rows(_rows(path, column, aside, part), output) for part, output in outputs.items()}


def sources_of(path: Path, column: str) -> list[str]:
    """The sources of a file, sorted. Raises InputError for a row without one, which belongs to neither part."""
    return sorted(count_sources(path, {"src": column}))


def _rows(path: Path, column: str, aside: frozenset[str], part: bool) -> Iterator[Mapping[str, list[Json]]]:
    """The rows of one part, as the file has them."""
    names: list[str] = []

    def pick(found: Sequence[str]) -> Columns:
        names.extend(found)
        return Columns((), (column,), tuple(found))

    for batch in read_rows(path, pick):
        kept = [i for i, source in enumerate(batch.texts[column].tolist()) if (source in aside) is part]
        yield {name: [batch.values[name][i] for i in kept] for name in names}


def _split_parquet(path: Path, column: str, aside: frozenset[str], outputs: Mapping[bool, Path]) -> dict[bool, int]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    file, counts = parquet.ParquetFile(path), {True: 0, False: 0}
    wanted = pa.array(sorted(aside), pa.string())
    with ExitStack() as stack:
        streams = {part: stack.enter_context(output_file(output)) for part, output in outputs.items()}
        writers = {
            part: stack.enter_context(parquet.ParquetWriter(stream, file.schema_arrow, compression="zstd"))
            for part, stream in streams.items()
        }
        for batch in file.iter_batches():
            inside = pc.is_in(batch.column(column).cast(pa.string()), value_set=wanted)
            for part, writer in writers.items():
                rows = batch.filter(inside if part else pc.invert(inside))
                counts[part] += rows.num_rows
                if rows.num_rows:
                    writer.write_batch(rows)
    return counts
