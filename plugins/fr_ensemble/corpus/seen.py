"""seen.py: what training saw of a corpus beyond its inputs, and which rows are unlike it. Opens no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fr_ensemble.arrays import Float64, Int64, Mask, rows_by_name
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.vocabulary import encoder_lines, slot_of
from registry_tool.toolkit import Text
from registry_tool.values import Json

DESCRIBING_COLUMNS = ("fps", "width", "height", "bit_depth")  # of a corpus: what its video is, where it says so
ENCODER_FLAG, INPUT_FLAG = "encoder", "input"


@dataclass(frozen=True, slots=True)
class SeenCorpus:
    """encoders: rows by name, as the corpus has it. ranges: of each of DESCRIBING_COLUMNS that it has in numbers.

    Empty for a manifest of an older release, which does not say it: then nothing is known to be outside.
    """

    encoders: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, corpus: Corpus) -> SeenCorpus:
        encoder = corpus.groups["encoder"]
        encoders = rows_by_name(encoder.codes, encoder.names)
        columns = {name: numbers_of(corpus.groups[name]) for name in DESCRIBING_COLUMNS if name in corpus.groups}
        known = {name: values[np.isfinite(values)] for name, values in columns.items()}
        ranges = {name: (float(values.min()), float(values.max())) for name, values in known.items() if len(values)}
        return cls(dict(sorted(encoders.items())), ranges)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Json]) -> SeenCorpus:
        corpus = manifest["corpus"] if "schema_version" in manifest else {}
        encoders = {item["name"]: item["n_rows"] for item in corpus.get("encoders", ())}
        return cls(encoders, {item["name"]: tuple(item["range"]) for item in corpus.get("ranges", ())})

    def to_dict(self) -> dict[str, Json]:
        """The fields of a manifest's `corpus`."""
        encoders = [{"name": name, "n_rows": count} for name, count in self.encoders.items()]
        ranges = [{"name": name, "range": list(ends)} for name, ends in self.ranges.items()]
        return {"encoders": encoders} | ({"ranges": ranges} if ranges else {})

    def columns(self, found: Sequence[str]) -> list[str]:
        """Those of a file's columns whose range is known."""
        return [name for name in self.ranges if name in found]

    def untrained(self, names: Sequence[str], version: int) -> list[str]:
        """The encoders that have a slot of their own and no row in training: their input was never 1 there."""
        if not self.encoders:
            return []
        trained = {slot_of(name, version) for name in self.encoders}
        return [name for name in names if slot_of(name, version) not in trained]


@dataclass(frozen=True, slots=True)
class RowsUnlike:
    """Which rows are unlike what training saw: flag -> mask (n,), and words on each -> number of rows."""

    masks: Mapping[str, Mask]
    warnings: Mapping[str, int]

    @property
    def text(self) -> Text:
        """The flags of each row, separated by spaces; nothing where it has none."""
        bits = sum(mask.astype(np.int64) << place for place, mask in enumerate(self.masks.values()))
        kinds, codes = np.unique(bits, return_inverse=True)
        names = [*self.masks]
        shown = (" ".join(name for i, name in enumerate(names) if kind >> i & 1) for kind in kinds.tolist())
        return Text(codes.reshape(-1).astype(np.int64), tuple(shown))


def unlike(
    seen: SeenCorpus, encoder: Text, version: int, unknown: Sequence[str], values: Mapping[str, Json]
) -> RowsUnlike:
    """Rows of encoders that training did not see, and of video outside of what it saw.

    unknown: names of encoders without a slot. values: columns of the rows by name, as a file has them.
    """
    untrained = seen.untrained([name for name in encoder.names if name not in unknown], version)
    masks: dict[str, Mask] = {ENCODER_FLAG: _of_names(encoder, {*unknown, *untrained})}
    counts = {repr(name): count for name in untrained if (count := int(_of_names(encoder, {name}).sum()))}
    warnings = encoder_lines(
        counts,
        " is unknown: it has a slot, and training had no row of it",
        " are unknown: they have slots, and training had no row of them",
    )
    for name in seen.columns([*values]):
        low, high = seen.ranges[name]
        numbers = numbers_of(values[name] if isinstance(values[name], Text) else Text.of(values[name]))
        masks[name] = (numbers < low) | (numbers > high)  # False for what is no number
        if count := int(masks[name].sum()):
            warnings[outside_range(name, low, high)] = count
    return RowsUnlike(masks, warnings)


def outside_range(name: str, low: float, high: float) -> str:
    """What is said of a column's numbers beyond those of training."""
    return f"{name} is outside what training saw, {low:g} to {high:g}"


def numbers_of(text: Text) -> Float64:
    """The numbers in a text, (n,); NaN for what is none."""
    return np.array([_number(name) for name in text.names], np.float64)[text.codes]


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan


def _of_names(encoder: Text, names: set[str]) -> Mask:
    codes: Int64 = np.array([code for code, name in enumerate(encoder.names) if name in names], np.int64)
    return np.isin(encoder.codes, codes)
