"""test_power.py: what the rules can see follows from the evidence: sums in the place of draws of rows, exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from command_line import Program
from fr_ensemble.evidence.calibrating import calibrate
from fr_ensemble.evidence.comparisons import ErrorComparison
from fr_ensemble.evidence.loso import FoldScores
from fr_ensemble.evidence.metrics import MetricInputs, compute_metrics
from fr_ensemble.evidence.oof import Oof
from fr_ensemble.evidence.power import N_DRAWS, Draws, Power, power
from fr_ensemble.plugin import DEFAULT_POLICY
from sandbox import Sandbox

from registry_tool.values import Rule

K, ROWS = 12, 50


def make(error: float = 4.0, spread: float = 0.4, seed: int = 0) -> Oof:
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(K), ROWS)
    target = rng.uniform(0.0, 100.0, K * ROWS)
    scale = error * rng.lognormal(0.0, spread, K)[source]
    mu = target + rng.normal(size=len(target)) * scale
    members = mu + rng.normal(size=(5, len(target))) * scale / 5
    return Oof(tuple(range(5)), tuple(f"s{k}" for k in range(K)), source, None, None, target, members, "r", "c", None)


def inputs_of(oof: Oof) -> MetricInputs:
    baseline = oof.target + np.random.default_rng(9).normal(0.0, 6.0, len(oof.target))
    compared = ErrorComparison.of(oof.sources, oof.source, oof.target, oof.mu, baseline)
    return MetricInputs(FoldScores.of(oof), oof, calibrate(oof, target_range=(0.0, 100.0)), {"vmaf": compared})


def drawn(oof: Oof, sources: np.ndarray) -> Oof:
    """The evidence of these sources, one as often as it was drawn."""
    rows = np.concatenate([np.flatnonzero(oof.source == g) for g in sources])
    return replace(
        oof,
        sources=tuple(f"d{place}" for place in range(len(sources))),
        source=np.repeat(np.arange(len(sources)), ROWS),
        target=oof.target[rows],
        predictions=oof.predictions[:, rows],
    )


RULES = [
    "mean_plcc",
    "plcc_spread",
    "min_seed_plcc",
    "worst_fold_plcc",
    "mean_srocc",
    "mean_rmse",
    "pooled_plcc",
    "rmse_vs_vmaf",
    "rmse_vs_vmaf_t_high",
    "rmse_vs_vmaf_t_low",
]


@cache
def metrics_of_draws() -> list[dict[str, float]]:
    """Of each draw of sources, from its own rows."""
    oof, compared = make(), inputs_of(make()).comparisons["vmaf"]
    found = []
    for sources in Draws.of(K).sources[:60]:
        again = drawn(oof, sources)
        other = replace(
            compared, entry_rmse=compared.entry_rmse[sources], baseline_rmse=compared.baseline_rmse[sources]
        )
        found.append(compute_metrics(MetricInputs(FoldScores.of(again), again, None, {"vmaf": other})))
    return found


@pytest.mark.parametrize("name", RULES)
def test_each_draw_has_the_metric_of_its_sources(name: str) -> None:
    """The share held is that of judging each draw's own rows, for a bound in the middle of the draws."""
    whole = inputs_of(make())
    values = [metrics[name] for metrics in metrics_of_draws()]
    metrics = compute_metrics(whole)
    for quantile in (0.25, 0.5, 0.75):
        bound = float(np.quantile(values, quantile)) - 1e-9  # another order of summation moves no draw across it
        said = power(whole, [Rule(name, ">=", bound)], metrics)
        assert said is not None
        expected = np.mean(np.array(values) < bound)
        assert said.held == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 60))
        assert said.fixed == ()


