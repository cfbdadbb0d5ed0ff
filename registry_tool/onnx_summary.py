"""onnx_summary.py: what an ONNX file says about itself, as frozen values. Parses no ONNX: a child process does.

A plugin asks `view.onnx(path)` for one. Names in it are the file's own words and not to be trusted as text.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

INTEGER_TYPES = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))  # of tensors


class OnnxError(ValueError):
    """A file that cannot be used as an ONNX model; one line that says why. code: that of the finding."""

    def __init__(self, message: str, code: str = "onnx-unreadable") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. elem_type: 'float32', 'int64', ... or 'sequence', 'map', 'optional', 'unknown'.

    shape: a size, a name, or None for each axis; None where the file gives no shape.
    """

    name: str
    elem_type: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        """`features float32 [?, 6]`: an open axis has any name, and any size."""
        if self.shape is None:
            return f"{self.name} {self.elem_type} of any shape"
        axes = (str(size) if isinstance(size, int) else "?" for size in self.shape)
        return f"{self.name} {self.elem_type} [{', '.join(axes)}]"


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose values lie in another file, from `offset` on; length None: up to that file's end.

    size: the bytes that its type and shape ask for.
    """

    tensor: str
    elem_type: str
    size: int
    location: str
    offset: int
    length: int | None
    checksum: str | None


@dataclass(frozen=True, slots=True)
class Initializer:
    """A tensor that a graph starts with. n_bytes: of its values in this file; 0 for strings."""

    name: str
    elem_type: str
    dims: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Sized:
    """A node whose output size, or number of rounds, is an input's value. size: its product; None if it is computed."""

    node: str
    op: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the graph computes with an input first: `op` (Add, Sub, Mul, Div) with these constants, in its order.

    A `Scaler` of ai.onnx.ml is a Sub and a Mul. An input that several nodes read has none.
    """

    input: str
    op: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NonFinite:
    """A tensor or attribute that holds NaN, or infinity where it is computed with.

    readers: the operators that compute with its infinities, 'output' for the graph itself; () where it holds NaN.
    Infinities that only mark or bound values (masks, padding, limits of a clip) are not listed.
    """

    name: str
    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """Facts about one file, wherever they are in it: the graph, bodies of If, Loop and Scan, functions.

    values_sha256: one digest of all stored tensor values, whatever the tensors are called and in whatever field they
    are stored; values of other files count where the summary was made with them.
    """

    ir_version: int
    opsets: Mapping[str, int]  # domain -> version; the standard domain is ''
    inputs: tuple[Port, ...]  # those a caller feeds: an input with an initializer is a default, not listed
    outputs: tuple[Port, ...]
    defaults: tuple[str, ...]  # inputs with an initializer: from IR version 4 on a caller may feed other values
    newer: str  # what in it the installed onnx does not know yet, '' for nothing
    external: tuple[ExternalTensor, ...]
    ops: tuple[tuple[str, str], ...]  # (domain, op) of every node anywhere, sorted
    n_nodes: int
    functions: tuple[str, ...]  # model-local ones, domain::name
    initializers: tuple[Initializer, ...]
    unused: tuple[str, ...]  # initializers that no node reads and no graph returns
    non_finite: tuple[NonFinite, ...]
    payloads: tuple[str, ...]  # texts, and tensors that nothing reads, that hold a program, an archive or a pickle
    malformed: tuple[str, ...]  # tensors whose bytes do not fit their type and shape
    sized: tuple[Sized, ...]
    scalings: tuple[Scaling, ...]
    metadata: tuple[tuple[str, int], ...]  # (key, bytes) of all metadata_props
    text_bytes: int  # of all names, documents, metadata and strings together
    training_info: bool
    oddities: tuple[str, ...]  # what the bytes hold beyond the message that ONNX defines
    values_sha256: str

    def to_dict(self) -> dict[str, object]:
        """A JSON document."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: object) -> OnnxSummary:
        """The reverse of `to_dict`. Raises ValueError for a document of any other shape: its writer is not trusted."""
        summary: OnnxSummary = _typed(document, cls)
        return summary


@cache
def _fields(of: type) -> dict[str, Any]:
    return typing.get_type_hints(of)


def _typed(value: object, kind: Any) -> Any:
    """A JSON value as the annotated type; ValueError where it is of another."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        fields = _fields(typing.cast("type", kind))
        if isinstance(value, dict) and value.keys() == fields.keys():
            return typing.cast("type", kind)(**{name: _typed(value[name], fields[name]) for name in fields})
    elif origin is types.UnionType:
        for one in arguments:
            with suppress(ValueError):
                return _typed(value, one)
    elif origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_typed(item, arguments[0]) for item in value)
        if len(value) == len(arguments):
            return tuple(_typed(item, one) for item, one in zip(value, arguments, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {name: _typed(item, arguments[1]) for name, item in value.items()}
    elif type(value) is kind:
        return value
    raise ValueError(f"found {str(value)[:40]!r}, expected {kind}")
