"""Tests of encoders left out: their file, what contradicts it, and what it shows beside models that know them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fr_ensemble.evidence.calibrating import held_out_reach
from fr_ensemble.evidence.inputs import Inputs
from fr_ensemble.evidence.left_out import (
    EVERY_ENCODER,
    EncodersLeftOut,
    encoder_standings,
    encoders_apart,
    left_out_problems,
    read_left_out,
    standing_line,
    standings_rows,
    write_left_out,
)
from predictions import CORPUS, OOF, make_oof

from registry_tool.archive import EvidenceProblem
from registry_tool.toolkit import Text

N = len(OOF.target)
ENCODER = np.arange(N) // 3 % 2
PREDICTIONS = OOF.target + 3.0 * np.random.default_rng(4).normal(size=(3, N))
LEFT_OUT = EncodersLeftOut(("libx264", "libx265"), ENCODER, PREDICTIONS, OOF.rows_sha256)
MANIFEST = {"encoders_left_out": ["libx264", "libx265"]}


def test_the_file_keeps_every_number() -> None:
    """Read again it has the same names and numbers; the same predictions give the same bytes."""
    again = read_left_out(write_left_out(LEFT_OUT))
    assert (again.encoders, again.rows_sha256) == (LEFT_OUT.encoders, LEFT_OUT.rows_sha256)
    assert np.array_equal(again.encoder, LEFT_OUT.encoder)
    assert np.array_equal(again.predictions, LEFT_OUT.predictions)
    assert write_left_out(again) == write_left_out(LEFT_OUT)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encoders": ("libx264",)}, "two or more different names"),
        ({"encoders": ("libx264", "libx264")}, "two or more different names"),
        ({"encoders": ("libx264", "a\nb")}, "two or more different names"),
        ({"encoders": ("libx264", "libx265", "libaom")}, "from 0 to 2, each at least once"),
        ({"encoder": ENCODER[1:]}, "seeds x rows and rows"),
        ({"encoder": ENCODER - 1}, "from 0 to 1"),
        ({"predictions": np.full((3, N), np.nan)}, "finite numbers"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changed: dict[str, Any], words: str) -> None:
    """One encoder, a name twice, a control character, an encoder without rows, other shapes, NaN."""
    with pytest.raises(EvidenceProblem, match=words):
        replace(LEFT_OUT, **changed)


def test_spellings_of_one_encoder_are_left_out_together() -> None:
    """What has a slot goes by its slot, so that no spelling of it stays in training; what has none, by its own name."""
    names = ("x264", "libx264", "H264", "SVT-AV1", "mpeg4", "MPEG-4", "house codec")
    apart = encoders_apart(Text(np.arange(7), names), 2)
    assert [apart.names[code] for code in apart.codes] == [
        "libx264",
        "libx264",
        "libx264",
        "libsvtav1",
        "mpeg4",
        "MPEG-4",
        "house codec",
    ]


def test_other_names_rows_and_encoders_are_problems() -> None:
    """The file has what the manifest says, of the evidence's rows; one encoder's rows were left out together."""
    rows = Inputs.of(CORPUS, np.arange(N))
    by_row = np.searchsorted(np.unique(rows.encoder), rows.encoder)
    names = tuple(f"e{code}" for code in np.unique(by_row))
    own = EncodersLeftOut(names, by_row, PREDICTIONS, OOF.rows_sha256)
    said = {"encoders_left_out": [*names]}
    assert list(left_out_problems(said, own, OOF, rows)) == []
    assert "the manifest says libx264" in next(left_out_problems(MANIFEST, own, OOF, rows))
    assert "predictions of other rows" in next(left_out_problems(said, replace(own, rows_sha256="a"), OOF, rows))
    fewer = replace(own, predictions=PREDICTIONS[:2])
    assert "found 2 seeds and 160 rows" in next(left_out_problems(said, fewer, OOF, rows))
    first = by_row.copy()
    first[np.flatnonzero(by_row == 0)[0]] = 1
    (problem,) = left_out_problems(said, replace(own, encoder=first), OOF, rows)
    assert f"found rows of {rows.encoders[0]!r} under e0 and e1, expected one of them" in problem


def test_an_encoder_stands_beside_itself_as_it_was_known() -> None:
    """Means over sources of both sorts of models, by one interval; the mean of encoders last, the worst first."""
    found = encoder_standings(OOF, LEFT_OUT, "loso-hcp-t", 0.8)
    assert [*found][-1] == EVERY_ENCODER
    one = found["libx264"]
    own = [(OOF.source == g) & (ENCODER == 0) for g in np.unique(OOF.source[ENCODER == 0])]
    other = LEFT_OUT.as_oof(OOF)
    assert one.rmse == pytest.approx(np.mean([np.sqrt(np.mean((other.mu - OOF.target)[r] ** 2)) for r in own]))
    assert one.known_rmse == pytest.approx(np.mean([np.sqrt(np.mean((OOF.mu - OOF.target)[r] ** 2)) for r in own]))
    reach = held_out_reach(OOF, "loso-hcp-t", 0.8) / np.hypot(OOF.sigma, floor()) * np.hypot(other.sigma, floor())
    inside = np.abs(other.mu - OOF.target) <= reach
    assert one.coverage == pytest.approx(np.mean([inside[r].mean() for r in own]))
    assert (one.n_rows, one.n_sources) == (int((ENCODER == 0).sum()), len(own))
    assert found["libx264"].rmse > 2.0 * found["libx264"].known_rmse
    assert found[EVERY_ENCODER].rmse == pytest.approx(np.mean([found[name].rmse for name in LEFT_OUT.encoders]))
    errors = [found[name].rmse for name in found if name != EVERY_ENCODER]
    assert errors == sorted(errors, reverse=True)


def floor() -> float:
    from fr_ensemble.evidence.calibrating import calibrate

    return calibrate(OOF, "row", "loso-hcp-t").floor


def test_two_sources_have_errors_and_no_coverage() -> None:
    """No source can be left out of a calibration: the table has a dash there, and the line says nothing of it."""
    rows = {"source": np.arange(N) % 2, "sources": ("a", "b"), "clip": None, "clips": None}
    found = encoder_standings(make_oof(**rows), LEFT_OUT, "loso-hcp-t", 0.8)
    table = standings_rows(found, 0.8)
    assert table[0][-2:] == ["in 80 %, trained on", "left out"]
    assert {cell for row in table[1:] for cell in row[-2:]} == {"-"}
    assert "interval" not in standing_line(found[EVERY_ENCODER], "vmaf", 0.8)
