"""Tests of verify.py on an ensemble's files: graphs and evidence that are not ours, however well they are pinned."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_models
from fr_ensemble.artifacts.graphs import fused_model, member_model, read_weights
from fr_ensemble.artifacts.manifest import fused_format_of, scaler_of
from fr_ensemble.evidence import loso
from fr_ensemble.evidence.oof import Oof, read_oof, write_oof
from registries import FEATURES, Made
from sandbox import Sandbox, to_json

# ---- graphs -----------------------------------------------------------------------------------------------------


def member(box: Sandbox, seed: int) -> bytes:
    return (box.artifacts / f"tiny_seed{seed}.onnx").read_bytes()


def fused_of(box: Sandbox, members: list[bytes]) -> bytes:
    weights = [read_weights(data) for data in members]
    manifest = box.manifest
    n_slots, fused_format = len(manifest["codec_vocab"]), fused_format_of(manifest)
    return bytes(fused_model(weights, scaler_of(manifest), len(FEATURES), n_slots, fused_format))


def nudged(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """A member with its first weights changed."""
    weights = read_weights(data)
    return bytes(member_model(replace(weights, w1=change(np.array(weights.w1))), len(FEATURES)))


def test_the_fused_graph_can_be_made_again(smoke: Sandbox) -> None:
    """Members and scaler give the fused graph byte for byte: that is what makes all of this decidable."""
    assert fused_of(smoke, [member(smoke, seed) for seed in range(3)]) == (smoke.artifacts / "tiny.onnx").read_bytes()


def test_a_member_in_two_places_is_found(smoke: Sandbox) -> None:
    """One member's weights under two seeds, fused graph made to fit: a collapsed ensemble in disguise."""
    copies = [member(smoke, 0), member(smoke, 0), member(smoke, 2)]
    files = {"tiny_seed1.onnx": copies[1], "tiny.onnx": fused_of(smoke, copies)}
    assert ("ensemble-member-twice", "/members/1/sha256") in smoke.forged(files=files)


def test_copies_with_permuted_units_are_found_once_each(smoke: Sandbox) -> None:
    """One member under three seeds, hidden units in other orders, the fused graph made to fit: no file is another's."""
    one, rng = read_weights(member(smoke, 0)), np.random.default_rng(0)
    copies = [member(smoke, 0)]
    for _ in range(2):
        order = rng.permutation(len(one.b1))
        permuted = replace(one, w1=one.w1[:, order], b1=one.b1[order], w2=one.w2[order])
        copies.append(bytes(member_model(permuted, len(FEATURES))))
    files = {f"tiny_seed{seed}.onnx": data for seed, data in enumerate(copies)} | {"tiny.onnx": fused_of(smoke, copies)}
    found = smoke.forged(files=files)
    places = [place for code, place in found if code == "ensemble-member-twice"]
    assert sorted(places) == ["/members/1/onnx", "/members/2/onnx"]


def test_an_entry_that_does_not_validate_is_held(smoke: Sandbox) -> None:
    """By evidence that is good: the gate says which finding is in its way."""
    assert smoke.gate().promotes
    smoke.forge(lambda manifest: manifest["probe"]["mu"].__setitem__(0, 50.0))
    held = smoke.gate()
    assert (held.promotes, [reason[:15] for reason in held.reasons]) == (False, ["ensemble-probe:"])


