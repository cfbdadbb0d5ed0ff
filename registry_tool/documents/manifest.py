"""manifest.py: what the core reads of any kind's manifest: see schemas/manifest.schema.json. Checks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from registry_tool.values import EMPTY, Json


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What an entry predicts. range: empty where none is recorded.

    definition: the model that computed the target, such as vmaf_v0.6.1, by that libvmaf.
    """

    name: str
    range: Sequence[Json] = ()
    definition: str | None = None
    libvmaf: str | None = None


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """The rows an entry was trained on."""

    n_rows: int
    sources: Sequence[Json]
    name: str | None = None
    rows_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class CalibrationFacts:
    """What the intervals of an entry are calibrated on whose models are its parent's. offset: added to predictions."""

    parent: str
    corpus: CorpusFacts
    offset: float | None = None
    group: str | None = None

    def __str__(self) -> str:
        """For people."""
        found = f"{self.corpus.n_rows} rows of {len(self.corpus.sources)} sources"
        by = f" by {self.group}" if self.group else ""
        offset = f", offset {self.offset:+.4g}" if self.offset is not None else ""
        return f"{self.corpus.name or 'a corpus'}: {found}{by}{offset}; models of {self.parent}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a manifest that mean the same for every kind. A part that is absent, or of another shape, is none.

    random_rows: trained on random rows, so that it is never production. inputs: names of features, in order.
    encoders: names that the model tells apart. recipe: settings of the training. environment: name -> version of what
    it was made with.
    """

    random_rows: bool = False
    target: TargetFacts | None = None
    corpus: CorpusFacts | None = None
    inputs: Sequence[Json] = ()
    encoders: Sequence[Json] = ()
    n_members: int | None = None
    recipe: Mapping[str, Json] | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    calibration: CalibrationFacts | None = None

    @classmethod
    def of(cls, document: Mapping[str, Json] | None) -> Manifest:
        """document: a view's manifest; None where the entry has none."""
        document = document or EMPTY
        recipe = document.get("recipe")
        return cls(
            bool(document.get("random_rows")),
            _target(document.get("target")),
            _corpus(document.get("corpus")),
            _list(document, "feature_order") or (),
            _list(document, "codec_vocab") or (),
            None if (members := _list(document, "members")) is None else len(members),
            recipe if isinstance(recipe, Mapping) else None,
            _environment(_list(document, "environment") or ()),
            _calibration(document.get("calibrated_from"), document.get("calibration")),
        )


def _target(value: Json) -> TargetFacts | None:
    if not isinstance(value, Mapping) or not isinstance(name := value.get("name"), str):
        return None
    bounds = _list(value, "range") or ()
    if "range" in value and not bounds:
        return None
    return TargetFacts(name, bounds, _text(value, "definition"), _text(value, "libvmaf"))


def _corpus(value: Json) -> CorpusFacts | None:
    if not isinstance(value, Mapping) or not (sources := _list(value, "sources")):
        return None
    n_rows = value.get("n_rows")
    if not isinstance(n_rows, int) or isinstance(n_rows, bool):
        return None
    return CorpusFacts(n_rows, sources, _text(value, "name"), _text(value, "rows_sha256"))


def _calibration(origin: Json, value: Json) -> CalibrationFacts | None:
    if not isinstance(origin, Mapping) or not isinstance(value, Mapping):
        return None
    parent, corpus, offset = _text(origin, "id"), _corpus(value.get("corpus")), value.get("offset")
    if parent is None or corpus is None:
        return None
    known = float(offset) if isinstance(offset, int | float) and not isinstance(offset, bool) else None
    return CalibrationFacts(parent, corpus, known, _text(value, "group"))


def _environment(items: Sequence[Json]) -> dict[str, str]:
    objects = [item for item in items if isinstance(item, Mapping)]
    return {str(item["name"]): str(item["version"]) for item in objects if {"name", "version"} <= item.keys()}


def _list(document: Mapping[str, Json], name: str) -> Sequence[Json] | None:
    value = document.get(name)
    return value if isinstance(value, list | tuple) else None


def _text(document: Mapping[str, Json], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
