"""oof.py: out-of-fold predictions and their file, `oof.npz`. Measures nothing."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.corpus.rows import Corpus

MAX_BYTES = 512 << 20  # of oof.npz unpacked: about ten million rows of five seeds
OOF_VERSION = 1
BLOCK_ROWS = 1 << 16
# name -> (kind and size of the little-endian dtype, number of dimensions); U: a unicode text of any length
ARRAYS: dict[str, tuple[str, int]] = {
    "version": ("i8", 0),
    "digests": ("U64", 1),  # sha256 of the rows, the recipe and the corpus file; "" where there is none
    "seeds": ("i8", 1),
    "sources": ("U", 1),
    "source": ("i4", 1),
    "clips": ("U", 1),  # none: clips are not known
    "clip": ("i4", 1),
    "target": ("f8", 1),
    "predictions": ("f4", 2),
}
CONTROL_CHARACTERS = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]"
)  # begins a line where it is printed, or is not seen
OPTIONAL = {"vmaf": ("f8", 1)}  # absent where there is none


# Measuring takes time by folds (one source held out, one seed) and by rows times sources: within these limits seconds,
# and less than 1 GiB beside the predictions themselves.
MAX_FOLDS, MAX_ROWS_TIMES_SOURCES = 5_000, 300_000_000


class EvidenceProblem(ValueError):
    """Evidence that cannot be read or means nothing; the message is one line and says where."""


def check_size(rows: int, sources: int, seeds: int) -> None:
    """Raises EvidenceProblem for more folds, or rows times sources, than are measured."""
    for name, found, most in (
        ("folds (sources times seeds)", sources * seeds, MAX_FOLDS),
        ("rows times sources", rows * sources, MAX_ROWS_TIMES_SOURCES),
    ):
        if found > most:
            raise EvidenceProblem(f"{name}: found {found}, expected at most {most}: join sources, or take fewer rows")


@dataclass(frozen=True, slots=True)
class Oof:
    """Each row of a corpus predicted, once a seed, by the model that did not see the row's source.

    S seeds, n rows, K sources, C clips. Predictions are rounded to float32 when made, as the file stores them, so that
    every metric is the same before and after. Raises EvidenceProblem for shapes, indexes or numbers that mean nothing.
    """

    seeds: tuple[int, ...]
    sources: tuple[str, ...]
    source: Int64  # (n,), 0..K-1, every source has a row
    clips: tuple[str, ...] | None
    clip: Int64 | None  # (n,), 0..C-1, every clip has rows, all of one source
    target: Float64  # (n,), raw units
    predictions: Float64  # (S, n), raw units, representable in float32
    rows_sha256: str
    recipe_sha256: str
    corpus_sha256: str | None
    vmaf: Float64 | None = None  # (n,), the corpus's plain VMAF where the target is another, to be compared with

    def __post_init__(self) -> None:
        n = len(self.target)
        check_size(n, len(self.sources), len(self.seeds))
        with np.errstate(over="ignore"):  # a float32 overflow is caught as infinite below
            rounded = np.asarray(self.predictions, np.float32).astype(np.float64)
        object.__setattr__(self, "predictions", rounded)
        if n == 0:
            raise EvidenceProblem("out-of-fold predictions: found no rows, expected at least one")
        if self.predictions.shape != (len(self.seeds), n):
            found, expected = self.predictions.shape, (len(self.seeds), n)
            raise EvidenceProblem(f"predictions: found the shape {found}, expected (seeds, rows) = {expected}")
        if self.vmaf is not None and self.vmaf.shape != (n,):
            raise EvidenceProblem(f"vmaf: found the shape {self.vmaf.shape}, expected one number a row, {n}")
        for name, values in (("target", self.target), ("predictions", self.predictions), ("vmaf", self.vmaf)):
            if values is not None and not np.isfinite(values).all():
                where = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
                raise EvidenceProblem(f"{name}{where}: found {values[tuple(where)]}, expected finite numbers")
        _check_index("source", self.source, self.sources, n)
        if (self.clips is None) != (self.clip is None):
            raise EvidenceProblem("clip: found one of clips and clip index, expected both or neither")
        if self.clips is not None and self.clip is not None:
            _check_index("clip", self.clip, self.clips, n)
            if len(np.unique(self.clip * len(self.sources) + self.source)) != len(self.clips):
                raise EvidenceProblem("clip: found a clip with rows of two sources, expected one source a clip")

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        seeds: Sequence[int],
        predictions: NDArray[Any],
        recipe_sha256: str,
        vmaf: Float64 | None = None,
    ) -> Oof:
        """The out-of-fold predictions (S, n) of a corpus."""
        where = (corpus.sources, corpus.source, corpus.clips, corpus.clip)
        digests = (corpus.rows_sha256, recipe_sha256, corpus.sha256)
        return cls(tuple(seeds), *where, corpus.target, predictions, *digests, vmaf)

    @property
    def mu(self) -> Float64:
        """Mean over members, (n,)."""
        return mean_of(self.predictions)

    @property
    def sigma(self) -> Float64:
        """Sample standard deviation over members (ddof 1), (n,)."""
        return deviation_of(self.predictions)


def mean_of(predictions: NDArray[Any]) -> Float64:
    """Mean over members, float64 (n,), of predictions (S, n)."""
    mean = np.empty(predictions.shape[1])
    for rows in _blocks(predictions):
        mean[rows] = predictions[:, rows].astype(np.float64).mean(axis=0)
    return mean


def deviation_of(predictions: NDArray[Any]) -> Float64:
    """Sample standard deviation over members (ddof 1), float64 (n,), of predictions (S, n)."""
    deviation = np.empty(predictions.shape[1])
    for rows in _blocks(predictions):
        deviation[rows] = predictions[:, rows].astype(np.float64).std(axis=0, ddof=1)
    return deviation


def _blocks(predictions: NDArray[Any]) -> Iterator[slice]:
    """Some columns at a time: temporaries of all would be as large as the predictions."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, predictions.shape[1], BLOCK_ROWS))