def test_noise_lowers_correlations_as_drawn_noise_does() -> None:
    """The rise in RMSE and the correlation that the sums give are those of predictions with noise in them."""
    oof = make(error=8.0)
    plain = inputs_of(oof)
    rule = Rule("mean_plcc", ">=", 0.9)
    said = power(plain, [rule], compute_metrics(plain))
    assert said is not None
    assert said.rise is not None
    rmse = np.sqrt(np.bincount(oof.source, weights=np.square(oof.mu - oof.target)) / ROWS)
    noises = np.linspace(0.0, 60.0, 601)
    noise = noises[np.argmin([abs(np.mean(np.hypot(rmse, n) - rmse) - said.rise) for n in noises])]
    rng, rises, held = np.random.default_rng(3), [], []
    for _ in range(30):
        worse = replace(oof, predictions=oof.predictions + rng.normal(0.0, noise, len(oof.target)))
        again = MetricInputs(FoldScores.of(worse), worse)
        errors = np.sqrt(np.bincount(oof.source, weights=np.square(worse.mu - oof.target)) / ROWS)
        rises.append(float(np.mean(errors - rmse)))
        seen = power(again, [rule], compute_metrics(again))
        held.append(seen.held if seen is not None else np.nan)
    assert np.mean(rises) == pytest.approx(said.rise, rel=0.05)
    assert np.mean(held) == pytest.approx(0.8, abs=0.12)


def test_a_better_model_is_held_less_often() -> None:
    """From never to always, by the default policy; and what is caught grows with how good the model is."""
    rules = DEFAULT_POLICY.rules
    said = [power(inputs_of(make(error)), rules, compute_metrics(inputs_of(make(error)))) for error in (2.0, 8.0, 30.0)]
    held = [one.held for one in said if one is not None]
    assert held == sorted(held)
    assert (held[0], held[-1]) == (0.0, 1.0)
    assert said[0] is not None
    assert said[0].fixed == ("n_seeds", "n_folds", "min_fold_rows")
    assert said[0].rise is not None
    assert said[0].rise > said[0].rmse


def test_nothing_is_said_without_rules_or_metrics() -> None:
    """No rules, a rule on a metric that the evidence does not have, or scores alone."""
    inputs = inputs_of(make())
    metrics = compute_metrics(inputs)
    assert power(inputs, (), metrics) is None
    assert power(inputs, [Rule("rmse_vs_incumbent", "<", 0.0)], metrics) is None
    assert power(MetricInputs(inputs.scores), [Rule("mean_plcc", ">=", 0.5)], metrics) is None
    blind = power(inputs, [Rule("n_seeds", ">=", 5)], metrics)
    assert blind is not None
    assert (blind.held, blind.rise, blind.fixed) == (0.0, None, ("n_seeds",))


@pytest.mark.parametrize(("k", "draws"), [(9, 1000), (250, 1000), (251, 996), (1000, 250), (5000, 200)])
def test_of_many_sources_fewer_are_drawn(k: int, draws: int) -> None:
    """A quarter of a million sources in all draws together, and two hundred draws at least."""
    assert Draws.of(k).sources.shape == Draws.of(k).luck.shape == (draws, k)


def test_what_is_said_is_said_in_words() -> None:
    """How often held; what is caught, or that nothing is."""
    assert Power(0.25, 0.1, 0.5, (), 1000).lines(9, "mos") == [
        "a model exactly this good is held 25 % of the time at 9 other sources",
        "the smallest rise in RMSE that is held four times in five: 0.1 mos of 0.5, 20 %",
    ]
    assert "no model" in Power(0.0, None, 0.5, (), 1000).lines(9, "mos")[1]
    assert "already" in Power(0.9, 0.0, 0.5, (), 1000).lines(9, "mos")[1]


@pytest.mark.slow
def test_the_gate_says_it(smoke: Sandbox, registry: Program) -> None:
    """In the text and in the JSON of a verdict, by the rules of the registry's policy."""
    ran = registry("gate", "tiny", "--registry", smoke.path)
    assert ran.out.count("note: ") == 2
    assert "of the time at 5 other sources" in ran.out
    said = json.loads(registry("gate", "tiny", "--registry", smoke.path, "--format", "json").out)["details"]["power"]
    assert (said["draws"], 0.0 <= said["held"] <= 1.0, said["rmse"] > 0.0) == (N_DRAWS, True, True)
