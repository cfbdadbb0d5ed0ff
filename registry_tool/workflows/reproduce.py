"""reproduce.py: an entry trained again and held against the old one, byte by byte. Trains nothing, prints nothing.

The registry is written to by `store_result` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from registry_tool.documents import store
from registry_tool.documents.entries import PIN_KEYS, sha256_of
from registry_tool.documents.manifest import Manifest
from registry_tool.documents.pinning import with_digests
from registry_tool.errors import InputError, PluginError, RejectedError
from registry_tool.hookspec import Agreement, EntryView, ReproduceRequest, Reproduction
from registry_tool.plugins.manager import Plugins
from registry_tool.storage.paths import FileProblem
from registry_tool.storage.staging import NewFolder
from registry_tool.storage.writing import write_atomic
from registry_tool.strictjson import dump, parse
from registry_tool.toolkit import MISSING, ROUNDING, Difference, differences
from registry_tool.values import EMPTY, Json
from registry_tool.workflows.loading import (
    changing,
    find_entry,
    inspected,
    refuse_unsound,
    refuse_without_verdict,
    usable,
    verified,
)

ENVIRONMENT_FIELD = "environment"  # the manifest's list of {name, version}: recorded, not compared
MANIFEST_NAME = "manifest.json"


class Outcome(StrEnum):
    """Same bytes; other bytes as the environment explains, and predictions agree; or no reproduction."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within-tolerance"
    UNEXPLAINED = "unexplained"
    BEYOND_TOLERANCE = "beyond-tolerance"


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value of the manifest that differs. old: as registered; new: as trained again. explained: it may follow."""

    pointer: str
    old: Json
    new: Json
    explained: bool


@dataclass(frozen=True, slots=True)
class EnvironmentDifference:
    """An item of the environment that differs; None where it is not recorded. decides: what it may have changed."""

    name: str
    old: str | None
    new: str | None
    decides: str | None


def _then_and_now(difference: ValueChange | EnvironmentDifference) -> dict[str, Json]:
    """Its JSON, in which the old and the new value have the names of the first release."""
    names = {"old": "then", "new": "now"}
    return {names.get(name, name): value for name, value in asdict(difference).items()}


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What training again showed. files: path -> whether the bytes are the same; the manifest without environment.
    unchecked: paths of files that were not made again.

    added: pointers of values that the old manifest does not have yet, which count for nothing. manifest_sha256,
    made_sha256: of the two manifests that were compared. made_with: name -> version of the environment now.
    """

    entry: str
    manifest_sha256: str
    files: Mapping[str, bool]
    changes: Sequence[ValueChange]
    added: Sequence[str]
    environment: Sequence[EnvironmentDifference]
    agreements: Sequence[Agreement]
    warnings: Sequence[str]
    unchecked: Sequence[str]
    made_sha256: str
    made_with: Mapping[str, str]

    def to_dict(self) -> dict[str, Json]:
        """The JSON of `reproduce --format json`, and what `--store` keeps; its schema is reproduction.schema.json."""
        return {
            "entry": self.entry,
            "manifest_sha256": self.manifest_sha256,
            "made_sha256": self.made_sha256,
            "made_with": dict(self.made_with),
            "outcome": str(self.outcome),
            "files": dict(self.files),
            "unchecked": list(self.unchecked),
            "changes": [_then_and_now(change) for change in self.changes],
            "added": list(self.added),
            "environment": [_then_and_now(one) for one in self.environment],
            "agreements": [{**asdict(one), "holds": one.holds} for one in self.agreements],
            "warnings": list(self.warnings),
        }

    @property
    def outcome(self) -> Outcome:
        if all(self.files.values()):
            return Outcome.IDENTICAL
        if not all(agreement.holds for agreement in self.agreements):
            return Outcome.BEYOND_TOLERANCE
        known = any(item.decides for item in self.environment) and all(change.explained for change in self.changes)
        return Outcome.WITHIN_TOLERANCE if known and self.agreements else Outcome.UNEXPLAINED


