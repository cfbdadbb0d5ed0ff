"""entry.py: the evidence that an open entry pins, read and recomputed once for all who ask. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from fr_ensemble.artifacts.manifest import is_current
from fr_ensemble.artifacts.paths import OOF_PATH, summary_path
from fr_ensemble.evidence.archive import EvidenceProblem
from fr_ensemble.evidence.loso import Expected, FoldScores, recompute
from fr_ensemble.evidence.oof import Oof, read_oof
from fr_ensemble.evidence.summaries import read_summaries
from registry_tool.errors import InputError
from registry_tool.hookspec import EntryView


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class EntryEvidence:
    """Out-of-fold predictions and their scores. They are shared, so their arrays are read-only."""

    oof: Oof
    scores: FoldScores

    @classmethod
    def of(cls, oof: Oof) -> EntryEvidence:
        return cls(oof, FoldScores.of(oof))


# Known by the very bytes they came from, compared whole, so that a file that changed is measured again; known as long
# as a view that read them is open.
_by_bytes: WeakValueDictionary[bytes, EntryEvidence] = WeakValueDictionary()
_by_view: WeakKeyDictionary[EntryView, EntryEvidence] = WeakKeyDictionary()


def evidence_of(view: EntryView) -> EntryEvidence:
    """What the entry pins at OOF_PATH. Raises KeyError where it pins nothing there, EvidenceProblem for bad bytes."""
    data = view.read(OOF_PATH)
    found = _by_bytes.get(data)
    if found is None:
        found = _by_bytes[data] = EntryEvidence.of(read_oof(data))
        for part in (found.oof, found.scores):
            for array in (getattr(part, field.name) for field in fields(part)):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)
    _by_view[view] = found
    return found


def checked_evidence(view: EntryView) -> tuple[EntryEvidence, tuple[str, ...]]:
    """The entry's predictions and scores, and every contradiction among its evidence and its manifest.

    Raises InputError for an entry without evidence or with files that cannot be read.
    """
    manifest = view.manifest
    if manifest is None or not is_current(manifest):
        raise InputError(f"{view.entry.id}: its manifest pins no evidence, expected {OOF_PATH}: train it again")
    seeds = [member["seed"] for member in manifest["members"]]
    try:
        found = evidence_of(view)
        files = {summary_path(seed): view.read(summary_path(seed)) for seed in seeds}
    except (EvidenceProblem, KeyError) as error:
        raise InputError(f"{view.entry.id}: {error}: train it again") from error
    summaries, misnamed = read_summaries(files)
    corpus, (low, high) = manifest["corpus"], manifest["target"]["range"]
    digests = (corpus["rows_sha256"], manifest["recipe_sha256"], corpus["sha256"])
    expected = Expected(seeds, *digests, target_range=(low, high))
    problems = [*misnamed, *recompute(found.oof, summaries, expected, found.scores).problems]
    oof = found.oof
    for name, value, claimed in (
        ("number of rows", len(oof.target), corpus["n_rows"]),
        ("set of sources", list(oof.sources), corpus["sources"]),
        ("corpus file", bool(oof.corpus_sha256), bool(corpus["sha256"])),  # two digests that differ are found above
        ("corpus", {summary.get("corpus") for summary in summaries.values()}, {corpus["name"]}),
    ):
        if value != claimed:
            problems.append(f"evidence of another {name}: found {value}, the manifest says {claimed}")
    return found, tuple(problems)
