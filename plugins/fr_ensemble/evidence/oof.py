"""oof.py: out-of-fold predictions and their file, `oof.npz`. Measures nothing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fr_ensemble.arrays import Float64, Int64, Mask, Numbers
from fr_ensemble.corpus.rows import Corpus
from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays

P = ParamSpec("P")
R = TypeVar("R")

OOF_VERSION = 1
BLOCK_ROWS = 1 << 16
OOF_FORMAT = ArchiveFormat(
    "oof.npz",
    "Out-of-fold predictions: each row predicted, once for each seed, by the model that did not see the row's source.",
    {"seeds": "members", "rows": "rows of the corpus, in its order", "sources": "sources", "clips": "clips"},
    {
        "version": Array("i8", (), "Of this format: 1."),
        "digests": Array(
            "U64", ("3",), "sha256 of the rows, the recipe and the corpus file; empty where there is none."
        ),
        "seeds": Array("i8", ("seeds",), "The members' seeds."),
        "sources": Array("U", ("sources",), "Names, each once."),
        "source": Array("i4", ("rows",), "Index into `sources`."),
        "clips": Array("U", ("clips",), "Names, each once; none where clips are not known."),
        "clip": Array("i4", ("rows",), "Index into `clips`; empty where clips are not known."),
        "target": Array("f8", ("rows",), "Target, in its units."),
        "predictions": Array("f4", ("seeds", "rows"), "Predictions, in units of the target."),
        "vmaf": Array("f8", ("rows",), "The corpus's plain VMAF, where the target is another.", optional=True),
        "mu_range": Array(
            "f8",
            ("2",),
            "What mu, the members' mean, is cut to; without it mu is uncut. Predictions and sigma never are.",
            optional=True,
        ),
    },
)
# They begin a line where they are printed, or are not seen.
CONTROL_CHARACTERS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


# Measuring takes time by folds (one source held out, one seed), by rows times sources and by pairs of seeds, and memory
# by predictions: within these limits seconds, and less than 1 GiB (benchmarks/evidence_limits.py).
MAX_FOLDS, MAX_ROWS_TIMES_SOURCES, MAX_PREDICTIONS = 5_000, 80_000_000, 5_000_000
MAX_CLIPS = 200_000  # they are calibrated beside the rows
MAX_ROWS = 1_500_000  # they are sorted by each source and at each level, whatever the number of seeds
MAX_SOURCES, MAX_SEEDS = 1_000, 64  # pairs of sources are compared; a manifest may name as many members


def check_size(rows: int, sources: int, seeds: int, clips: int = 0) -> None:
    """Raises EvidenceProblem for more of anything than is measured."""
    for name, found, limit in (
        ("rows", rows, MAX_ROWS),
        ("sources", sources, MAX_SOURCES),
        ("seeds", seeds, MAX_SEEDS),
        ("clips", clips, MAX_CLIPS),
        ("folds (sources times seeds)", sources * seeds, MAX_FOLDS),
        ("rows times sources", rows * sources, MAX_ROWS_TIMES_SOURCES),
        ("predictions (rows times seeds)", rows * seeds, MAX_PREDICTIONS),
    ):
        if found > limit:
            raise EvidenceProblem(
                f"{name}: found {found}, expected at most {limit}: join sources, or take fewer rows or seeds"
            )


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
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
    mu_range: tuple[float, float] | None = None  # what mu is cut to, as in fused graphs since version 2
    encoders: tuple[str, ...] | None = None  # where intervals are calibrated by encoder: as `encoder_name` names them
    encoder: Int64 | None = None  # (n,), index into encoders

    def __post_init__(self) -> None:
        n = len(self.target)
        check_size(n, len(self.sources), len(self.seeds), len(self.clips or ()))
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
                place = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
                raise EvidenceProblem(f"{name}{place}: found {values[tuple(place)]}, expected finite numbers")
        if self.mu_range is not None and not -np.inf < self.mu_range[0] < self.mu_range[1] < np.inf:
            raise EvidenceProblem(f"mu_range: found {self.mu_range}, expected two finite numbers, the lower one first")
        _check_index("source", self.source, self.sources, n)
        _check_both("clip", self.clip, self.clips, n)
        _check_both("encoder", self.encoder, self.encoders, n)
        if self.clip is not None and len(np.unique(self.clip * len(self.sources) + self.source)) != len(
            self.clips or ()
        ):
            raise EvidenceProblem("clip: found a clip with rows of two sources, expected one source a clip")

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        seeds: Sequence[int],
        predictions: NDArray[Any],
        recipe_sha256: str,
        vmaf: Float64 | None = None,
        mu_range: tuple[float, float] | None = None,
    ) -> Oof:
        """The out-of-fold predictions (S, n) of a corpus."""
        rows = (corpus.sources, corpus.source, corpus.clips, corpus.clip)
        digests = (corpus.rows_sha256, recipe_sha256, corpus.sha256)
        return cls(tuple(seeds), *rows, corpus.target, predictions, *digests, vmaf, mu_range)

    @property
    def mu(self) -> Float64:
        """Mean over members, (n,), inside `mu_range`."""
        return cut(mean_of(self.predictions), self.mu_range)

    @property
    def sigma(self) -> Float64:
        """Sample standard deviation over members (ddof 1), (n,)."""
        return deviation_of(self.predictions)

    @property
    def pooled(self) -> Oof:
        """The same, whose encoders are not told apart."""
        return self if self.encoder is None else replace(self, encoders=None, encoder=None)

    def rows_by(self, encoder: str) -> Mask:
        """Which rows are by an encoder, (n,). Raises ValueError for a name that none has."""
        if self.encoder is None or self.encoders is None:
            raise ValueError(f"predictions: found no encoders, expected {encoder} among them")
        rows: Mask = self.encoder == self.encoders.index(encoder)
        return rows

    def of_encoder(self, name: str) -> Oof:
        """The rows of one encoder, as if there were no others. Raises what `rows_by` raises."""
        return self.pooled.of_rows(self.rows_by(name))

    def of_rows(self, rows: Mask) -> Oof:
        """Some of the rows (n,), with their sources, clips and encoders alone."""
        sources, source = used_names(self.sources, self.source[rows])
        clips, clip = (None, None) if self.clip is None else used_names(self.clips or (), self.clip[rows])
        encoders, encoder = (
            (None, None) if self.encoder is None else used_names(self.encoders or (), self.encoder[rows])
        )
        return replace(
            self,
            sources=sources,
            source=source,
            clips=clips,
            clip=clip,
            target=self.target[rows],
            predictions=self.predictions[:, rows],
            vmaf=None if self.vmaf is None else self.vmaf[rows],
            encoders=encoders,
            encoder=encoder,
        )


def used_names(names: tuple[str, ...], index: Int64) -> tuple[tuple[str, ...], Int64]:
    """The names that an index uses, and the index into these."""
    used, place = np.unique(index, return_inverse=True)
    return tuple(names[code] for code in used.tolist()), place.reshape(-1).astype(np.int64)


def remembered(function: Callable[Concatenate[Oof, P], R]) -> Callable[Concatenate[Oof, P], R]:
    """Keep the results of a function of predictions for as long as these live, so that they are computed once.

    Of shared predictions alone, whose arrays are read-only (see entry.py): others may be changed between two calls.
    """
    results: WeakKeyDictionary[Oof, dict[tuple[object, ...], R]] = WeakKeyDictionary()
    signature = inspect.signature(function)

    @wraps(function)
    def remembering(oof: Oof, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if oof.target.flags.writeable:
            return function(oof, *args, **kwargs)
        bound = signature.bind(oof, *args, **kwargs)
        bound.apply_defaults()
        key = tuple(tuple(value) if isinstance(value, list) else value for value in [*bound.arguments.values()][1:])
        known = results.setdefault(oof, {})
        if key not in known:
            known[key] = function(oof, *args, **kwargs)
        return known[key]

    return remembering


def cut(mu: Float64, mu_range: tuple[float, float] | None) -> Float64:
    """mu inside its range; None is no range."""
    return mu if mu_range is None else np.clip(mu, *mu_range)


def mean_of(predictions: Numbers) -> Float64:
    """Mean over members, float64 (n,), of predictions (S, n)."""
    mean = np.empty(predictions.shape[1])
    for rows in _blocks(predictions):
        mean[rows] = predictions[:, rows].astype(np.float64).mean(axis=0)
    return mean


def deviation_of(predictions: Numbers) -> Float64:
    """Sample standard deviation over members (ddof 1), float64 (n,), of predictions (S, n)."""
    deviation = np.empty(predictions.shape[1])
    for rows in _blocks(predictions):
        deviation[rows] = predictions[:, rows].astype(np.float64).std(axis=0, ddof=1)
    return deviation


def _blocks(predictions: Numbers) -> Iterator[slice]:
    """Some columns at a time: temporaries of all would be as large as the predictions."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, predictions.shape[1], BLOCK_ROWS))


