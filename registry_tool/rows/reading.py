"""reading.py: parquet, JSON lines and CSV as batches of columns. Knows formats and places, not what a column means."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO

from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Progress, silent
from registry_tool.rows import columnar, exact
from registry_tool.tables import BATCH_ROWS, Pick, RowBatch

STREAM_NAME = "standard input"  # what messages call it


def read_rows(path: Path, pick: Pick, batch_rows: int = BATCH_ROWS, progress: Progress = silent) -> Iterator[RowBatch]:
    """Batches of at most `batch_rows` rows, one in memory at a time.

    progress: `reading`, after each batch, in rows of a parquet or bytes of text. Raises InputError with one line for a
    file without rows and for a file, a row or a column that cannot be used, WorldError for a broken disk.
    """
    readers = {".parquet": columnar.read_parquet, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(readers)
        raise InputError(f"{path}: found the extension {path.suffix!r}, expected one of {known}: convert or rename it")
    try:
        path.open("rb").close()
        yield from _with_rows(reader(path, pick, batch_rows, progress), path)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected a file of rows: name the file in it") from None
    except UnicodeDecodeError as error:
        message = f"{path}: found a byte that is not UTF-8 ({error.reason}), expected {path.suffix[1:].upper()} text"
        raise InputError(f"{message}: save it as UTF-8 or give its right extension") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror or error}): check the file and its disk") from error


def read_stream(stream: IO[bytes], pick: Pick, batch_rows: int = BATCH_ROWS) -> Iterator[RowBatch]:
    """The same of standard input, CSV or JSON lines, read no further than a batch needs."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    try:
        yield from _with_rows(exact.stream_batches(text, STREAM_NAME, pick, batch_rows), STREAM_NAME)
    except UnicodeDecodeError as error:
        message = f"{STREAM_NAME}: found a byte that is not UTF-8 ({error.reason}), expected CSV or JSON lines"
        raise InputError(f"{message}: a parquet is read as a file alone: name the file") from None
    except OSError as error:
        raise WorldError(f"{STREAM_NAME}: cannot be read ({error.strerror or error})") from error
    finally:
        text.detach()  # the stream is not ours to close


def _with_rows(batches: Iterator[RowBatch], place: Path | str) -> Iterator[RowBatch]:
    first = next(batches, None)
    if first is None:
        raise InputError(f"{place}: found no rows, expected at least one: is it the right file?")
    yield first
    yield from batches


def read_metadata(path: Path, key: str) -> str | None:
    """What a parquet's metadata says at a key; None where it says nothing, and for other files."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import parquet

    found = (parquet.read_schema(path).metadata or {}).get(key.encode())
    return None if found is None else found.decode("utf-8", "replace")


def _read_csv(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    """Columnar as far as that goes, line by line from there on."""
    header, lines = exact.read_header(path)
    if not header:
        return
    columns = pick(header)
    position: exact.Position | None = exact.Position(0, 0, 1)
    if columns.names and _has_pyarrow():
        position = yield from columnar.csv_batches(path, columns, header, lines, batch_rows, progress)
    if position is not None:
        yield from exact.csv_batches(path, columns, header, position, batch_rows, progress)


def _read_jsonl(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    keys = exact.read_keys(path)
    if keys is None:
        return
    columns = pick(keys)
    position: exact.Position | None = exact.Position(0, 0)
    if columns.names and _has_pyarrow():
        position = yield from columnar.jsonl_batches(path, columns, batch_rows, progress)
    if position is not None:
        yield from exact.jsonl_batches(path, columns, position, batch_rows, progress)


def _has_pyarrow() -> bool:
    try:
        import_module("pyarrow")
    except ImportError:
        return False
    return True
