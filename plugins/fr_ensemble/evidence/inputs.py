"""inputs.py: the inputs of the rows that the evidence predicts, and their file, `inputs.npz`. Runs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fr_ensemble.arrays import Float64, Int64
from fr_ensemble.artifacts.manifest import codec_block
from fr_ensemble.corpus.columns import MAX_TABLE_NUMBER
from fr_ensemble.corpus.digest import RowsDigest
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.oof import CONTROL_CHARACTERS, Oof
from registry_tool.archive import ArchiveFormat, Array, EvidenceProblem, read_arrays, write_arrays
from registry_tool.toolkit import Text

MAX_INPUT_ROWS = 50_000  # of which all inputs are kept: about 2 MB
SAMPLE_ROWS = 512  # of a corpus with more rows
# What running them costs the gate: rows times multiplications, about three seconds. Wider networks keep a sample.
MAX_PRODUCTS = 10**11
INPUTS_VERSION = 1
INPUTS_FORMAT = ArchiveFormat(
    "inputs.npz",
    "The models' inputs of all rows of the corpus, or of a sample of them.",
    {
        "rows": "rows of the corpus that are here",
        "features": "feature columns",
        "conditions": "conditioning columns",
        "encoders": "encoders",
        "clips": "clips",
    },
    {
        "version": Array("i8", (), "Of this format: 1."),
        "n_rows": Array("i8", (), "Rows of the corpus."),
        "row": Array("i8", ("rows",), "Which rows of the corpus these are, ascending from 0."),
        "features": Array("f8", ("rows", "features"), "Features, raw, in the manifest's order."),
        "conditioning": Array("f8", ("rows", "conditions"), "Conditions as the corpus has them, not transformed."),
        "encoders": Array("U", ("encoders",), "Names as the corpus has them."),
        "encoder": Array("i4", ("rows",), "Index into `encoders`."),
        "codec": Array(
            "i4", ("rows",), "The slot of the vocabulary that the encoder took when the models were trained."
        ),
        "clips": Array("U", ("clips",), "Names as the corpus has them; none where it has no such column."),
        "clip": Array("i4", ("rows",), "Index into `clips`; empty where there are none."),
    },
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """m of the n rows of a corpus, as its file has them: F features, K conditions, the encoder, the clip.

    Raises EvidenceProblem for shapes, indexes or numbers that mean nothing.
    """

    n_rows: int  # n
    row: Int64  # (m,), 0..n-1, ascending
    features: Float64  # (m, F)
    conditioning: Float64  # (m, K), not transformed
    encoders: tuple[str, ...]
    encoder: Int64  # (m,), index into encoders
    codec: Int64  # (m,), slot of the vocabulary: another release may know more spellings
    clips: tuple[str, ...] = ()
    clip: Int64 | None = None  # (m,), index into clips

    def __post_init__(self) -> None:
        m = len(self.row)
        ascending = m > 0 and self.row[0] >= 0 and self.row[-1] < self.n_rows and bool((np.diff(self.row) > 0).all())
        if not ascending:
            raise EvidenceProblem(f"inputs.npz row: expected rows of 0..{self.n_rows - 1}, ascending, at least one")
        for name in ("features", "conditioning", "codec"):
            if getattr(self, name).shape[:1] != (m,):
                raise EvidenceProblem(f"inputs.npz {name}: found {len(getattr(self, name))} rows, expected {m}")
        for name, values in (("features", self.features), ("conditioning", self.conditioning)):
            if not (np.abs(values) <= MAX_TABLE_NUMBER).all():  # False for NaN
                raise EvidenceProblem(f"inputs.npz {name}: expected finite numbers up to {MAX_TABLE_NUMBER:g}")
        for name, names, index in (("encoder", self.encoders, self.encoder), ("clip", self.clips, self.clip)):
            if index is not None:
                _check_names(name, names, index, m)

    @classmethod
    def of(cls, corpus: Corpus, rows: Int64) -> Inputs:
        """Some rows of a corpus, by their ascending numbers."""
        encoder = corpus.groups["encoder"]
        clip = None
        if corpus.clip_names is not None and corpus.clip is not None:
            clip = Text.of([corpus.clip_names[c] for c in corpus.clip[rows]])
        used, codes = np.unique(encoder.codes[rows], return_inverse=True)
        return cls(
            corpus.n_rows,
            rows,
            corpus.features[rows],
            corpus.raw_conditioning[rows],
            tuple(encoder.names[code] for code in used),
            codes.reshape(-1).astype(np.int64),
            corpus.codec[rows],
            clip.names if clip is not None else (),
            clip.codes.astype(np.int64) if clip is not None else None,
        )

    @property
    def is_complete(self) -> bool:
        """Whether these are all rows of the corpus."""
        return len(self.row) == self.n_rows

    def transformed(self, spec: ColumnSpec) -> Float64:
        """The numeric inputs, features then conditions, as models take them: float64 (m, F + K).

        Raises EvidenceProblem where the numbers of columns are not the spec's, or a logarithm has no value.
        """
        widths = self.features.shape[1], self.conditioning.shape[1]
        if widths != (len(spec.features), len(spec.conditioning)):
            expected = f"{len(spec.features)} and {len(spec.conditioning)}"
            raise EvidenceProblem(f"inputs.npz: found {widths[0]} features and {widths[1]} conditions, not {expected}")
        try:
            columns = [c.apply(self.conditioning[:, k]) for k, c in enumerate(spec.conditioning)]
        except ValueError:
            raise EvidenceProblem("inputs.npz conditioning: a logarithm needs positive numbers") from None
        return np.column_stack([self.features, *columns])

    def codec_block(self, spec: ColumnSpec) -> Float64:
        """The fused graph's second input, (m, V + K); see `codec_block` in artifacts/manifest.py."""
        if not np.isin(self.codec, np.arange(spec.n_slots)).all():
            raise EvidenceProblem(f"inputs.npz codec: expected slots 0..{spec.n_slots - 1}")
        return codec_block(self.codec, self.transformed(spec)[:, len(spec.features) :], spec.n_slots)

    def rows_sha256(self, oof: Oof, spec: ColumnSpec) -> str:
        """The digest of a complete corpus, recomputed: its targets and sources are those of the predictions."""
        raw: dict[str, Text | Float64] = {
            "src": Text(oof.source, oof.sources),
            "encoder": Text(self.encoder, self.encoders),
        }
        if self.clip is not None:
            raw["clip"] = Text(self.clip, self.clips)
        raw |= dict(zip(spec.features, self.features.T, strict=True))
        raw |= {c.column: column for c, column in zip(spec.conditioning, self.conditioning.T, strict=True)}
        raw[str(spec.target)] = oof.target
        digest = RowsDigest()
        digest.update(raw)
        return digest.hexdigest()


