"""using.py: the part of the suite that uses a good registry as people do, hook by hook."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import click
import pytest

from registry_tool import hookspec, strictjson
from registry_tool.api import Model
from registry_tool.errors import InputError, PluginError, RejectedError
from registry_tool.findings import Severity
from registry_tool.hookspec import Batch, Column, EntryView, Evaluation, Hooks, Level, PredictRequest
from registry_tool.testing.base import GOOD_ID, HOOKS, SuiteSetup, needs, undisturbed
from registry_tool.testing.bench import Bench, options_of, tree
from registry_tool.toolkit import read_rows
from registry_tool.values import Evidence, Json
from registry_tool.workflows.predict import predict_rows

SHOWN_ROWS = 100  # of a batch, to see whether they are JSON


def _hints(hook: str) -> dict[str, Json]:
    """The types of a hook's arguments and, at `return`, of its answer, from the specification."""
    return typing.get_type_hints(getattr(Hooks, hook), {**vars(hookspec), "click": click})


def _is_given(field: dataclasses.Field[Any], known: Mapping[str, object]) -> bool:
    """Whether a request is given this field: one that it needs, or that holds what a person typed."""
    if field.default is not dataclasses.MISSING:
        return False
    return field.default_factory is dataclasses.MISSING or field.name in known


