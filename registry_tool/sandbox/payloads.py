"""payloads.py: whether bytes or a text hold a program, an archive or a pickle. Unpacks and runs nothing.

Looked for are the beginnings of such files: as they are, as text in Latin-1, in base64 and in hexadecimal digits.
Another encoding is not seen: the limits on text are what bounds it.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
from collections.abc import Iterator

FILE_SIGNATURES = {
    b"\x7fELF": "a program (ELF)",
    b"MZ\x90\x00": "a program (PE)",
    b"\xcf\xfa\xed\xfe": "a program (Mach-O)",
    b"\xca\xfe\xba\xbe": "a program (Mach-O or Java)",
    b"PK\x03\x04": "an archive (zip)",
    b"\x1f\x8b\x08": "an archive (gzip)",
    b"7z\xbc\xaf\x27\x1c": "an archive (7z)",
    b"\xfd7zXZ\x00": "an archive (xz)",
    b"BZh91AY&SY": "an archive (bzip2)",
}
# Opcodes that import or call something: a pickle without them holds plain values.
DANGEROUS_CALLS = frozenset(
    ["GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"]
)
MIN_ENCODED_CHARACTERS = 16  # characters of base64 or hexadecimal digits that are looked at
MAX_DECODED_BYTES = 2**24  # bytes of a candidate that are decoded: as many as all texts of a model may have
MAX_OPCODES = 10_000
BASE64_PATTERN = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_ENCODED_CHARACTERS},}}={{0,2}}")
HEX_PATTERN = re.compile(rf"(?:[0-9a-fA-F]{{2}}){{{MIN_ENCODED_CHARACTERS // 2},}}")


def payload_in_text(text: str | bytes) -> str:
    """What is in a text: 'a pickle', ...; '' for nothing known."""
    if isinstance(text, bytes):
        return payload_in_bytes(text) or payload_in_text(text.decode("latin-1"))
    return next(filter(None, map(payload_in_bytes, _decoded(text))), "")


def payload_in_bytes(data: bytes) -> str:
    """What these bytes begin with; '' for nothing known."""
    for signature, name in FILE_SIGNATURES.items():
        if data.startswith(signature):
            return name
    return "a pickle" if _is_pickle(data) else ""


def _decoded(text: str) -> Iterator[bytes]:
    """The bytes that a text may stand for."""
    head = text[:MAX_DECODED_BYTES]
    yield head.encode()
    if not head.isascii():
        yield head.encode("latin-1", "ignore")
    for match in HEX_PATTERN.finditer(text):
        yield bytes.fromhex(match[0][:MAX_DECODED_BYTES])
    for match in BASE64_PATTERN.finditer(text):
        piece = match[0][: MAX_DECODED_BYTES // 4 * 4].rstrip("=")
        piece = piece[:-1] if len(piece) % 4 == 1 else piece
        try:
            yield base64.b64decode(piece.replace("-", "+").replace("_", "/") + "=" * (-len(piece) % 4))
        except binascii.Error:
            continue


def _is_pickle(data: bytes) -> bool:
    """A pickle that imports or calls something, or one with the header that pickles have since protocol 2."""
    headed = len(data) > 3 and data[0] == 0x80 and 2 <= data[1] <= 5
    if not headed and not data[:1].isascii():
        return False
    calls = False
    try:
        for count, (opcode, _, _) in enumerate(pickletools.genops(data)):
            calls |= opcode.name in DANGEROUS_CALLS
            if count > MAX_OPCODES:
                break
    except Exception:  # whatever it stumbles over: no pickle, or one that is cut off, of which a header is enough
        return headed and calls
    return headed or calls
