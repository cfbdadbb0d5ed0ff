"""predictions.py: OOF predictions on random rows, and their files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fr_ensemble.corpus.rows import random_corpus
from fr_ensemble.corpus.sources import SourceRows
from fr_ensemble.corpus.spec import ColumnSpec
from fr_ensemble.evidence.loso import Expected, read_foreign, recompute, to_files
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.summaries import read_summaries

CORPUS = random_corpus(160, ColumnSpec(), 1)
ROWS = SourceRows.of(CORPUS)
RECIPE = "ab" * 32
SEEDS = (0, 1, 2)


def make_oof(**changes):
    noise = np.random.default_rng(2).normal(size=(3, 160))
    return replace(Oof.of(CORPUS, SEEDS, CORPUS.target + noise, RECIPE), **changes)


OOF = make_oof()
FILES = to_files(OOF, "corpus.parquet")


def summaries(files=FILES):
    found, problems = read_summaries(files)
    assert not problems
    return found


def measure(oof, documents, **expected):
    """Metrics, problems and details of predictions with their summaries."""
    scores, problems = recompute(oof, documents, Expected(**expected))
    return compute_metrics(MetricInputs(scores)), problems, scores.details()


def measure_foreign(files, **expected):
    """The same of foreign summaries alone; nothing but problems where their folds make no table."""
    scores, problems = read_foreign(files, Expected(**expected))
    return (compute_metrics(MetricInputs(scores)), problems, scores.details()) if scores else ({}, problems, {})


def set_fold(index, **values):
    return lambda document: document["folds"][index].update(values)
