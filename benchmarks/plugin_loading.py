"""plugin_loading.py: what plugins cost: `registry --help` with N of them installed, and one call of a hook.

`python benchmarks/plugin_loading.py` installs N copies of the template that ships, under other names, into a folder of
its own, and starts the program with and without them; CPU time of whole processes, medians. Then it asks one plugin's
`registry_verify` in three ways: through pluggy's `subset_hook_caller`, directly, and as the core does it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path
from typing import Any

from registry_tool.hookspec import Level, hookimpl
from registry_tool.plugins.contract import limit_hooks
from registry_tool.plugins.manager import Plugins, load
from registry_tool.plugins.scaffold import new_plugin

CALLS = 20_000
METADATA = "Metadata-Version: 2.1\nName: registry-{name}\nVersion: 0.1.0\n"


def install(site: Path, name: str) -> None:
    """A project from the template, as pip would leave it: its package, and its entry point."""
    with tempfile.TemporaryDirectory() as folder:
        project, _ = new_plugin(name, Path(folder) / name, load())
        (project / "src" / f"registry_{name}").rename(site / f"registry_{name}")
    info = site / f"registry_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name))
    (info / "entry_points.txt").write_text(f"[registry_tool]\n{name} = registry_{name}.plugin\n")


def seconds(arguments: list[str], site: Path | None) -> float:
    """User and system time of the program, of its own process."""
    environment = os.environ | ({"PYTHONPATH": str(site)} if site is not None else {})
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "registry_tool", *arguments], env=environment, check=True, capture_output=True
    )
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


class Nothing:
    """A plugin that finds nothing."""

    @hookimpl
    def registry_verify(self, view: Any, level: Level) -> list[Any]:
        return []


def calls() -> dict[str, float]:
    """Microseconds of one question to one of two plugins."""
    plugins, view = Plugins(), None
    for name in ("first", "second"):
        plugins.add(Nothing(), name)
    arguments: dict[str, Any] = {"view": view, "level": Level.FULL}
    others = [plugins.loaded[1].module]
    limit_hooks()  # as the program does

    def pluggys_way() -> Any:
        return plugins.manager.subset_hook_caller("registry_verify", others)(**arguments)

    function = plugins.loaded[0].hooks["registry_verify"].function
    ways = {
        "pluggy's subset_hook_caller": pluggys_way,
        "the function itself": lambda: function(view, Level.FULL),
        "as the core asks, two plugins": lambda: list(plugins.verify(view, Level.FULL)),  # type: ignore[arg-type]  # None
    }
    return {way: min(timeit.repeat(call, number=CALLS, repeat=5)) / CALLS * 1e6 for way, call in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        for number in range(options.plugins):
            install(site, f"ruler{number}")
        for arguments in (["--version"], ["--help"], ["plugins"]):
            for where, installed in ((None, 0), (site, options.plugins)):
                taken = statistics.median(seconds(arguments, where) for _ in range(options.rounds))
                print(f"registry {arguments[0]}, {installed} more plugins: {taken * 1000:.0f} ms of CPU")
    for way, taken in calls().items():
        print(f"registry_verify, {way}: {taken:.1f} us")


if __name__ == "__main__":
    main()