def write_oof(oof: Oof) -> bytes:
    """`oof.npz`: a zip of .npy files without pickles; the same predictions give the same bytes."""
    clips, clip = (oof.clips, oof.clip) if oof.clips is not None else ((), ())
    values: Mapping[str, Any] = {
        "version": OOF_VERSION,
        "digests": [oof.rows_sha256, oof.recipe_sha256, oof.corpus_sha256 or ""],
        **{name: getattr(oof, name) for name in ("seeds", "sources", "source", "target", "predictions")},
        "clips": clips,
        "clip": clip,
    }
    if oof.vmaf is not None:
        values = {**values, "vmaf": oof.vmaf}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, (kind, _) in (ARRAYS | OPTIONAL).items():
            if name not in values:
                continue
            member = io.BytesIO()
            array = np.asarray(values[name], dtype="<" + kind)
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def read_oof(data: bytes) -> Oof:
    """The predictions in the bytes of an `oof.npz`.

    Raises EvidenceProblem for anything but exactly the arrays of `ARRAYS`, before unpacking more than `MAX_BYTES`.
    """
    arrays = _read_arrays(data)
    if int(arrays["version"]) != OOF_VERSION or arrays["digests"].shape != (3,):
        raise EvidenceProblem(
            f"oof.npz: found version {int(arrays['version'])}, expected {OOF_VERSION} and three digests"
        )
    rows, recipe, corpus = (str(text) for text in arrays["digests"])
    clips = tuple(str(name) for name in arrays["clips"]) or None
    return Oof(
        seeds=tuple(int(seed) for seed in arrays["seeds"]),
        sources=tuple(str(name) for name in arrays["sources"]),
        source=arrays["source"].astype(np.int64),
        clips=clips,
        clip=arrays["clip"].astype(np.int64) if clips else None,
        target=arrays["target"].astype(np.float64),
        predictions=arrays["predictions"],
        rows_sha256=rows,
        recipe_sha256=recipe,
        corpus_sha256=corpus or None,
        vmaf=arrays["vmaf"].astype(np.float64) if "vmaf" in arrays else None,
    )


