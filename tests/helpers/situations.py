"""situations.py: registries in which a finding is given or a command is refused, and what a hint says to type there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Ran, run
from places import TESTS
from repository import git, start
from sandbox import Sandbox, to_json

FROZEN = TESTS / "frozen" / "5e6a11a"
COMMAND = re.compile(r"`registry ([^`]+)`")
# What a reader puts in the place of these words of a hint.
WORDS = {
    "...": "'seen in a review'",
    "OLD": "registry.json",
    "NEW": "../new",
    "PEM": "../mine.key",
    "KEY.pem": "../mine.pub",
    "KIND": "fr_ensemble",
    "NAME": "first --smoke --seeds 0,1 --epochs 1 --hidden 4",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A copy of the frozen registry; commands are typed in its folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Place:
        """Its corpora lie beside the folder."""
        for path in FROZEN.glob("*.csv"):
            shutil.copy(path, folder)
        return cls(Path(shutil.copytree(FROZEN / "model", folder / "model")))

    def entry(self, id: str) -> Sandbox:
        return Sandbox(self.folder / "registry.json", id)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "registry.json").read_bytes())
        return document

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        document = self.document()
        change(document)
        (self.folder / "registry.json").write_bytes(to_json(document))

    def replace(self, document: Mapping[str, Any], **files: bytes) -> None:
        """Another registry in the place of this one."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, data in {"registry.json": to_json(document), **files}.items():
            (self.folder / name).write_bytes(data)

    def start(self) -> None:
        start(self.folder)

    def restore(self) -> None:
        git(self.folder, "checkout", "--quiet", ".")

    def type(self, command: str) -> Ran:
        """`registry COMMAND`, with the words of a hint that a reader replaces."""
        return run(self.folder, *(part for word in shlex.split(command) for part in shlex.split(WORDS.get(word, word))))

    def findings(self, command: str) -> list[tuple[str, str]]:
        """(code, hint or the whole line) of what `validate` or `gate --base` found."""
        ran = self.type(f"{command} --format json")
        document = json.loads(ran.out)
        if "findings" in document:
            assert ran.code == (document["summary"]["error"] > 0), ran
            return [(found["code"], found["hint"]) for found in document["findings"]]
        held = [verdict for verdict in document["judgements"] if verdict["verdict"] == "HOLD"]
        assert ran.code == bool(held or document["added"]), ran
        reasons = [reason for verdict in document["judgements"] for reason in verdict["reasons"]]
        return [(reason.partition(":")[0], reason) for reason in reasons]