def test_members_that_were_changed_are_found(smoke: Sandbox) -> None:
    """A nudged weight without a new fused graph, and with one: then neither probe nor in-sample figures fit."""
    changed = {"tiny_seed0.onnx": nudged(member(smoke, 0), lambda w: w * 1.05)}
    assert smoke.forged(files=changed) == [("ensemble-fused", "/fused/onnx")]
    fused = fused_of(smoke, [member(smoke, seed) for seed in range(3)])
    found = smoke.forged(files={"tiny.onnx": fused})
    assert {code for code, _ in found} == {"ensemble-probe", "evidence-problem"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_found(smoke: Sandbox, value: float) -> None:
    """NaN and infinity in a member, whatever else fits."""
    data = member(smoke, 0)
    raw = np.float32(read_weights(data).w1.flat[0]).tobytes()
    assert data.count(raw) == 1
    files = {"tiny_seed0.onnx": data.replace(raw, np.float32(value).tobytes())}
    assert "onnx-not-finite" in {code for code, _ in smoke.forged(files=files)}


def other_graph(box: Sandbox, made: Made, name: str) -> bytes:
    return bytes(tiny_models.model(codec=12).SerializeToString())


def trailing(box: Sandbox, made: Made, name: str) -> bytes:
    return (box.artifacts / name).read_bytes() + b"\x00"


def of_another_ensemble(box: Sandbox, made: Made, name: str) -> bytes:
    """A sound graph of the same shape: another training's member, or a fused graph of other members."""
    return (Sandbox(made.random / "registry.json").artifacts / name).read_bytes()


def a_note_more(box: Sandbox, made: Made, name: str) -> bytes:
    """An ONNX file with the same weights and a word in its documentation."""
    import onnx

    model = onnx.load_model_from_string((box.artifacts / name).read_bytes())
    model.doc_string = "hello"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("make", [other_graph, trailing, of_another_ensemble, a_note_more, lambda box, made, name: b""])
@pytest.mark.parametrize("name", ["tiny_seed0.onnx", "tiny.onnx"])
def test_a_file_that_is_not_the_one_we_write_is_found(smoke: Sandbox, made: Made, make: Any, name: str) -> None:
    """Another graph, another ensemble's member, trailing bytes, a hidden note: an error, whichever file it is."""
    found = smoke.forged(files={name: make(smoke, made, name)})
    assert found != []
    assert {code.split("-")[0] for code, _ in found} <= {"ensemble", "onnx", "evidence"}
    assert {code.split("-")[0] for code, _ in found} != {"evidence"}


@pytest.mark.parametrize(
    "name", ["tiny.onnx", "tiny_seed1.onnx", "evidence/oof.npz", "evidence/loso_seed1.json", "manifest.json"]
)
@pytest.mark.parametrize("place", [0, 0.37, 0.93])
def test_a_changed_byte_names_its_file(smoke: Sandbox, name: str, place: float) -> None:
    """A byte changed without a pin: one error, and it names the file."""
    path = smoke.artifacts / name
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x20
    path.write_bytes(data)
    [finding] = [f for f in smoke.findings() if f.severity == "error"]
    assert finding.code == "digest-mismatch"
    assert name in finding.message


# ---- evidence ---------------------------------------------------------------------------------------------------


def changed_oof(box: Sandbox, change: Callable[[Oof], Oof], *, summaries: bool) -> dict[str, bytes]:
    """Evidence files with other predictions; summaries: made to fit them."""
    oof = change(read_oof((box.artifacts / "evidence/oof.npz").read_bytes()))
    return loso.to_files(oof, "corpus.csv") if summaries else {"evidence/oof.npz": write_oof(oof)}


def better(oof: Oof) -> Oof:
    """Every prediction half as far from the truth."""
    return replace(oof, predictions=(oof.predictions + oof.target) / 2)


def copied(oof: Oof) -> Oof:
    predictions = oof.predictions.copy()
    predictions[1] = predictions[0]
    return replace(oof, predictions=predictions)


def copied_fold(oof: Oof) -> Oof:
    predictions = oof.predictions.copy()
    predictions[1, oof.source == 2] = predictions[0, oof.source == 2]
    return replace(oof, predictions=predictions)


def collapsed(oof: Oof) -> Oof:
    noise = np.arange(len(oof.seeds))[:, None] * 1e-5
    return replace(oof, predictions=np.broadcast_to(oof.predictions[0], oof.predictions.shape) + noise)


def constant(oof: Oof) -> Oof:
    predictions = oof.predictions.copy()
    predictions[0, oof.source == 0] = 50.0
    return replace(oof, predictions=predictions)


def fewer_rows(oof: Oof) -> Oof:
    return replace(
        oof,
        source=oof.source[1:],
        target=oof.target[1:],
        predictions=oof.predictions[:, 1:],
        clip=None if oof.clip is None else oof.clip[1:],
    )


def renamed(oof: Oof) -> Oof:
    return replace(oof, sources=tuple(f"x{source}" for source in oof.sources))


EVIDENCE: list[tuple[str, Callable[[Oof], Oof], bool, str]] = [
    ("better predictions, old summaries", better, False, "evidence-problem"),
    ("better predictions, new summaries", better, True, "evidence-disagrees"),
    ("a seed copied", copied, True, "evidence-problem"),
    ("a fold copied", copied_fold, True, "evidence-problem"),
    ("members that agree", collapsed, True, "evidence-problem"),
    ("a fold of one number", constant, True, "evidence-problem"),
    ("a row less", fewer_rows, True, "evidence-problem"),
    ("another seed", lambda oof: replace(oof, seeds=(0, 1, 9)), True, "evidence-problem"),
    ("a seed twice", lambda oof: replace(oof, seeds=(0, 1, 1)), False, "evidence-problem"),
    ("sources renamed", renamed, True, "evidence-problem"),
    ("another corpus", lambda oof: replace(oof, rows_sha256="0" * 64), True, "evidence-problem"),
    ("another corpus file", lambda oof: replace(oof, corpus_sha256="0" * 64), True, "evidence-problem"),
    ("another recipe", lambda oof: replace(oof, recipe_sha256="0" * 64), True, "evidence-problem"),
    ("another target", lambda oof: replace(oof, target=oof.target[::-1].copy()), True, "evidence-disagrees"),
]


@pytest.mark.parametrize(("what", "change", "fit", "code"), EVIDENCE, ids=[case[0] for case in EVIDENCE])
def test_evidence_that_was_changed_is_found(
    smoke: Sandbox, what: str, change: Callable[[Oof], Oof], fit: bool, code: str
) -> None:
    """Out-of-fold predictions of another run, polished or copied, though every digest fits."""
    files = {name: data for name, data in changed_oof(smoke, change, summaries=fit).items() if "seed9" not in name}
    assert code in {code for code, _ in smoke.forged(files=files)}


def archive(**arrays: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, data in arrays.items():
            made.writestr(f"{name}.npy", data)
    return stream.getvalue()


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, predictions=np.array([{"a": 1}], dtype=object))
    return stream.getvalue()


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("predictions.npy", bytes(1 << 22))
    return stream.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK", archive(), archive(target=b"\x93NUMPY"), pickled(), bomb()])
def test_evidence_that_is_no_evidence_is_found(smoke: Sandbox, data: bytes) -> None:
    """No archive, other arrays, pickles: one finding, nothing is unpickled."""
    found = smoke.forged(files={"evidence/oof.npz": data})
    assert found == [("evidence-unusable", "/evidence")]


def summary(box: Sandbox, seed: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((box.artifacts / f"evidence/loso_seed{seed}.json").read_bytes())
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda one, other: other,
        lambda one, other: {**other, "seed": 0},
        lambda one, other: {**one, "mean_plcc": 0.9999},
        lambda one, other: {**one, "mean_plcc": True},
        lambda one, other: {**one, "mean_plcc": None},
        lambda one, other: {**one, "folds": one["folds"][1:]},
        lambda one, other: {**one, "folds": [*one["folds"], one["folds"][0]]},
        lambda one, other: {**one, "n_folds": 4},
        lambda one, other: {**one, "recipe_sha256": "0" * 64},
        lambda one, other: {key: value for key, value in one.items() if key != "rows_sha256"},
        lambda one, other: {},
    ],
)
def test_a_summary_that_disagrees_is_found(smoke: Sandbox, change: Any) -> None:
    """A seed's summary under another's name, polished, cut or of another run: the predictions say otherwise."""
    files = {"evidence/loso_seed0.json": to_json(change(summary(smoke, 0), summary(smoke, 1)))}
    assert {code for code, _ in smoke.forged(files=files)} == {"evidence-problem"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff"])
def test_a_summary_that_is_no_summary_is_found(smoke: Sandbox, data: bytes) -> None:
    """Not JSON or no object: the evidence cannot be used."""
    found = smoke.forged(files={"evidence/loso_seed0.json": data})
    assert found == [("evidence-unusable", "/evidence")]
