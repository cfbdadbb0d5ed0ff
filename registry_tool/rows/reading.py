"""reading.py: tables in files as batches of columns. Knows formats and places, not what a column means."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from gzip import BadGzipFile
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import IO

from registry_tool.errors import InputError, WorldError
from registry_tool.rows import columnar, exact
from registry_tool.rows.batches import BATCH_ROWS, Columns, Pick, RowBatch, UnusableNumberError, missing_column
from registry_tool.values import EMPTY, Progress, silent

STREAM_NAME = "standard input"  # what messages call it


def read_rows(
    path: Path,
    pick: Pick,
    batch_rows: int = BATCH_ROWS,
    progress: Progress = silent,
    names: Mapping[str, str] = EMPTY,
) -> Iterator[RowBatch]:
    """Batches of at most `batch_rows` rows, one in memory at a time.

    names: what to call a column -> what the file calls it; the file's own column of that name is not there then.
    progress: `reading`, after each batch, in rows of a table or bytes of text. Raises InputError with one line for a
    file without rows and for a file, a row or a column that cannot be used, WorldError for a broken disk.
    """
    with _one_line(path):
        path.open("rb").close()
    reader = READERS.get(ending(path))
    if reader is None:
        known = f"{', '.join(READERS)}, or {GZIP_SUFFIXES[0]}.gz"
        raise InputError(f"{path}: found the extension {path.suffix!r}, expected one of {known}: convert or rename it")
    naming = _Naming(path, pick, names)
    with _one_line(path):
        try:
            yield from naming.rows(reader(path, naming.pick, batch_rows, progress))
        except UnusableNumberError as error:
            raise _counted(error, path, reader, naming.picked) from None


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What a file can do to its reader, as the one line that a user gets."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected a file of rows: name the file in it") from None
    except UnicodeDecodeError as error:
        place = f"{path}:{exact.line_without_utf8(path)}"
        message = f"{place}: found a byte that is not UTF-8 ({error.reason}), expected {ending(path)[1:].upper()} text"
        raise InputError(f"{message}: save it as UTF-8 or give its right extension") from None
    except (BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable gzip file ({error}): write it again") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror or error}): check the file and its disk") from error


def read_stream(
    stream: IO[bytes], pick: Pick, batch_rows: int = BATCH_ROWS, names: Mapping[str, str] = EMPTY
) -> Iterator[RowBatch]:
    """The same of standard input: CSV or JSON lines, read no further than a batch needs, or a JSON list of rows."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    naming = _Naming(STREAM_NAME, pick, names)
    try:
        yield from naming.rows(exact.stream_batches(text, STREAM_NAME, naming.pick, batch_rows))
    except UnicodeDecodeError as error:
        message = f"{STREAM_NAME}: found a byte that is not UTF-8 ({error.reason}), expected CSV or JSON"
        raise InputError(f"{message}: a parquet is read as a file alone: name the file") from None
    except OSError as error:
        raise WorldError(f"{STREAM_NAME}: cannot be read ({error.strerror or error})") from error
    finally:
        text.detach()  # the stream is not ours to close


class _Naming:
    """The columns of one table by the names that are asked for; see `read_rows`. picked: what is read."""

    def __init__(self, place: Path | str, pick: Pick, names: Mapping[str, str]) -> None:
        self._place, self._pick, self._names = place, pick, names
        self.picked = self._asked = Columns()

    def pick(self, found: Sequence[str]) -> Columns:
        """Raises InputError for a column that is not there."""
        names = self._names
        for name in names.values():
            if name not in found:
                raise missing_column(self._place, name, found)
        called = [*names, *(name for name in found if name not in names and name not in names.values())]
        self._asked = self._pick(called if names else found)
        self.picked = self._asked.called(names)
        return self.picked

    def rows(self, batches: Iterator[RowBatch]) -> Iterator[RowBatch]:
        """Raises InputError where there are none."""
        first = next(batches, None)
        if first is None:
            raise InputError(f"{self._place}: found no rows, expected at least one: is it the right file?")
        for batch in chain([first], batches):
            yield self._as_asked(batch) if self._names else batch

    def _as_asked(self, batch: RowBatch) -> RowBatch:
        names, asked = self._names, self._asked
        return RowBatch(
            batch.n,
            batch.place,
            {name: batch.numbers[names.get(name, name)] for name in asked.numbers},
            {name: batch.texts[names.get(name, name)] for name in asked.texts},
            {name: batch.values[names.get(name, name)] for name in asked.values},
        )


def ending(path: Path) -> str:
    """What the name of a table says of its format, in lower case: `.csv`, of a gzipped text too."""
    suffix = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower()
    return inner if suffix == ".gz" and inner in GZIP_SUFFIXES else suffix


def read_metadata(path: Path, key: str) -> str | None:
    """What a parquet's metadata says at a key; None where it says nothing, and for other files."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import parquet

    found = (parquet.read_schema(path).metadata or {}).get(key.encode())
    return None if found is None else found.decode("utf-8", "replace")


def _counted(error: InputError, path: Path, reader: TableReader, picked: Columns) -> InputError:
    """The error for the first row without a number that may be read, with how many rows are so."""
    import numpy as np

    is_number = exact.is_number_text if reader is _read_csv else _is_any_number
    n_rows = n_bad = 0
    with suppress(InputError):  # a later line that is none ends the count
        for batch in reader(path, lambda _: Columns((), (), picked.numbers), BATCH_ROWS, silent):
            numbers = np.array(
                [[float(v) if is_number(v) else np.nan for v in values] for values in batch.values.values()]
            )
            n_rows += batch.n
            n_bad += int((~picked.usable(numbers)).any(axis=0).sum())
    return InputError(f"{error}; {n_bad} of {n_rows} rows are like it") if n_bad > 1 else error


def _is_any_number(value: object) -> bool:
    """Of JSON, and of Arrow, which has decimals too."""
    return exact.is_number(value) or type(value).__name__ == "Decimal"


def _read_csv(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    """Columnar as far as that goes, line by line from there on."""
    header = exact.read_header(path)
    if not header.names:
        return
    columns = pick(header.names)
    position: exact.Position | None = exact.Position(0, 0, 1)
    if columns.names and _has_pyarrow():
        position = yield from columnar.csv_batches(path, columns, header, batch_rows, progress)
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


def _read_json(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    table = exact.read_json(path)
    if table is None:
        yield from _read_jsonl(path, pick, batch_rows, progress)
    elif table:
        yield from exact.json_batches(path, pick(list(table)), table, batch_rows, progress)


def _has_pyarrow() -> bool:
    try:
        import_module("pyarrow")
    except ImportError:
        return False
    return True


TableReader = Callable[[Path, Pick, int, Progress], Iterator[RowBatch]]
READERS: Mapping[str, TableReader] = MappingProxyType(
    {
        ".parquet": columnar.read_parquet,
        **dict.fromkeys((".feather", ".arrow"), columnar.read_arrow),
        **dict.fromkeys((".jsonl", ".ndjson"), _read_jsonl),
        ".json": _read_json,
        **dict.fromkeys((".csv", ".tsv"), _read_csv),
    }
)
GZIP_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")  # formats that may be gzipped: `.csv.gz`
