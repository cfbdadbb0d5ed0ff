"""reproduce.py: trains an ensemble again from its manifest and measures how far it moved. Compares no bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.artifacts.choice import choice_of
from fr_ensemble.artifacts.manifest import codec_block, graph_version_of, spec_of, with_columns_of
from fr_ensemble.artifacts.paths import BASELINES_PATH, LEFT_OUT_PATH, OOF_PATH
from fr_ensemble.artifacts.recipe import RELEASES, TRAINER_VERSION, Recipe
from fr_ensemble.artifacts.runtime import Ensemble
from fr_ensemble.corpus.digest import file_sha256
from fr_ensemble.corpus.rows import Corpus
from fr_ensemble.evidence.baselines import tolerance_of, write_baselines
from fr_ensemble.evidence.entry import baselines_of
from fr_ensemble.evidence.left_out import read_left_out
from fr_ensemble.evidence.methods import INTERVAL_METHODS
from fr_ensemble.evidence.oof import read_oof
from fr_ensemble.evidence.recorded import EvidenceContents
from fr_ensemble.hooks.loaded import ensemble_of, load_trained, predictions_of
from fr_ensemble.hooks.train import BASELINES_LIBRARY, SHIPPED_CORPUS, SHIPPED_NAME, Choosing, Job, make, read
from fr_ensemble.training.execution import COMPILED, REFERENCE, Execution
from registry_tool.archive import EvidenceProblem, same_content
from registry_tool.errors import InputError
from registry_tool.hookspec import Agreement, EntryView, ReproduceRequest, Reproduction, Trained
from registry_tool.values import Json

# Share of the RMS sigma that predictions may move (RMS). Measured, docs/how-to/audit.md: torch's plainest kernels in
# place of AVX-512 move them by 1e-5 of it, one target of 300 that is one point lower by 2e-2, one epoch less by 0.6.
REPRODUCED_TOLERANCE = 1e-3
FOLLOWS_FROM_WEIGHTS = ("/probe", "/intervals/calibrations", "/confidence/conformal_q_residual", "/eval")
ORDER_OF_ADDITION = "the order in which training adds numbers"
CAUSES_IN_TRAINING = {
    "trainer": ORDER_OF_ADDITION,
    "multiply-add": ORDER_OF_ADDITION,
    "machine": ORDER_OF_ADDITION,
    "numba": "how the trainer is compiled",
    "llvmlite": "how the trainer is compiled",
    "numpy": "random streams and sums",
    "libc": "logarithms of conditions",
    "registry-tool": "the trainer",
    **dict.fromkeys(("torch", "cpu", "cpu_capability", "device"), "the order in which the reference trainer adds"),
}
CAUSES_IN_WRITING = {"onnx": "how graphs are written"}


def reproduce(view: EntryView, request: ReproduceRequest) -> Reproduction:
    """Raises InputError for an entry that nothing can be trained from and, before training, for another corpus."""
    manifest, ensemble = load_trained(view)
    if manifest["random_rows"]:
        raise InputError(f"{view.entry.id}: trained on random rows, expected a corpus: there is nothing to reproduce")
    job = _job(view.entry.id, manifest, request)
    corpus = read(job, request.progress)
    found, expected = corpus.rows_sha256, manifest["corpus"]["rows_sha256"]
    if found != expected:
        corpus_path, name = job.corpus or SHIPPED_CORPUS, manifest["corpus"]["name"]
        difference = f"found rows of sha256 {found}, expected {expected} ({name}, {manifest['corpus']['n_rows']} rows)"
        raise InputError(
            f"{corpus_path}: {difference}: name the corpus that {view.entry.id} learned from: --corpus FILE"
        )
    warnings, file_sha256 = [], manifest["corpus"]["sha256"]
    if corpus.sha256 != file_sha256:
        difference = f"found another file with the same rows, sha256 {corpus.sha256}, the manifest says {file_sha256}"
        warnings.append(
            f"{job.corpus or SHIPPED_CORPUS}: {difference}: what it says of the file itself was not checked"
        )
        corpus = replace(corpus, sha256=file_sha256)
    trained = make(job, corpus, request.progress)
    # which figures may not be missing is a fact of the release that wrote it: those that came later are only more
    trained = replace(trained, manifest={**trained.manifest, "metrics_version": manifest.get("metrics_version", 1)})
    if warnings:
        trained = replace(trained, manifest={**trained.manifest, "corpus": manifest["corpus"]})
    try:
        agreements = tuple(_agreements(view, manifest, ensemble, trained, corpus))
    except (ValueError, KeyError) as error:
        raise InputError(f"{view.entry.id}: {error}: run `registry validate`") from error
    moved = any(agreement.largest != 0.0 for agreement in agreements)
    trained, compared, unchecked = _with_baselines(view, manifest, job, corpus, trained)
    agreements, warnings = (*agreements, *compared), [*warnings, *unchecked]
    trained, recompressed = as_compressed(view, trained)
    warnings += [f"{path}: the same content, compressed by another zlib" for path in recompressed]
    return Reproduction(
        trained,
        agreements,
        CAUSES_IN_TRAINING if moved else CAUSES_IN_TRAINING | CAUSES_IN_WRITING,
        FOLLOWS_FROM_WEIGHTS,
        warnings,
        [BASELINES_PATH] * bool(unchecked),
    )


def _with_baselines(
    view: EntryView, manifest: Mapping[str, Json], job: Job, corpus: Corpus, trained: Trained
) -> tuple[Trained, list[Agreement], list[str]]:
    """The same with the entry's own baselines, unless those that are trained now are farther from them than allowed.

    How a BLAS adds, and how a release of scikit-learn grows trees, is no part of the ensemble.
    """
    stored = baselines_of(view)
    if stored is None:
        return trained, [], []
    own = [item for item in manifest["environment"] if item["name"] == BASELINES_LIBRARY]
    made = dict(trained.manifest) | {
        "evidence": [*trained.manifest["evidence"], {"path": BASELINES_PATH}],
        "environment": [*trained.manifest["environment"], *own],
        "baselines": manifest["baselines"],
    }
    stored_kept = replace(trained, files={**trained.files, BASELINES_PATH: view.read(BASELINES_PATH)}, manifest=made)
    from fr_ensemble.training.baselines import fit_baselines, loading_error

    installed = (
        metadata.version(BASELINES_LIBRARY) if find_spec("sklearn") is not None and not loading_error() else None
    )
    if installed is None or installed not in [item["version"] for item in own]:
        found = f"found {installed or 'none'}, expected {', '.join(item['version'] for item in own)}"
        return stored_kept, [], [f"{BASELINES_PATH}: not trained again, as it follows {BASELINES_LIBRARY}: {found}"]
    new = fit_baselines(corpus.training_data(), corpus.rows_sha256, job.execution.jobs)
    if new.names != stored.names:
        raise InputError(f"{view.entry.id}: found the baselines {stored.names}, expected {new.names}: train it again")
    unit, agreements = manifest["target"]["name"], list[Agreement]()
    for place, name in enumerate(new.names):
        for part in ("mean", "spread"):
            old, new_values = (getattr(one, part)[place].astype(np.float64) for one in (stored, new))
            tolerance = tolerance_of(name, corpus.target)
            agreements.append(agreement_of(f"baseline {name}, {part}", old, new_values, tolerance, unit))
    if all(agreement.holds for agreement in agreements):
        return stored_kept, agreements, []
    return replace(stored_kept, files={**stored_kept.files, BASELINES_PATH: write_baselines(new)}), agreements, []


def as_compressed(view: EntryView, trained: Trained) -> tuple[Trained, list[str]]:
    """The same with the entry's own bytes of evidence that has the same content, and the paths of such files."""
    files, recompressed = dict(trained.files), []
    for path, data in trained.files.items():
        with suppress(KeyError):  # the entry lacks what this release records
            stored = view.read(path)
            if path.endswith(".npz") and stored != data and same_content(stored, data):
                files[path] = stored
                recompressed.append(path)
    return replace(trained, files=files), recompressed


