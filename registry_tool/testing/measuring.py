"""measuring.py: the part of the suite that forges what a gate relies on: evidence, numbers of a manifest, weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from registry_tool.errors import PluginError, RegistryError
from registry_tool.hookspec import Evaluation, Kind
from registry_tool.strictjson import pointer
from registry_tool.testing.base import needs
from registry_tool.testing.bench import Bench
from registry_tool.testing.breaking import Breaking
from registry_tool.testing.changes import look, places, replaced
from registry_tool.testing.using import listed
from registry_tool.values import Evidence, Json
from registry_tool.workflows.gate import gate

SAYS_NOTHING = ("the predictions permuted", "the targets shuffled", "the predictions made constant")
METRIC_ROUNDING = 1e-9  # of a metric: a smaller difference may be another order of the same sums
FORGED_SHARE = 0.25  # of a number, or of 1 where it is smaller: by how much it is forged


class Measuring(Breaking):
    """What the evidence shows is measured from it, and what the manifest and the models say is held against it."""

    @needs("registry_gate")
    def test_the_gate_measures_the_evidence(self, good: Bench, tmp_path: Path) -> None:
        """Evidence that is spoilt, all pins fitting, changes the metrics, or is refused."""
        if not self._has_gate(good):
            pytest.skip("this kind has no gate")
        table, before = self.evidence, _measured(good)
        assert before is not None, "the gate refuses the good entry's evidence"
        assert table is not None, "the kind has a gate: name its out-of-fold predictions in `evidence` (EvidenceTable)"
        with good.view() as view:
            columns = table.read(view.read(table.path))
        same = _measured(self._forged(good, tmp_path, files={table.path: table.write(columns)}))
        assert same is not None, "`evidence` writes a file that the plugin refuses, where nothing was changed in it"
        assert not _changed(before, same), f"`evidence` writes another file: {_changed(before, same)} changed"
        judged = {rule.metric for rule in good.plugins.kinds[self.kind].default_policy.rules}
        for done, spoilt in table.spoilt(columns):
            bench = self._forged(good, tmp_path, files={table.path: table.write(spoilt)})
            after = _measured(bench)
            if after is None:
                continue
            moved = _changed(before, after)
            assert moved, f"{done}: no metric changed, and the gate refused nothing"
            if done in SAYS_NOTHING:
                assert moved & judged, f"{done}: {sorted(judged)} stayed as they were: a rule judges nothing else"
                assert not (self.promotes and self._promotes(bench)), f"{done}: the gate promotes it all the same"

    @needs("registry_oof")
    def test_out_of_fold_predictions_are_those_of_the_evidence(self, good: Bench, tmp_path: Path) -> None:
        """What entries of other kinds are compared with is read from the evidence: spoilt, it changes or is refused."""
        before, table = self.ask_hook(good, "registry_oof", None), self.evidence
        if before is None:
            pytest.skip("this kind has no out-of-fold predictions")
        assert table is not None, "the kind has out-of-fold predictions: name their file in `evidence` (EvidenceTable)"
        with good.view() as view:
            columns = table.read(view.read(table.path))
        assert before.entry == good.id, "registry_oof gives the predictions of another entry"
        assert [*map(float, columns[table.target])] == [*before.targets], "registry_oof gives other targets"
        for done, spoilt in table.spoilt(columns):
            bench = self._forged(good, tmp_path, files={table.path: table.write(spoilt)})
            try:
                after = self.ask_hook(bench, "registry_oof", None)
            except RegistryError:
                continue
            assert after != before, f"{done}: registry_oof gives what it gave before"

    def test_every_number_is_checked(self, good: Bench, tmp_path: Path) -> None:
        """Each number of the manifest forged within its type, all pins fitting, is found, or declared as recorded."""
        bench, document = self._forged(good, tmp_path), good.manifest
        kind = good.plugins.kinds[self.kind]
        unchecked = [
            name
            for name, forgeries in _forged_numbers(document)
            if not _is_recorded(name, kind) and not self._is_found(bench, forgeries)
        ]
        assert not unchecked, (
            f"fields whose value nothing checks: {', '.join(unchecked)}: compare them in registry_verify or "
            "registry_gate with what is pinned, or declare them with a reason in `Kind.recorded`"
        )

    @needs("registry_gate")
    def test_swapped_weights_are_found(self, good: Bench, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        """The graphs of another model under the evidence of the good one, each and all, all pins fitting.

        All of them also under the good one's verdict: a production entry is looked at as a smoke one is.
        """
        if not self._has_gate(good):
            pytest.skip("this kind has no gate")
        if "registry_train" not in self.offered():
            pytest.skip(f"no other model: the plugin has no registry_train: {self.without.get('registry_train')}")
        graphs = _other_graphs(good, request.getfixturevalue("of_random_rows"))
        for names in [*([name] for name in graphs), list(graphs)]:
            bench = self._forged(good, tmp_path, files={name: graphs[name] for name in names})
            assert not self._passes(bench), f"{', '.join(names)}: the weights are another model's, and nothing objects"
        if self.promotes and good.flip():
            bench = self._forged(good, tmp_path, files=graphs)
            assert not self._passes(bench), "a production entry whose weights are another model's, and nothing objects"

    @needs("registry_load", "registry_evaluate")
    def test_a_hook_answers_for_the_model(
        self, good: Bench, hook: str, rows: Path | None, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """What it says of the same rows changes where the weights are another model's, or it refuses them."""
        if rows is None:
            pytest.skip("the suite was given no rows")
        if "registry_train" in self.offered():
            other: Bench = request.getfixturevalue("of_random_rows")
        elif files := self.other_model():
            other = self._forged(good, tmp_path, files=files)
        else:
            pytest.skip("no other model: bring one in `other_model`")
        before = _numbers(self.ask_hook(good, hook, rows))
        if not before:
            pytest.skip("it says no number")
        try:
            after = _numbers(self.ask_hook(other, hook, rows))
        except RegistryError:
            return
        assert before != after, f"{hook} says the same of another model's weights: use those of the entry"

    @needs("registry_reproduce")
    def test_reproducing_trains_again(
        self, good: Bench, rows: Path | None, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """Weights of a model of random rows do not come of training on these rows, or they are refused."""
        if rows is None:
            pytest.skip("the suite was given no rows")
        if "registry_train" not in self.offered():
            pytest.skip(f"no other model: the plugin has no registry_train: {self.without.get('registry_train')}")
        graphs = _other_graphs(good, request.getfixturevalue("of_random_rows"))
        bench = self._forged(good, tmp_path, files=graphs)
        try:
            again = self.ask_hook(bench, "registry_reproduce", rows)
        except RegistryError:
            return
        same = [name for name, data in graphs.items() if again is not None and again.trained.files.get(name) == data]
        assert not same, f"{', '.join(same)}: registry_reproduce gives back what it was given: train it again"

    def _is_found(self, bench: Bench, forgeries: list[Json]) -> bool:
        """Whether each forgery that the schema lets through is objected to."""
        for document in forgeries:
            if self._is_refused(bench, document):
                continue
            bench.forge(document)
            if self._passes(bench):
                return False
        return True

    def _passes(self, bench: Bench) -> bool:
        """Whether nothing objects: neither verify nor the gate, where the kind has one."""
        return not bench.errors() and (not self._has_gate(bench) or _evidence(bench) is not None)

    def _has_gate(self, bench: Bench) -> bool:
        """A plugin with the hook may have kinds without a gate; evidence that cannot be read is a gate's."""
        if "registry_gate" not in bench.plugins.loaded[0].hooks:
            return False
        try:
            return self.ask_hook(bench, "registry_gate", None) is not None
        except RegistryError:
            return True


def _measured(bench: Bench) -> Evidence | None:
    """What the gate measures; None where verify or the gate refuses."""
    return None if bench.errors() else _evidence(bench)


def _evidence(bench: Bench) -> Evidence | None:
    try:
        evidence = gate(bench.path, bench.plugins, bench.id).evidence
    except PluginError as error:
        pytest.fail(str(error))
    except RegistryError:
        return None
    return None if evidence is not None and evidence.problems else evidence


def _changed(before: Evidence, after: Evidence) -> set[str]:
    """The metrics that are there once, or differ."""
    names = {*before.metrics, *after.metrics}
    return {name for name in names if not _is_same(before.metrics.get(name), after.metrics.get(name))}


def _is_same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return False
    return (math.isnan(one) and math.isnan(other)) or math.isclose(
        one, other, rel_tol=METRIC_ROUNDING, abs_tol=METRIC_ROUNDING
    )


def _other_graphs(good: Bench, other: Bench) -> dict[str, bytes]:
    """The other entry's graphs by path, where the good one pins different ones."""
    with good.view() as view, other.view() as random:
        graphs = {
            name: random.read(name)
            for name in view.paths
            if name.endswith(".onnx") and name in random.paths and random.read(name) != view.read(name)
        }
    assert graphs, f"two models have equal graphs: {[name for name in good.pinned() if name.endswith('.onnx')]}"
    return graphs


def _numbers(answer: object) -> list[tuple[str, float]]:
    """Every number of an evaluation, or of the columns of batches, with its place; no texts, such as digests."""
    document: Json = answer.document if isinstance(answer, Evaluation) else {}
    if isinstance(answer, list):
        document = [
            {name: listed(values) for name, values in batch.columns.items() if name != "row"} for batch in answer
        ]
    found = ((pointer(*place), look(document, place)) for place in places(document))
    return [(name, value) for name, value in found if isinstance(value, int | float) and not isinstance(value, bool)]


def _forged_numbers(document: Mapping[str, Json]) -> Iterator[tuple[str, list[Json]]]:
    """(pointer, the documents with another number there); of a list the first and the last item alone."""
    for place in places(document, ends=True):
        value = look(document, place)
        if isinstance(value, int | float) and not isinstance(value, bool):
            step = max(abs(value), 1.0) * FORGED_SHARE
            others = [value + 1] if isinstance(value, int) else [value + step, value - step]
            yield pointer(*place), [replaced(document, place, other) for other in others]


def _is_recorded(name: str, kind: Kind) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in kind.recorded)
