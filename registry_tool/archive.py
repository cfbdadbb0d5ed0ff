"""archive.py: the .npz files of evidence: arrays by name, equal values as equal bytes. Knows no meaning."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 256 << 20  # of an archive unpacked: more than as many predictions take as are measured


class EvidenceProblem(ValueError):
    """Evidence that cannot be read or means nothing; the message is one line and says where."""


@dataclass(frozen=True, slots=True)
class Array:
    """One array of a file. kind: kind and size of the little-endian dtype; U is a unicode text of any length.

    axes: a name for each dimension. optional: absent where there is nothing to say.
    """

    kind: str
    axes: tuple[str, ...]
    meaning: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveFormat:
    """The arrays of a file, in the order in which they are written; docs/formats.md is made from it."""

    file: str
    meaning: str
    axes: Mapping[str, str]  # of each axis name, what it counts
    arrays: Mapping[str, Array]


def write_arrays(archive_format: ArchiveFormat, values: Mapping[str, object]) -> bytes:
    """A zip of .npy files without pickles. The compressed bytes follow the zlib of this Python; nothing else does."""
    import numpy as np

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, declared in archive_format.arrays.items():
            if name not in values:
                continue
            member = io.BytesIO()
            array = np.asarray(values[name], dtype="<" + declared.kind)
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two archives hold the same bytes under the same names in one order, however they are compressed."""
    contents = []
    for data in (one, other):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                    return False
                _check_container("", data, archive)
                contents.append([(member.filename, archive.read(member)) for member in archive.infolist()])
        except Exception:  # whatever zipfile meets in bad bytes; see read_arrays
            return False
    return contents[0] == contents[1]


def read_arrays(archive_format: ArchiveFormat, data: bytes) -> dict[str, Any]:
    """The arrays of a file that `write_arrays` wrote.

    Raises EvidenceProblem for anything but exactly these arrays, before unpacking more than `MAX_BYTES`.
    """
    file = archive_format.file
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            required = [name for name, array in archive_format.arrays.items() if not array.optional]
            if names != [f"{n}.npy" for n in archive_format.arrays if n in required or f"{n}.npy" in names]:
                raise EvidenceProblem(f"{file}: found the arrays {names}, expected exactly {required}, in this order")
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES:
                raise EvidenceProblem(f"{file}: found {size} bytes unpacked, expected at most {MAX_BYTES}")
            _check_container(file, data, archive)
            return {member.filename[:-4]: _read_array(archive_format, data, member) for member in members}
    except EvidenceProblem:
        raise
    # zlib.error, NotImplementedError (compression, encryption), struct.error ...: whatever zipfile meets in bad bytes
    except Exception as error:
        raise EvidenceProblem(f"{file}: not a readable archive ({str(error)[:100]}), expected numpy arrays") from None


def _check_container(file: str, data: bytes, archive: zipfile.ZipFile) -> None:
    """Everything around the compressed arrays is what `write_arrays` writes, so that nothing hides between them."""
    place, central = 0, b""
    for member in archive.infolist():
        plain = _member(member.filename)
        plain.CRC, plain.compress_size, plain.file_size = member.CRC, member.compress_size, member.file_size
        local = plain.FileHeader()
        if member.header_offset != place or data[place : place + len(local)] != local:
            raise EvidenceProblem(
                f"{file} {member.filename}: found another header, expected the one that training writes"
            )
        # PKWARE APPNOTE 4.3.12: as the local header, then no extra field, no comment, disk 0, attributes, the place.
        attributes = struct.pack("<4HLL", 0, 0, 0, 0, plain.external_attr, place)
        central += b"PK\1\2" + bytes([plain.create_version, plain.create_system]) + local[4:28] + attributes
        central += member.filename.encode()
        place += len(local) + member.compress_size
    n = len(archive.infolist())
    if data[place:] != central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n, n, len(central), place, 0):
        raise EvidenceProblem(f"{file}: found another directory, expected the one that training writes")


def _member(filename: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(filename, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    return info


def _read_array(archive_format: ArchiveFormat, archive: bytes, member: zipfile.ZipInfo) -> Any:
    import numpy as np

    name = member.filename[:-4]
    place, declared = f"{archive_format.file} {name}", archive_format.arrays[name]
    kind, dimensions = declared.kind, len(declared.axes)
    start = member.header_offset + 30 + len(member.filename)
    stored = zlib.decompressobj(-zlib.MAX_WBITS)
    data = stored.decompress(archive[start : start + member.compress_size], member.file_size + 1)
    if not stored.eof or stored.unused_data or len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise EvidenceProblem(f"{place}: found other bytes than its header says, expected one whole array")
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise EvidenceProblem(f"{place}: found another version of .npy, expected 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    good = dtype.str.startswith("<U") if kind == "U" else dtype.str == "<" + kind
    if not good or fortran or len(shape) != dimensions:
        found = f"{dtype.str} of shape {shape}"
        raise EvidenceProblem(f"{place}: found {found}, expected <{kind} with {dimensions} dimensions, C order")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise EvidenceProblem(f"{place}: found {len(data) - stream.tell()} bytes of data, expected {shape}")
    if not _is_plain_header(data[: stream.tell()], dtype.str, shape):
        raise EvidenceProblem(f"{place}: found another .npy header, expected the one that numpy writes")
    if dtype.itemsize == 0:  # texts that are all empty
        return np.zeros(shape, "<U1")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    array.tolist() if dtype.kind == "U" else None  # raises for what is no unicode
    return array


def _is_plain_header(header: bytes, dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a .npy header is the text that numpy writes, so that no comment and no other bytes hide in it.

    numpy pads with spaces to a multiple of 64, after at most 21 for a longer first axis (since numpy 1.25).
    """
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin-1")
    body = header[10:]
    padding = body[len(text) : -1]
    plain = body.startswith(text) and body.endswith(b"\n") and not padding.strip(b" ")
    return plain and len(header) % 64 == 0 and len(padding) < 64 + 21
