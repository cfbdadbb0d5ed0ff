"""tables.py: parquet, JSONL and CSV files as batches of columns. Knows formats and places, not what a column means."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from registry_tool.errors import InputError, WorldError

Place = Callable[[int], str]  # index in a batch -> `file:line` or `file, row N`
Told = Callable[[int, int], None]  # (done, total) of a file: rows of a parquet, bytes of text
RECORD_KEY = b"fr_ensemble.corpus"  # of a parquet's schema metadata: how the corpus was made, as JSON
LARGEST = 1e12  # of a number: models compute in float32, which ends at 3e38, and sigma squares what layers multiply
READ_BUFFER = 1 << 20  # bytes; without it pyarrow holds whole column chunks, however long


@dataclass(frozen=True, slots=True)
class Text:
    """A dictionary-encoded text column: row i says names[codes[i]], a missing text is "", a name may be unused."""

    codes: Int64  # (n,)
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Text:
        names: dict[str, int] = {}
        words = ("" if v is None else str(v).strip() for v in values)
        codes = np.fromiter((names.setdefault(word, len(names)) for word in words), np.int64, len(values))
        return cls(codes, tuple(names))


class Growing:
    """A column of a whole file, rows added batch by batch, without a second copy at the end."""

    def __init__(self) -> None:
        self._values: Any = None
        self._n = 0

    def add(self, rows: Any) -> None:
        if self._values is None:
            self._values = np.empty((0, *rows.shape[1:]), rows.dtype)
        end = self._n + len(rows)
        if end > len(self._values):
            self._resize(max(end, end + end // 4))
        self._values[self._n : end] = rows
        self._n = end

    def whole(self) -> Any:
        self._resize(self._n)
        return self._values

    def _resize(self, rows: int) -> None:
        self._values.resize((rows, *self._values.shape[1:]), refcheck=False)  # in place, where the allocator can


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read: numbers must be finite, texts become `Text`, values stay as the file has them."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    values: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys((*self.numbers, *self.texts, *self.values)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows. place: where a row of this batch stands in its file."""

    n: int
    place: Place
    numbers: Mapping[str, Float64]  # (n,) each, finite
    texts: Mapping[str, Text]
    values: Mapping[str, list[Any]] = field(default_factory=dict)


Pick = Callable[
    [Sequence[str]], Columns
]  # the file's column names -> what to read; raises InputError if one is missing


def silent(done: int, total: int) -> None:
    """The listener of a file that nobody watches."""


def read_table(path: Path, pick: Pick, batch_rows: int, *, told: Told = silent) -> Iterator[Batch]:
    """Batches of at most `batch_rows` rows, one in memory at a time. told: after each batch.

    Raises InputError with one line for a file, a row or a column that cannot be used, WorldError for a broken disk.
    """
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(readers)
        raise InputError(f"{path}: found the extension {path.suffix!r}, expected one of {known}: convert or rename it")
    try:
        path.open("rb").close()
        yield from reader(path, pick, batch_rows, told)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: check the path of the corpus") from None
    except IsADirectoryError:
        raise InputError(f"{path}: found a folder, expected a file of rows: name the file in it") from None
    except UnicodeDecodeError as error:
        message = f"{path}: found a byte that is not UTF-8 ({error.reason}), expected {path.suffix[1:].upper()} text"
        raise InputError(f"{message}: save it as UTF-8 or give its right extension") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror or error}): check the file and its disk") from error


def read_record(path: Path) -> dict[str, Any] | None:
    """What `corpus build` or `import` wrote into a parquet about its making; None elsewhere."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import parquet

    try:
        found = json.loads((parquet.read_schema(path).metadata or {}).get(RECORD_KEY, b"null"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


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


def _read_parquet(path: Path, pick: Pick, batch_rows: int, told: Told) -> Iterator[Batch]:
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

            yield Batch(
                batch.num_rows,
                place,
                {name: _arrow_numbers(pa, batch.column(name), name, place) for name in columns.numbers},
                {name: _arrow_text(batch.column(name)) for name in columns.texts},
                {name: batch.column(name).to_pylist() for name in columns.values},
            )
            first += batch.num_rows
            told(first - 1, file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: not a readable parquet file ({reason}): write it again") from None


def _arrow_numbers(pa: Any, array: Any, column: str, place: Place) -> Float64:
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise bad_cell(place(0), column, f"a column of {kind}", "numbers", "convert the column")
    values: Float64 = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if array.null_count:
        raise bad_cell(
            place(int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))), column, "nothing", "a number"
        )
    return _finite(values, column, place)


def _arrow_text(array: Any) -> Text:
    coded = array if hasattr(array, "indices") else array.dictionary_encode()
    words = Text.of([*coded.dictionary.to_pylist(), None])  # the last one stands for a null
    return Text(words.codes[coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)], words.names)


def _read_csv(path: Path, pick: Pick, batch_rows: int, told: Told) -> Iterator[Batch]:
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
                told(file.buffer.tell(), path.stat().st_size)  # type: ignore[attr-defined]  # typeshed does not know it
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error}): correct the line") from None


def _read_jsonl(path: Path, pick: Pick, batch_rows: int, told: Told) -> Iterator[Batch]:
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
            told(file.buffer.tell(), path.stat().st_size)  # type: ignore[attr-defined]  # typeshed does not know it


def _text_batch(
    path: Path, columns: Columns, lines: list[int], table: dict[str, list[Any]], is_number: Callable[[Any], bool]
) -> Batch:
    def place(index: int) -> str:
        return f"{path}:{lines[index]}"

    def numbers(name: str) -> Float64:
        for index, value in enumerate(table[name]):
            if not is_number(value):
                found = "nothing" if value in (None, "") else f"{value!r:.80}"
                raise bad_cell(place(index), name, found, "a number")
        return _finite(np.array(table[name], dtype=np.float64), name, place)

    texts = {name: Text.of(table[name]) for name in columns.texts}
    values = {name: table[name] for name in columns.values}
    return Batch(len(lines), place, {name: numbers(name) for name in columns.numbers}, texts, values)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 1023)  # a larger int is no float64


def _is_number_text(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _finite(values: Float64, column: str, place: Place) -> Float64:
    good = np.abs(values) <= LARGEST  # false for NaN
    if not good.all():
        index = int(np.argmin(good))
        expected = f"at most {LARGEST:g} in size (float32)" if np.isfinite(values[index]) else "a finite number"
        raise bad_cell(place(index), column, str(values[index]), expected)
    return values