def reproduce(
    path: Path, plugins: Plugins, entry_id: str, request: ReproduceRequest, keep: Path | None = None
) -> Reproduced:
    """Train the entry again and compare; the registry is not touched. keep: a new or empty folder for what was made.

    Raises RejectedError for an entry that does not validate: what `validate` recomputes is not compared again here.
    """
    plugins.need_all()
    loaded = usable(path)
    entry = find_entry(loaded, entry_id)
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise InputError(f"{keep}: found files, expected a new or empty folder: name another")
    with inspected(loaded, plugins) as inspection:
        view = verified(inspection, entry_id)
        refuse_unsound(view, inspection, "there is nothing to reproduce")
        made = plugins.reproduce(view, request)
        if made is None:
            known = "`registry plugins` tells which can"
            raise InputError(f"{entry_id}: the kind {entry.kind!r} cannot be reproduced: {known}")
        try:
            named = {key: value for key, value in (view.manifest or {}).items() if key == "$schema"}  # the core's own
            data = dump({**with_digests(made.trained), **named})
        except (FileProblem, TypeError, ValueError) as problem:
            reason = f"what it trained cannot be pinned: {problem}: report it"
            raise PluginError(f"plugin {plugins.owner(entry.kind).name}: {reason}") from problem
        if keep is not None:
            with NewFolder(keep) as folder:
                for name, content in {**made.trained.files, MANIFEST_NAME: data}.items():
                    (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(folder.path / name, content)
                folder.publish()
        return compare(view, made, parse(data).value)


def compare(view: EntryView, made: Reproduction, manifest: Mapping[str, Json]) -> Reproduced:
    """manifest: the new one, with its pins."""
    old = view.manifest or {}
    names = {path for path in view.paths if path != MANIFEST_NAME} | set(made.trained.files)
    files = {
        name: name in view.paths and name in made.trained.files and view.read(name) == made.trained.files[name]
        for name in sorted(names - {*made.unchecked})
    }
    leaves = list(differences(_compared(manifest), _compared(old)))
    changes = [
        ValueChange(leaf.pointer, leaf.expected, leaf.found, _explained(leaf, made.follows))
        for leaf in leaves
        if leaf.expected is not MISSING
    ]
    recorded, current = Manifest.of(old).environment, Manifest.of(manifest).environment
    environment = [
        EnvironmentDifference(name, recorded.get(name), current.get(name), made.causes.get(name))
        for name in sorted({**recorded, **current})
        if recorded.get(name) != current.get(name)
    ]
    added = [leaf.pointer for leaf in leaves if leaf.expected is MISSING]
    digests = {MANIFEST_NAME: not changes, **files}
    return Reproduced(
        entry=view.entry.id,
        manifest_sha256=view.entry.sha256,
        files=digests,
        changes=changes,
        added=added,
        environment=environment,
        agreements=made.agreements,
        warnings=made.warnings,
        unchecked=made.unchecked,
        made_sha256=sha256_of(dump(dict(manifest))),
        made_with=current,
    )


def refuse_storing(path: Path, entry_id: str) -> None:
    """Raises RejectedError for an entry beside whose verdict no result can be kept, before anything is trained."""
    refuse_without_verdict(find_entry(usable(path), entry_id))


def store_result(path: Path, done: Reproduced) -> str:
    """Keep a result beside the verdict, pinned by the promotion; its path, relative to the registry.

    The same result again is kept once. Raises RejectedError where the entry is another one by now.
    """
    data = dump(done.to_dict())
    digest = sha256_of(data)
    target = f"{done.entry}/verdicts/REPRODUCTION-{digest[:12]}.json"
    with changing(path) as loaded:
        entry = find_entry(loaded, done.entry)
        refuse_without_verdict(entry)
        if entry.sha256 != done.manifest_sha256:
            raise RejectedError(f"{entry.id}: it changed while it was trained again: run it again")
        promotion = dict(entry.promotion or EMPTY)
        others = [pin for pin in promotion.get("reproductions", ()) if pin["path"] != target]
        promotion["reproductions"] = [*others, {"path": target, "sha256": digest}]
        write_atomic(path.parent / target, data, root=path.parent)
        store.save(path, loaded.registry.with_entry(entry.with_fields(promotion=promotion)))
    return target


def _explained(leaf: Difference, follows: Sequence[str]) -> bool:
    """Whether rounding is all it is, or it follows from the weights."""
    below = any(f"{leaf.pointer}/".startswith(f"{start}/") for start in follows)
    return below or (isinstance(leaf.found, float) and ROUNDING.holds(leaf.found, leaf.expected))


def _compared(manifest: Mapping[str, Json]) -> dict[str, Json]:
    """A manifest without the environment and the digests of pins."""
    without: dict[str, Json] = _without_digests({k: v for k, v in manifest.items() if k != ENVIRONMENT_FIELD})
    return without


def _without_digests(value: Json) -> Json:
    if isinstance(value, Mapping):
        pins = {"sha256"} if any(isinstance(value.get(key), str) for key in PIN_KEYS) else set()
        return {name: _without_digests(item) for name, item in value.items() if name not in pins}
    return [_without_digests(item) for item in value] if isinstance(value, list | tuple) else value