def _job(entry_id: str, manifest: Mapping[str, Json], request: ReproduceRequest) -> Job:
    """The run that the manifest describes."""
    try:
        recipe = Recipe.from_dict(manifest["recipe"])
        choice = choice_of(manifest)
    except (ValueError, TypeError) as error:
        raise InputError(f"{entry_id}: {error}: reproduce it with the version that trained it") from error
    if recipe.trainer_version != TRAINER_VERSION:
        difference = f"found trainer_version {recipe.trainer_version}, this program is version {TRAINER_VERSION}"
        release = RELEASES.get(recipe.trainer_version)
        which = f"release {release} of registry-tool" if release else "the version that trained it"
        raise InputError(f"{entry_id}, recipe: {difference}: reproduce it with {which}")
    if (method := manifest["intervals"].get("method")) not in INTERVAL_METHODS:
        raise InputError(f"{entry_id}, intervals: found {method!r}, expected one of {', '.join(INTERVAL_METHODS)}")
    name, path = manifest["corpus"]["name"], request.corpus
    if name == SHIPPED_NAME and path is not None and _is_shipped(path):
        path = None
    if name != SHIPPED_NAME and path is None:
        raise InputError(f"{entry_id}: it learned from {name!r}, which does not ship: name the file: --corpus FILE")
    spec = with_columns_of(spec_of(manifest, target=True), manifest["corpus"])
    execution = Execution(trainer_of(manifest, request.device), request.device, jobs=request.jobs)
    contents, version = EvidenceContents.of(manifest), graph_version_of(manifest)
    choosing = Choosing(choice.candidates) if choice is not None else None
    return Job(entry_id, path, spec, recipe, False, method, execution, name, contents, version, choosing)


