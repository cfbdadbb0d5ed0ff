"""archive.py: the .npz files of evidence: arrays by name, equal values as equal bytes. Knows no meaning."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_BYTES = 512 << 20  # of an archive unpacked: the predictions of about ten million rows of five seeds


class EvidenceProblem(ValueError):
    """Evidence that cannot be read or means nothing; the message is one line and says where."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which arrays a file has: name -> (kind and size of the little-endian dtype, number of dimensions).

    U is a unicode text of any length. optional: arrays that are absent where there is nothing to say.
    """

    file: str
    arrays: Mapping[str, tuple[str, int]]
    optional: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def all(self) -> Mapping[str, tuple[str, int]]:
        return {**self.arrays, **self.optional}


def write_arrays(layout: Layout, values: Mapping[str, Any]) -> bytes:
    """A zip of .npy files without pickles, in the layout's order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, (kind, _) in layout.all.items():
            if name not in values:
                continue
            member = io.BytesIO()
            array = np.asarray(values[name], dtype="<" + kind)
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def read_arrays(layout: Layout, data: bytes) -> dict[str, Any]:
    """The arrays of a file that `write_arrays` wrote.

    Raises EvidenceProblem for anything but exactly the layout's arrays, before unpacking more than `MAX_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members)
            wanted = [*layout.arrays, *(name for name in layout.optional if f"{name}.npy" in names)]
            if names != sorted(f"{name}.npy" for name in wanted):
                raise EvidenceProblem(
                    f"{layout.file}: found the arrays {names}, expected exactly {sorted(layout.arrays)}"
                )
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES:
                raise EvidenceProblem(f"{layout.file}: found {size} bytes unpacked, expected at most {MAX_BYTES}")
            _check_container(layout.file, data, archive)
            return {member.filename[:-4]: _read_array(layout, data, member) for member in members}
    except EvidenceProblem:
        raise
    # zlib.error, NotImplementedError (compression, encryption), struct.error ...: whatever zipfile meets in bad bytes
    except Exception as error:
        raise EvidenceProblem(
            f"{layout.file}: not a readable archive ({str(error)[:100]}), expected numpy arrays"
        ) from None


def _check_container(file: str, data: bytes, archive: zipfile.ZipFile) -> None:
    """Everything around the compressed arrays is what `write_arrays` writes, so that nothing hides between them."""
    at, central = 0, b""
    for member in archive.infolist():
        plain = _member(member.filename)
        plain.CRC, plain.compress_size, plain.file_size = member.CRC, member.compress_size, member.file_size
        local = plain.FileHeader()
        if member.header_offset != at or data[at : at + len(local)] != local:
            what = "found another header, expected the one that training writes"
            raise EvidenceProblem(f"{file} {member.filename}: {what}")
        # PKWARE APPNOTE 4.3.12: as the local header, then no extra field, no comment, disk 0, attributes, the place.
        attributes = struct.pack("<4HLL", 0, 0, 0, 0, plain.external_attr, at)
        central += b"PK\1\2" + bytes([plain.create_version, plain.create_system]) + local[4:28] + attributes
        central += member.filename.encode()
        at += len(local) + member.compress_size
    n = len(archive.infolist())
    if data[at:] != central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n, n, len(central), at, 0):
        raise EvidenceProblem(f"{file}: found another directory, expected the one that training writes")


def _member(filename: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(filename, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    return info


def _read_array(layout: Layout, archive: bytes, member: zipfile.ZipInfo) -> Any:
    name = member.filename[:-4]
    where, (kind, dimensions) = f"{layout.file} {name}", layout.all[name]
    at = member.header_offset + 30 + len(member.filename)
    stored = zlib.decompressobj(-zlib.MAX_WBITS)
    data = stored.decompress(archive[at : at + member.compress_size], member.file_size + 1)
    if not stored.eof or stored.unused_data or len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise EvidenceProblem(f"{where}: found other bytes than its header says, expected one whole array")
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise EvidenceProblem(f"{where}: found another version of .npy, expected 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    good = dtype.str.startswith("<U") if kind == "U" else dtype.str == "<" + kind
    if not good or fortran or len(shape) != dimensions:
        found = f"{dtype.str} of shape {shape}"
        raise EvidenceProblem(f"{where}: found {found}, expected <{kind} with {dimensions} dimensions, C order")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise EvidenceProblem(f"{where}: found {len(data) - stream.tell()} bytes of data, expected {shape}")
    if dtype.itemsize == 0:  # texts that are all empty
        return np.zeros(shape, "<U1")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    array.tolist() if dtype.kind == "U" else None  # raises for what is no unicode
    return array
