"""spec.py: which columns of a corpus mean what: features, target and its range, conditions. Reads no file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.corpus import vocabulary
from fr_ensemble.corpus.vocabulary import CANONICAL_6
from registry_tool.errors import InputError

KNOWN_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType({"vmaf": (0.0, 100.0), "mos": (1.0, 5.0)})
# Of a condition. By the C library: numpy's own logarithm has other last bits on processors with AVX-512.
TRANSFORMS: Mapping[str, Callable[[float], float]] = MappingProxyType({"none": float, "log2": math.log2})


@dataclass(frozen=True, slots=True)
class Condition:
    """A numeric column that enters the codec block beside the one-hot slots. transform: `none` or `log2`."""

    column: str
    transform: str = "none"

    @classmethod
    def parse(cls, text: str) -> Condition:
        """`cq` or `log2:bitrate_kbps`. Raises InputError for another transform or no column."""
        transform, separator, column = text.rpartition(":")
        if (separator and transform not in TRANSFORMS) or not column:
            raise InputError(f"condition {text!r}: expected COLUMN or log2:COLUMN: correct the option")
        return cls(column, transform or "none")

    def apply(self, values: Float64) -> Float64:
        """The column as models take it. Raises ValueError for a logarithm of what is not positive."""
        if self.transform == "none":
            return values
        return np.fromiter(map(TRANSFORMS[self.transform], values.tolist()), np.float64, len(values))

    def __str__(self) -> str:
        return self.column if self.transform == "none" else f"{self.transform}:{self.column}"


def require_range(low: float, high: float) -> None:
    """Raises InputError for bounds of a target that are none."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"target range: found {low:g}..{high:g}, expected two finite numbers, the lower one first")


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """Which columns of a corpus mean what. Raises InputError for columns that cannot go together.

    target: None for rows to predict. target_range: filled in for `vmaf` and `mos`; any other target must give it.
    """

    features: tuple[str, ...] = CANONICAL_6
    target: str | None = "vmaf"
    conditioning: tuple[Condition, ...] = ()
    vocabulary_version: int = vocabulary.DEFAULT_VERSION
    target_range: tuple[float, float] | None = None
    source_column: str = ""  # that names the sources, where it is not `src`
    encoder_column: str = ""  # that names the encoders, where it is not `encoder`
    raw_conditions: bool = False  # whether members take conditions as they are, which 0 to 1 bounds then
    without_failed: bool = field(default=False, compare=False)  # whether rows to predict are without failed encodes
    by_options: bool = field(default=False, compare=False)  # of `train`, and not of an entry that cannot be changed

    def __post_init__(self) -> None:
        vocabulary.vocabulary(self.vocabulary_version)
        numeric = self.inputs
        if not self.features:
            raise InputError("features: found none, expected at least one numeric column: name one")
        if twice := [name for name, count in Counter(numeric).items() if count > 1]:
            raise InputError(f"column {twice[0]!r}: found twice among features and conditions, expected once: drop one")
        if self.target in numeric:
            raise InputError(f"column {self.target!r}: found as the target and as an input: drop it from the inputs")
        if self.raw_conditions and (log := [c.column for c in self.conditioning if c.transform != "none"]):
            raise InputError(f"condition {log[0]!r}: found a transform, expected none of a raw condition: drop it")
        if self.target is None:
            return
        if self.target_range is None:
            if self.target not in KNOWN_RANGES:
                known = ", ".join(f"{name} {low:g}..{high:g}" for name, (low, high) in KNOWN_RANGES.items())
                hint = "give --target-range LOW,HIGH"
                raise InputError(f"target {self.target!r}: its range is not known (known: {known}): {hint}")
            object.__setattr__(self, "target_range", KNOWN_RANGES[self.target])
        require_range(*self.bounds)

    @property
    def inputs(self) -> list[str]:
        """The columns of numbers that models take, as the file has them: features, then conditions."""
        return [*self.features, *(condition.column for condition in self.conditioning)]

    @property
    def names(self) -> Mapping[str, str]:
        """What rows call a column -> what the file does, where it is another name."""
        source = "" if self.by_encoder else self.source_column
        return {name: column for name, column in (("src", source), ("encoder", self.encoder_column)) if column}

    @property
    def by_encoder(self) -> bool:
        """Whether each encoder counts as a source."""
        return self.source_column == (self.encoder_column or "encoder")

    @property
    def bounds(self) -> tuple[float, float]:
        """The target's range; (-inf, inf) without a target."""
        return self.target_range or (-math.inf, math.inf)

    @property
    def n_slots(self) -> int:
        return len(vocabulary.vocabulary(self.vocabulary_version))