def chosen_rows(n_rows: int, wanted: int) -> Int64:
    """The numbers of `wanted` rows from all over a corpus of `n_rows`, ascending."""
    return np.unique(np.linspace(0, n_rows - 1, min(wanted, n_rows)).astype(np.int64))


def default_rows(n_rows: int, products: int) -> int:
    """Of how many rows the inputs are kept. products: multiplications that the ensemble takes for a row."""
    return n_rows if n_rows <= MAX_INPUT_ROWS and n_rows * products <= MAX_PRODUCTS else min(n_rows, SAMPLE_ROWS)


def write_inputs(inputs: Inputs) -> bytes:
    """`inputs.npz`; the same inputs give the same bytes."""
    clip: Sequence[int] | Int64 = inputs.clip if inputs.clip is not None else ()
    values = {name: getattr(inputs, name) for name in INPUTS_FORMAT.arrays if name not in ("version", "clip")}
    return write_arrays(INPUTS_FORMAT, {**values, "version": INPUTS_VERSION, "clip": clip})


def read_inputs(data: bytes) -> Inputs:
    """The inputs in the bytes of an `inputs.npz`. Raises EvidenceProblem for what `write_inputs` does not write."""
    arrays = read_arrays(INPUTS_FORMAT, data)
    if int(arrays["version"]) != INPUTS_VERSION:
        raise EvidenceProblem(f"inputs.npz: found version {int(arrays['version'])}, expected {INPUTS_VERSION}")
    return Inputs(
        n_rows=int(arrays["n_rows"]),
        row=arrays["row"].astype(np.int64),
        features=arrays["features"],
        conditioning=arrays["conditioning"],
        encoders=tuple(map(str, arrays["encoders"])),
        encoder=arrays["encoder"].astype(np.int64),
        codec=arrays["codec"].astype(np.int64),
        clips=tuple(map(str, arrays["clips"])),
        clip=arrays["clip"].astype(np.int64) if len(arrays["clips"]) else None,
    )


def _check_names(column: str, names: tuple[str, ...], index: Int64, m: int) -> None:
    if index.shape != (m,) or not np.array_equal(np.unique(index), np.arange(len(names))):
        raise EvidenceProblem(f"inputs.npz {column}: expected an index for each of {m} rows, and every name used")
    if control := next((name for name in names if CONTROL_CHARACTERS.search(name)), None):
        raise EvidenceProblem(
            f"inputs.npz {column}s: found {control[:40]!r}, expected names without control characters"
        )
