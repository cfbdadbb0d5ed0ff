"""recorded.py: what a run records of its corpus beside predictions: inputs and fingerprints. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.paths import FINGERPRINTS_PATH, INPUTS_PATH
from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.corpus.fingerprints import Fingerprints, reference_fingerprints
from fr_ensemble.corpus.giveaway import giveaways
from fr_ensemble.corpus.record import column_names
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.fingerprints import write_fingerprints
from fr_ensemble.evidence.inputs import Inputs, chosen_rows, default_rows, write_inputs
from registry_tool.errors import InputError
from registry_tool.hookspec import Progress, silent
from registry_tool.values import EMPTY, Json


@dataclass(frozen=True, slots=True)
class EvidenceContents:
    """What evidence is to hold beside predictions. input_rows: None is all rows of a corpus that is not too large.

    inputs, fingerprints: False for evidence as older releases wrote it, without a word of them. baselines: whether
    standard models are trained beside the ensemble. encoders_left_out: whether each encoder is left out once.
    """

    input_rows: int | None = None
    inputs: bool = True
    fingerprints: bool = True
    baselines: bool = True
    encoders_left_out: bool = False

    @classmethod
    def of(cls, manifest: Mapping[str, Json]) -> EvidenceContents:
        """What the evidence of this manifest holds but for baselines, which are compared on their own."""
        recorded = manifest.get("evidence_inputs")
        rows = recorded["n_rows"] if recorded else None
        has = {name: name in manifest for name in ("fingerprints", "encoders_left_out")}
        return cls(rows, recorded is not None, baselines=False, **has)


ALL_EVIDENCE = EvidenceContents()


@dataclass(frozen=True, slots=True)
class Recorded:
    """files: by path. fields: of the manifest. warnings: what looks odd."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    fields: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def record(
    corpus: Corpus, path: Path | None, recipe: Recipe, contents: EvidenceContents, progress: Progress = silent
) -> Recorded:
    """The files of a corpus's inputs and fingerprints. path: of its file, None for random rows.

    Raises InputError for sources that are one source: no gate could judge an ensemble that was trained on them.
    """
    files, fields = dict[str, bytes](), dict[str, Json]()
    names, inputs = inputs_of(corpus)
    forms = (tuple(inputs.T), (*corpus.features.T, *corpus.conditioning.T))
    warnings = giveaways(names, forms, corpus.target, corpus.source)
    if contents.fingerprints:
        fingerprints = fingerprints_of(corpus, path, progress)
        pairs = fingerprints.compared()
        if problems := pairs.problems():
            column = corpus.spec.source_column or "src"
            raise InputError(f"{path}: {problems[0]}: give them one name in the column {column}")
        warnings += pairs.shifts()
        files[FINGERPRINTS_PATH] = write_fingerprints(fingerprints)
        fields["fingerprints"] = {"columns": list(fingerprints.columns)}
    if contents.inputs:
        products = len(recipe.seeds) * recipe.hidden * (recipe.hidden + len(names) + corpus.spec.n_slots)
        asked = default_rows(corpus.n_rows, products) if contents.input_rows is None else contents.input_rows
        rows = chosen_rows(corpus.n_rows, asked)
        if len(rows):
            files[INPUTS_PATH] = write_inputs(Inputs.of(corpus, rows))
        fields["evidence_inputs"] = {"n_rows": len(rows)}
    return Recorded(files, fields, tuple(warnings))


def inputs_of(corpus: Corpus) -> tuple[list[str], Float64]:
    """Names and values (n, F + K) of the numeric inputs as the file has them."""
    return corpus.spec.inputs, np.column_stack([corpus.features, corpus.raw_conditioning])


def fingerprints_of(corpus: Corpus, path: Path | None, progress: Progress = silent) -> Fingerprints:
    """Of a corpus's sources, whatever column names them: which columns describe a reference is seen by `src`.

    Encoders have references in common: where each counts as a source, rows alone are compared.
    """
    names, inputs = inputs_of(corpus)
    reference, is_grouped = None, corpus.spec.source_column not in ("", "src")
    if path is not None and not corpus.spec.by_encoder:
        is_grouped = is_grouped and "src" in column_names(path)
        reference = reference_fingerprints(path, names, progress, EMPTY if is_grouped else corpus.spec.names)
        if reference is not None and is_grouped:
            kept = [name for name in reference.columns if name in names]
            values = inputs[:, [names.index(name) for name in kept]]
            reference = Fingerprints.of(kept, corpus.sources, corpus.source, values)
    known = (reference or Fingerprints((), corpus.sources, ())).with_rows(corpus.source, inputs)
    return known if corpus.spec.by_encoder else known.with_motion(names, corpus.source, inputs)
