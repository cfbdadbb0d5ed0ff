"""reading.py: parquet, JSON lines and CSV as batches of columns. Knows formats and places, not what a column means."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_tool.errors import InputError, WorldError
from registry_tool.hookspec import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Place = Callable[[int], str]  # index in a batch -> `file:line` or `file, row N`
BATCH_ROWS = 65_536  # read, or written, at once
READ_BUFFER = 1 << 20  # bytes; without it pyarrow holds whole column chunks, however long


@dataclass(frozen=True, slots=True)
class Text:
    """A dictionary-encoded text column: row i says names[codes[i]], a missing text is "", a name may be unused."""

    codes: NDArray[np.int64]  # (n,)
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Text:
        import numpy as np

        names: dict[str, int] = {}
        words = ("" if v is None else str(v).strip() for v in values)
        codes = np.fromiter((names.setdefault(word, len(names)) for word in words), np.int64, len(values))
        return cls(codes, tuple(names))


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read: numbers must be finite, texts become `Text`, values stay as the file has them.

    largest: the most that a number may be in size, where what computes with it has a limit.
    """

    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    largest: float = math.inf

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys((*self.numbers, *self.texts, *self.values)))


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some consecutive rows. place: where a row of this batch is in its file."""

    n: int
    place: Place
    numbers: Mapping[str, NDArray[np.float64]]  # (n,) each, finite
    texts: Mapping[str, Text]
    values: Mapping[str, list[Any]] = field(default_factory=dict)


# the file's column names -> what to read; raises InputError if one is missing
Pick = Callable[[Sequence[str]], Columns]


def read_rows(path: Path, pick: Pick, batch_rows: int = BATCH_ROWS, progress: Progress = silent) -> Iterator[RowBatch]:
    """Batches of at most `batch_rows` rows, one in memory at a time.

    progress: `reading`, after each batch, in rows of a parquet or bytes of text. Raises InputError with one line for a
    file without rows and for a file, a row or a column that cannot be used, WorldError for a broken disk.
    """
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(readers)
        raise InputError(f"{path}: found the extension {path.suffix!r}, expected one of {known}: convert or rename it")
    try:
        path.open("rb").close()
        batches = reader(path, pick, batch_rows, progress)
        first = next(batches, None)
        if first is None:
            raise InputError(f"{path}: found no rows, expected at least one: is it the right file?")
        yield first
        yield from batches
    except FileNotFoundError:
        raise InputError(f"{path}: file not found: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected a file of rows: name the file in it") from None
    except UnicodeDecodeError as error:
        message = f"{path}: found a byte that is not UTF-8 ({error.reason}), expected {path.suffix[1:].upper()} text"
        raise InputError(f"{message}: save it as UTF-8 or give its right extension") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror or error}): check the file and its disk") from error


def read_metadata(path: Path, key: str) -> str | None:
    """What a parquet's metadata says at a key; None where it says nothing, and for other files."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import parquet

    found = (parquet.read_schema(path).metadata or {}).get(key.encode())
    return None if found is None else found.decode("utf-8", "replace")


def missing_column(path: Path, column: str, found: Sequence[str]) -> InputError:
    """The error for a column that is not there: names the columns found and the nearest match."""
    from difflib import get_close_matches

    lower = {name.lower(): name for name in found}
    near = get_close_matches(column.lower(), lower, n=1, cutoff=0.5)
    hint = f"is it {lower[near[0]]!r}? rename it" if near else "add it, or name another column"
    return InputError(
        f"{path}: no column {column!r}: found {', '.join(found) or 'no columns'}, expected {column}: {hint}"
    )


def bad_cell(place: str, column: str, found: str, expected: str, hint: str = "correct or drop the row") -> InputError:
    """The error for one value."""
    return InputError(f"{place}, column {column}: found {found}, expected {expected}: {hint}")


def _require_unique(path: Path, names: Sequence[str]) -> None:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise InputError(f"{path}: found the column {twice[0]!r} twice, expected each column once: rename one")


