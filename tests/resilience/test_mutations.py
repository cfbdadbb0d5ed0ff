"""Whatever is changed in a registry's files, `validate` finds, names the right file, and never fails itself.

A sample of what `make stress` runs in full.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mutations
import numpy as np
import onnx_attacks
import pytest
from mutations import Forger, Mutation, Tally, harmless, harmless_in_version_1, run, unproven, unproven_words
from sandbox import Sandbox, to_json

from registry_tool.hookspec import Level
from registry_tool.plugins.manager import Plugins
from registry_tool.workflows.validate import validate

pytestmark = pytest.mark.slow

SEED = 7
Change = TypeVar("Change")


def sample(changes: Iterable[Change], n: int) -> list[Change]:
    everything = list(changes)
    return random.Random(SEED).sample(everything, min(n, len(everything)))


def assert_all_found(tally: Tally) -> None:
    assert tally.tried > 0
    assert (tally.missed, tally.misplaced, tally.tracebacks, tally.slow) == ([], [], [], [])


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("version", [1, 2])
def test_no_change_to_single_models_goes_unseen(tmp_path: Path, plugins: Plugins, version: int, level: Level) -> None:
    """Fields, texts and bytes of a registry of single models; the registry itself has no finding."""
    folder = mutations.singles(tmp_path, version)
    assert validate(folder / "registry.json", plugins, level).findings == ()
    known = harmless if version == 2 else harmless_in_version_1
    fields = list(mutations.registry_changes(folder, known))
    if level is Level.QUICK:  # only the graph knows its opset and its external data
        fields = [m for m in fields if "/opset" not in m.name and "/external_data" not in m.name]
    mixed = sample(fields, 45) + sample(mutations.text_changes(folder), 15)
    mixed += sample(mutations.pinned_changes(folder), 15)
    mixed += sample(mutations.byte_changes(folder, random.Random(SEED), 4), 20)
    assert_all_found(run(folder, plugins, mixed, level))


def test_no_change_to_an_ensemble_goes_unseen(production: Sandbox, plugins: Plugins) -> None:
    """Fields, texts and bytes of a really trained and flipped ensemble."""
    folder, rng = production.folder, random.Random(SEED)
    assert production.findings(plugins=plugins) == ()
    mixed = sample(mutations.registry_changes(folder, harmless), 70) + sample(mutations.text_changes(folder), 20)
    mixed += [*mutations.pinned_changes(folder, partial(sample, n=5))]
    mixed += sample(mutations.byte_changes(folder, rng, 4), 50)
    assert_all_found(run(folder, plugins, mixed))


def test_a_forger_who_fits_every_pin_is_found(production: Sandbox, plugins: Plugins) -> None:
    """Manifest, evidence, verdict and artefacts changed, all digests made to fit: what can be recomputed is."""
    forger, folder = Forger(production), production.folder
    assert_all_found(run(folder, plugins, _real(forger)))


def _nothing(manifest: object) -> None:
    pass


def _real(forger: Forger) -> Iterator[Mutation]:
    yield from forger.manifests(unproven, partial(sample, n=40))
    yield from sample(forger.verdicts(unproven_words), 15)
    yield from forger.summaries(unproven_words, partial(sample, n=5))
    yield from sample(forger.artefacts(random.Random(SEED), 2), 8)


def test_a_forger_who_changes_nothing_is_no_forger(production: Sandbox, plugins: Plugins) -> None:
    """The forger's own pins hold: what the test above finds is the change, not the forgery's seams."""
    tally = run(production.folder, plugins, [Forger(production).forged("nothing", _nothing, {})])
    assert tally.missed == ["nothing"]


@pytest.mark.parametrize("value", ["large", True, 0, -1, 1.5, 2**40, None])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, plugins: Plugins, value: object) -> None:
    """A policy's max_file_bytes is a whole number that memory can hold."""
    folder = mutations.singles(tmp_path, 2)
    document = Sandbox(folder / "registry.json").registry
    document["policies"]["fr"]["max_file_bytes"] = value
    (folder / "registry.json").write_bytes(to_json(document))
    findings = validate(folder / "registry.json", plugins).findings
    assert [f.pointer for f in findings] == ["/policies/fr/max_file_bytes"]


def test_no_forged_evidence_goes_unseen(production: Sandbox, plugins: Plugins) -> None:
    """Other predictions with the summaries they make, and pins that fit up to the registry."""
    assert_all_found(run(production.folder, plugins, sample(Forger(production).evidence(), 25)))


@pytest.mark.parametrize("models", [onnx_attacks.hidden, onnx_attacks.content], ids=lambda models: models.__name__)
def test_no_hostile_model_goes_unseen(tmp_path: Path, plugins: Plugins, models: Any) -> None:
    """Fields of no schema, numbers in other forms, and content that no registry should hold, pinned as they are."""
    folder = mutations.singles(tmp_path, 1)
    assert_all_found(run(folder, plugins, sample(mutations.model_changes(folder, models()), 40)))


def test_random_bytes_of_a_pinned_model_end_nothing(tmp_path: Path, plugins: Plugins) -> None:
    """Another sound model, or an error: no exception, and in time."""
    folder = mutations.singles(tmp_path, 1)
    data = (folder / "plain.onnx").read_bytes()
    changed = onnx_attacks.broken(data, 40, np.random.default_rng(SEED))
    tally = run(folder, plugins, mutations.model_changes(folder, changed))
    assert (tally.tried, tally.tracebacks, tally.slow) == (40, [], [])