def trainer_of(manifest: Mapping[str, Json], device: str) -> str:
    """The trainer that made an entry, where it is installed; the compiled one gives the same models without torch."""
    made = {item["name"]: item["version"] for item in manifest["environment"]}.get("trainer")
    wanted = made == REFERENCE or device != "cpu"
    return REFERENCE if wanted and find_spec("torch") is not None else COMPILED


def _is_shipped(path: Path) -> bool:
    with suppress(OSError):  # reading it says why
        return file_sha256(path) == file_sha256(SHIPPED_CORPUS)
    return False


def _agreements(
    view: EntryView, manifest: Mapping[str, Json], old: Ensemble, trained: Trained, corpus: Corpus
) -> Iterator[Agreement]:
    """Both graphs on the corpus, run by the same engine, and both sets of out-of-fold predictions.

    The scale is the new model's sigma, which no one could have written larger.
    """
    new = ensemble_of(trained.manifest, trained.files[trained.manifest["fused"]["onnx"]])
    unit = manifest["target"]["name"]
    block = codec_block(corpus.codec, corpus.conditioning, corpus.spec.n_slots)
    (mu, sigma), (old_mu, old_sigma) = new.predict(corpus.features, block), old.predict(corpus.features, block)
    tolerance = REPRODUCED_TOLERANCE * _rms(sigma)
    yield agreement_of("mu", old_mu, mu, tolerance, unit)
    yield agreement_of("sigma", old_sigma, sigma, tolerance, unit)
    before, after = predictions_of(view), read_oof(trained.files[OOF_PATH])
    rows = ("seeds", "sources", "source", "clips", "clip", "target")
    if different := [name for name in rows if not np.array_equal(getattr(before, name), getattr(after, name))]:
        raise EvidenceProblem(f"{OOF_PATH}: found other {different[0]} than those of the corpus")
    tolerance = REPRODUCED_TOLERANCE * _rms(after.sigma)
    yield agreement_of("mu of held-out sources", before.mu, after.mu, tolerance, unit)
    yield agreement_of("sigma of held-out sources", before.sigma, after.sigma, tolerance, unit)
    if "encoders_left_out" in manifest:
        old_parts, new_parts = (
            read_left_out(data) for data in (view.read(LEFT_OUT_PATH), trained.files[LEFT_OUT_PATH])
        )
        before, after = old_parts.as_oof(before), new_parts.as_oof(after)
        tolerance = REPRODUCED_TOLERANCE * _rms(after.sigma)
        yield agreement_of("mu of encoders left out", before.mu, after.mu, tolerance, unit)
        yield agreement_of("sigma of encoders left out", before.sigma, after.sigma, tolerance, unit)


def agreement_of(name: str, old: Float64, new: Float64, tolerance: float, unit: str) -> Agreement:
    return Agreement(name, float(np.abs(new - old).max()), _rms(new - old), tolerance, unit)


def _rms(values: Float64) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