def _read_parquet(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install 'registry-tool[train]'") from None
    try:
        file = parquet.ParquetFile(path, buffer_size=READ_BUFFER)
        _require_unique(path, file.schema_arrow.names)
        columns = pick(file.schema_arrow.names)
        first = 1
        for batch in file.iter_batches(batch_rows, columns=columns.names):

            def place(index: int, first: int = first) -> str:
                return f"{path}, row {first + index}"

            yield RowBatch(
                batch.num_rows,
                place,
                {n: _finite(_arrow_numbers(pa, batch.column(n), n, place), n, place, columns) for n in columns.numbers},
                {name: _arrow_text(batch.column(name)) for name in columns.texts},
                {name: batch.column(name).to_pylist() for name in columns.values},
            )
            first += batch.num_rows
            progress("reading", first - 1, file.metadata.num_rows)
        pa.default_memory_pool().release_unused()  # it would keep 90 MB of a million rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: not a readable parquet file ({reason}): write it again") from None


def _arrow_numbers(pa: Any, array: Any, column: str, place: Place) -> NDArray[np.float64]:
    import numpy as np

    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise bad_cell(place(0), column, f"a column of {kind}", "numbers", "convert the column")
    values: NDArray[np.float64] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if array.null_count:
        raise bad_cell(
            place(int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))), column, "nothing", "a number"
        )
    return values


def _arrow_text(array: Any) -> Text:
    coded = array if hasattr(array, "indices") else array.dictionary_encode()
    words = Text.of([*coded.dictionary.to_pylist(), None])  # the last one stands for a null
    return Text(words.codes[coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)], words.names)


def _read_csv(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not header:
                return
            _require_unique(path, header)
            columns = pick(header)

            def rows() -> Iterator[tuple[int, list[str]]]:
                for row in reader:
                    if len(row) != len(header):
                        if not row:
                            continue  # a blank line
                        expected = f"{len(header)} as in the header"
                        raise InputError(
                            f"{path}:{reader.line_num}: found {len(row)} fields, expected {expected}: correct the line"
                        )
                    yield reader.line_num, row

            at = {name: header.index(name) for name in columns.names}
            source = rows()
            while chunk := list(islice(source, batch_rows)):
                table = {name: [row[i] for _, row in chunk] for name, i in at.items()}
                yield _text_batch(path, columns, [line for line, _ in chunk], table, _is_number_text)
                progress("reading", _tell(file), path.stat().st_size)
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error}): correct the line") from None


def _read_jsonl(path: Path, pick: Pick, batch_rows: int, progress: Progress) -> Iterator[RowBatch]:
    with path.open(encoding="utf-8-sig") as file:

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(
                        f"{path}:{number}: not JSON ({error}), expected one object a line: correct it"
                    ) from None
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: found {type(row).__name__}, expected one JSON object a line")
                yield number, row

        source, columns = rows(), None
        while chunk := list(islice(source, batch_rows)):
            columns = columns or pick(list(chunk[0][1]))
            table = {name: [row.get(name) for _, row in chunk] for name in columns.names}
            yield _text_batch(path, columns, [line for line, _ in chunk], table, _is_number)
            progress("reading", _tell(file), path.stat().st_size)


def _tell(file: Any) -> int:
    """How many bytes of a text file were read; its own `tell` is slow, or not there while it is iterated over."""
    place: int = file.buffer.tell()
    return place


def _text_batch(
    path: Path, columns: Columns, lines: list[int], table: dict[str, list[Any]], is_number: Callable[[Any], bool]
) -> RowBatch:
    import numpy as np

    def place(index: int) -> str:
        return f"{path}:{lines[index]}"

    def numbers(name: str) -> NDArray[np.float64]:
        for index, value in enumerate(table[name]):
            if not is_number(value):
                found = "nothing" if value in (None, "") else f"{value!r:.80}"
                raise bad_cell(place(index), name, found, "a number")
        return _finite(np.array(table[name], dtype=np.float64), name, place, columns)

    texts = {name: Text.of(table[name]) for name in columns.texts}
    values = {name: table[name] for name in columns.values}
    return RowBatch(len(lines), place, {name: numbers(name) for name in columns.numbers}, texts, values)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 1023)  # a larger int is no float64


def _is_number_text(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _finite(values: NDArray[np.float64], column: str, place: Place, columns: Columns) -> NDArray[np.float64]:
    import numpy as np

    good = np.isfinite(values) & (np.abs(values) <= columns.largest)
    if not good.all():
        index = int(np.argmin(good))
        finite = math.isfinite(values[index])
        expected = f"at most {columns.largest:g} in size" if finite else "a finite number"
        raise bad_cell(place(index), column, str(values[index]), expected)
    return values
