"""A disk that fails and a kill, at every step of everything that writes: the registry is the old or the new one.

A sample of what `make stress` runs in full.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import FAULTS, Injector, Outcome

from registry_tool.sandbox.prober import Prober

pytestmark = pytest.mark.slow

NAMES = ["train", "train again", "train first", "flip", "flip by hand", "demote", "prune", "migrate"]


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    with Prober() as prober:
        yield Injector(tmp_path_factory.mktemp("faults"), prober)


def test_everything_that_writes_is_here(injector: Injector) -> None:
    """Each action was run unharmed once, and each writes."""
    assert [action.name for action in injector.actions] == NAMES
    assert all(sum(action.writes.values()) > 2 for action in injector.actions)


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_step_leaves_the_old_or_the_new(injector: Injector, name: str) -> None:
    """Real processes, ended at every fifth write; the same run again gives what an unharmed one gives."""
    action, outcome = injector.actions[NAMES.index(name)], Outcome()
    for at in range(NAMES.index(name) % 5, sum(action.writes.values()), 5):
        injector.kill(action, at, outcome)
    assert (outcome.bad, outcome.succeeded) == ([], 0)
    assert outcome.runs > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_failing_disk_leaves_the_old_or_the_new(injector: Injector, name: str) -> None:
    """Every operation fails once, and from its middle on; nothing says it succeeded that did not."""
    action, outcome = injector.actions[NAMES.index(name)], Outcome()
    for number, (operation, count) in enumerate(sorted(action.writes.items())):
        for index, nth in enumerate({0, count // 2, count - 1}):
            fault = [*FAULTS][(number + index) % len(FAULTS)]
            injector.fail(action, operation, fault, nth, index % 2 == 0, outcome)
    assert outcome.bad == []
    assert outcome.succeeded < outcome.runs