def _takes_rows(hint: object) -> bool:
    """Whether a request has to name rows."""
    fields = dataclasses.fields(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else ()
    return any(field.name == "corpus" and field.default is dataclasses.MISSING for field in fields)


VIEW_HOOKS = tuple(hook for hook in HOOKS if "view" in inspect.signature(getattr(Hooks, hook)).parameters)
ROW_HOOKS = ("registry_load", *(hook for hook in VIEW_HOOKS if any(map(_takes_rows, _hints(hook).values()))))
UNSEEN_HOOKS = ("registry_calibrate",)  # asked about rows that the entry was not trained on
ASKED_LEVELS = (0.8, 0.95)  # what a loaded entry is asked for
BAD_ROWS = ("no such file", "a folder", "an empty file", "bytes of no format", "text without rows")


def _bad_rows(name: str, folder: Path) -> Path:
    path = folder / "bad_rows.csv"
    match name:
        case "a folder":
            path.mkdir()
        case "an empty file":
            path.write_bytes(b"")
        case "bytes of no format":
            path.write_bytes(bytes(range(256)) * 8)
        case "text without rows":
            path.write_text("not,the,columns\n1,2\n")
    return path


class Using(SuiteSetup):
    """What the plugin makes validates; what it is asked, it answers in the form of the specification, undisturbed."""

    @pytest.mark.parametrize("level", list(Level))
    def test_a_good_registry_validates(self, good: Bench, level: Level, tmp_path: Path) -> None:
        """No error and no warning on the good entry."""
        with undisturbed(tmp_path, good.path.parent):
            findings = [str(f) for f in good.findings(level) if f.severity is not Severity.NOTE]
        assert findings == []

    @needs("registry_train")
    def test_what_it_trains_validates(self, rows: Path | None, tmp_path: Path) -> None:
        """A trained entry has no finding, and its options were left as they were given."""
        bench = self.bench(tmp_path / "trained")
        bench.path.parent.mkdir()
        with undisturbed(tmp_path):
            done = bench.train(GOOD_ID, rows, self.arguments)
        assert [str(f) for f in bench.findings() if f.severity is not Severity.NOTE] == []
        assert done.trained.manifest.get("id") == GOOD_ID, "the manifest names another id than was asked for"
        assert done.trained.manifest.get("kind") == self.kind, "the manifest names another kind than was asked for"
        for line in done.trained.summary:
            assert [type(text) for text in line] == [str, str], f"summary: found {line!r}, expected (name, value)"

    @needs("registry_train")
    def test_training_twice_gives_the_same_bytes(self, rows: Path | None, tmp_path: Path) -> None:
        """Two processes, whose sets are ordered differently, train one manifest and so one set of files."""
        if not self.deterministic:
            pytest.skip("the plugin does not claim it")
        order = {"id": GOOD_ID, "corpus": rows, "arguments": list(self.arguments)}
        answers = [self.ask_process("train", tmp_path / f"{n}" / "registry.json", seed=n, **order) for n in (1, 2)]
        if answers[0]["sha256"] != answers[1]["sha256"]:
            one, two = (tree(tmp_path / n / GOOD_ID / a["sha256"][:12]) for n, a in zip("12", answers, strict=True))
            other = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
            pytest.fail(f"trained twice, {', '.join(other)} differ: fix the seeds, sort the sets, leave out the time")

    @needs("registry_train")
    def test_random_rows_train_and_never_flip(self, of_random_rows: Bench) -> None:
        """`--smoke` needs no corpus, gives a valid entry that says `random_rows`, and that entry stays smoke."""
        assert of_random_rows.manifest.get("random_rows") is True
        assert of_random_rows.errors() == []
        with pytest.raises(RejectedError):
            of_random_rows.flip()

    @needs("registry_train")
    @pytest.mark.parametrize("fault", BAD_ROWS)
    def test_training_names_unusable_rows(self, fault: str, tmp_path: Path) -> None:
        """Rows that cannot be used are an InputError of one line, and nothing is registered."""
        bench = self.bench(tmp_path / "model")
        with undisturbed(tmp_path), pytest.raises(InputError) as caught:
            bench.train(GOOD_ID, _bad_rows(fault, tmp_path), self.arguments)
        _assert_one_line(caught.value)
        assert not bench.path.exists(), "an entry was registered"

    @needs(*ROW_HOOKS)
    @pytest.mark.parametrize("fault", BAD_ROWS)
    def test_a_hook_names_unusable_rows(self, good: Bench, hook: str, fault: str, tmp_path: Path) -> None:
        """Rows that cannot be used are an InputError of one line."""
        with undisturbed(tmp_path, good.path.parent), pytest.raises(InputError) as caught:
            self.ask_hook(good, hook, _bad_rows(fault, tmp_path))
        _assert_one_line(caught.value)

    @needs(*VIEW_HOOKS)
    def test_a_hook_keeps_its_contract(
        self, good: Bench, hook: str, rows: Path | None, other_rows: Path | None, tmp_path: Path
    ) -> None:
        """It answers in the form of its specification, the same each time, and changes nothing."""
        rows = other_rows if hook in UNSEEN_HOOKS else rows
        if rows is None and hook in ROW_HOOKS:
            pytest.skip("the suite was given no rows")
        with undisturbed(tmp_path, good.path.parent):
            one, two = (self.ask_hook(good, hook, rows) for _ in range(2))
        for item in one if isinstance(one, list) else [one]:
            _assert_well_formed(item)
        assert _comparable(one) == _comparable(two), f"{hook} answers differently when it is asked again"
        if one and isinstance(one, list) and isinstance(one[0], Batch):
            names = {tuple(batch.columns) for batch in one}
            assert len(names) == 1, f"batches have different columns: {sorted(names)}"

    @needs("registry_gate")
    def test_the_gate_measures_what_the_policy_asks(self, good: Bench) -> None:
        """Every rule of the default policy has its metric, and the evidence has a digest and no problem."""
        evidence = self.ask_hook(good, "registry_gate", None)
        if evidence is None:
            pytest.skip("this kind has no gate")
        assert isinstance(evidence, Evidence)
        rules = {rule.metric for rule in good.plugins.kinds[self.kind].default_policy.rules}
        missing = sorted(rules - set(evidence.metrics))
        assert not missing, f"the default policy asks for {missing}, the gate measures {sorted(evidence.metrics)}"
        described = {metric.name for metric in good.plugins.metrics(self.kind)}
        missing = sorted(set(evidence.metrics) - described)
        assert not missing, f"{missing}: describe them where `Kind.metrics` says, as MetricDescription"
        assert evidence.problems == ()
        assert evidence.sha256 is not None, "without the evidence's sha256 nothing is ever flipped"

    @needs("registry_gate")
    def test_a_good_entry_is_promoted(self, good: Bench) -> None:
        """gate, flip and validate agree on the good entry."""
        if not self.promotes:
            pytest.skip("the suite was told that the good entry does not clear its gate")
        verdict = good.gate()
        assert verdict.promotes, f"HOLD: {'; '.join(verdict.reasons)}"
        assert good.flip()
        assert [str(f) for f in good.findings() if f.severity is not Severity.NOTE] == []

    def ask_hook(self, bench: Bench, hook: str, rows: Path | None) -> Any:
        """What a hook that takes a view answers, an iterable as a list, held against its specification."""
        with bench.view() as view:
            hints = _hints(hook)
            del hints["return"]
            arguments = {name: self._argument(bench, name, hint, view, rows) for name, hint in hints.items()}
            before = copy.deepcopy(view.manifest)
            answer: Any
            if hook == "registry_verify":
                ((_, found, error),) = bench.plugins.verify(**arguments)
                assert error is None, str(error)
                answer = found
            elif hook == "registry_load":
                answer = self._predicted(bench, view, rows)
            else:
                try:
                    answer = bench.plugins.ask_owner(hook, self.kind, **arguments)
                    answer = list(answer) if isinstance(answer, Iterator) else answer
                except PluginError as error:
                    pytest.fail(str(error))
            assert view.manifest == before, f"{hook} changed the manifest that it was given: make a new one"
            return answer

    def _predicted(self, bench: Bench, view: EntryView, rows: Path | None) -> list[Batch]:
        """What the entry predicts for the rows of a file; once it is loaded, the same for rows that a program holds."""
        try:
            predictor = bench.plugins.load(view)
            if predictor is None:
                return list(bench.plugins.predict(view, PredictRequest(rows, ASKED_LEVELS)) or ())
            assert rows is not None
            batches, model = list(predict_rows(predictor, rows, ASKED_LEVELS)), Model(view.entry, predictor)
            parts = read_rows(rows, lambda found: predictor.columns(found, "rows"))
            for batch, read in zip(batches, parts, strict=True):
                texts = {name: text.tolist() for name, text in read.texts.items()}
                held = model.predict({**read.numbers, **texts, **read.values}, ASKED_LEVELS)
                for name, values in held.columns.items():
                    assert list(values) == listed(batch.columns[name]), f"{name} differs between a file and a program"
        except PluginError as error:
            pytest.fail(str(error))
        return batches

    def _argument(self, bench: Bench, name: str, hint: Any, view: EntryView, rows: Path | None) -> Any:
        if name == "view":
            return view
        if name == "rules":
            return bench.plugins.kinds[self.kind].default_policy.rules
        if isinstance(hint, type) and issubclass(hint, Enum):
            return list(hint)[-1]
        known = {
            "corpus": rows,
            "kind": self.kind,
            "entry_id": view.entry.id,
            "smoke": False,
            "options": options_of(bench.plugins, self.kind, self.arguments),
            "progress": lambda work, done, total: None,
        }
        return hint(**{field.name: known[field.name] for field in dataclasses.fields(hint) if _is_given(field, known)})


def _assert_well_formed(answer: object) -> None:
    """JSON can hold it as the core writes it: no NaN, no infinity."""
    if isinstance(answer, Batch):
        _assert_json({name: listed(values)[:SHOWN_ROWS] for name, values in answer.columns.items()}, "a batch")
    elif isinstance(answer, Evaluation):
        _assert_json(answer.document, "the evaluation's document")
    elif isinstance(answer, Evidence):
        _assert_json(answer.details, "the evidence's details")


def listed(values: Sequence[Json] | Column) -> list[Json]:
    """A batch's column as a list."""
    return values.tolist() if isinstance(values, Column) else list(values)


def _comparable(answer: object) -> str:
    """Its `repr`; of the columns of batches every value: an array's leaves out what is in the middle."""
    if isinstance(answer, list):
        return repr([_comparable(item) for item in answer])
    if isinstance(answer, Batch):
        return repr(({name: listed(values) for name, values in answer.columns.items()}, answer.warnings))
    return repr(answer)


def _assert_json(value: Mapping[str, Json], answer: str) -> None:
    try:
        strictjson.dump(dict(value))
    except (TypeError, ValueError) as error:
        pytest.fail(f"{answer}: JSON cannot hold it: {error}")


def _assert_one_line(error: Exception) -> None:
    assert len(str(error).splitlines()) == 1, f"found {str(error)!r}, expected one line"