def write_oof(oof: Oof, archive_format: ArchiveFormat = OOF_FORMAT) -> bytes:
    """`oof.npz`: a zip of .npy files without pickles; the same predictions give the same bytes."""
    clips, clip = (oof.clips, oof.clip) if oof.clips is not None else ((), ())
    values: dict[str, object] = {
        "version": OOF_VERSION,
        "digests": [oof.rows_sha256, oof.recipe_sha256, oof.corpus_sha256 or ""],
        **{name: getattr(oof, name) for name in ("seeds", "sources", "source", "target", "predictions")},
        "clips": clips,
        "clip": clip,
    }
    if oof.vmaf is not None:
        values |= {"vmaf": oof.vmaf}
    if oof.mu_range is not None:
        values |= {"mu_range": oof.mu_range}
    if oof.encoders is not None:
        values |= {"encoders": oof.encoders, "encoder": oof.encoder}
    return write_arrays(archive_format, values)


def read_oof(data: bytes, archive_format: ArchiveFormat = OOF_FORMAT) -> Oof:
    """The predictions in the bytes of an `oof.npz`.

    Raises EvidenceProblem for anything but exactly the arrays of its format.
    """
    arrays = read_arrays(archive_format, data)
    if int(arrays["version"]) != OOF_VERSION or arrays["digests"].shape != (3,):
        raise EvidenceProblem(
            f"{archive_format.file}: found version {int(arrays['version'])}, expected {OOF_VERSION} and three digests"
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
        mu_range=_ends(arrays["mu_range"]) if "mu_range" in arrays else None,
        encoders=tuple(map(str, arrays["encoders"])) if "encoders" in arrays else None,
        encoder=arrays["encoder"].astype(np.int64) if "encoder" in arrays else None,
    )


def _ends(array: Float64) -> tuple[float, float]:
    if array.shape != (2,):
        raise EvidenceProblem(f"mu_range: found the shape {array.shape}, expected two numbers")
    return float(array[0]), float(array[1])


def _check_both(name: str, index: Int64 | None, names: tuple[str, ...] | None, n: int) -> None:
    if (names is None) != (index is None):
        raise EvidenceProblem(f"{name}: found one of {name}s and {name} index, expected both or neither")
    if names is not None and index is not None:
        _check_index(name, index, names, n)


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