def _read_arrays(data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members)
            wanted = [*ARRAYS, *(name for name in OPTIONAL if f"{name}.npy" in names)]
            if names != sorted(f"{name}.npy" for name in wanted):
                raise EvidenceProblem(f"oof.npz: found the arrays {names}, expected exactly {sorted(ARRAYS)}")
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES:
                raise EvidenceProblem(f"oof.npz: found {size} bytes unpacked, expected at most {MAX_BYTES}")
            _check_container(data, archive)
            return {member.filename[:-4]: _read_array(data, member) for member in members}
    except EvidenceProblem:
        raise
    # zlib.error, NotImplementedError (compression, encryption), struct.error ...: whatever zipfile meets in bad bytes
    except Exception as error:
        raise EvidenceProblem(f"oof.npz: not a readable archive ({str(error)[:100]}), expected numpy arrays") from None


def _check_container(data: bytes, archive: zipfile.ZipFile) -> None:
    """Everything around the compressed arrays is what `write_oof` writes, so that nothing hides between them."""
    at, central = 0, b""
    for member in archive.infolist():
        plain = _member(member.filename)
        plain.CRC, plain.compress_size, plain.file_size = member.CRC, member.compress_size, member.file_size
        local = plain.FileHeader()
        if member.header_offset != at or data[at : at + len(local)] != local:
            what = "found another header, expected the one that training writes"
            raise EvidenceProblem(f"oof.npz {member.filename}: {what}")
        # PKWARE APPNOTE 4.3.12: as the local header, then no extra field, no comment, disk 0, attributes, the place.
        attributes = struct.pack("<4HLL", 0, 0, 0, 0, plain.external_attr, at)
        central += b"PK\1\2" + bytes([plain.create_version, plain.create_system]) + local[4:28] + attributes
        central += member.filename.encode()
        at += len(local) + member.compress_size
    n = len(archive.infolist())
    if data[at:] != central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n, n, len(central), at, 0):
        raise EvidenceProblem("oof.npz: found another directory, expected the one that training writes")


def _member(filename: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(filename, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    return info


def _read_array(archive: bytes, member: zipfile.ZipInfo) -> Any:
    name = member.filename[:-4]
    kind, dimensions = (ARRAYS | OPTIONAL)[name]
    at = member.header_offset + 30 + len(member.filename)
    stored = zlib.decompressobj(-zlib.MAX_WBITS)
    data = stored.decompress(archive[at : at + member.compress_size], member.file_size + 1)
    if not stored.eof or stored.unused_data or len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise EvidenceProblem(f"oof.npz {name}: found other bytes than its header says, expected one whole array")
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise EvidenceProblem(f"oof.npz {name}: found another version of .npy, expected 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    good = dtype.str.startswith("<U") if kind == "U" else dtype.str == "<" + kind
    if not good or fortran or len(shape) != dimensions:
        found = f"{dtype.str} of shape {shape}"
        raise EvidenceProblem(f"oof.npz {name}: found {found}, expected <{kind} with {dimensions} dimensions, C order")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise EvidenceProblem(f"oof.npz {name}: found {len(data) - stream.tell()} bytes of data, expected {shape}")
    if dtype.itemsize == 0:  # texts that are all empty
        return np.zeros(shape, "<U1")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    array.tolist() if dtype.kind == "U" else None  # raises for what is no unicode
    return array


def _check_index(name: str, index: Int64, names: tuple[str, ...], n: int) -> None:
    if index.shape != (n,):
        raise EvidenceProblem(f"{name}: found {len(index)} indexes, expected one a row, {n}")
    if control := next((text for text in names if CONTROL_CHARACTERS.search(text)), None):
        raise EvidenceProblem(f"{name}s: found {control[:40]!r}, expected names without control characters")
    if len(set(names)) != len(names) or not all(names):
        raise EvidenceProblem(f"{name}s: found a name that is empty or repeated, expected different names")
    if not np.array_equal(np.unique(index), np.arange(len(names))):
        raise EvidenceProblem(
            f"{name}: found indexes that do not use each of the {len(names)} names, expected all of them"
        )
