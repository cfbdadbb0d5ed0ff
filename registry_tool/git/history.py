"""history.py: what happened to an entry, as git tells it: who did what, when, on which evidence. Writes nothing.

The line that HEAD's first parents make is what was in force; a merge is dated by itself and signed by the commit that
it brought in. One `git log`, one `git cat-file`, and one `git log` more for each merge that changed the entry.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path

from registry_tool.documents.entries import sha256_of
from registry_tool.errors import InputError
from registry_tool.git.repository import FETCH_HINT, Blob, blobs, git, is_shallow, path_in_repository, words
from registry_tool.values import EMPTY, Json

LOG_FORMAT = "--format=%x01%H%x00%P%x00%cI%x00%an <%ae>%x00%cn <%ce>%x00%G?%x00%GS%x00%s"
EntryRow = Mapping[str, Json]


COMMIT_SIGNATURES = {  # as git's `%G?` has them
    "G": "good",
    "U": "good, of unknown validity",
    "X": "good, expired since",
    "Y": "good, by an expired key",
    "R": "good, by a revoked key",
    "B": "BAD",
    "E": "not checked: no key here",
    "N": "none",
}


@dataclass(frozen=True, slots=True)
class Who:
    """Who wrote a change and who committed it, and what git itself says of the commit's signature.

    status: a letter of `%G?`; see COMMIT_SIGNATURES. signer: as git names it.
    """

    author: str
    committer: str
    status: str = "N"
    signer: str | None = None

    @property
    def signature(self) -> str:
        """The status in words."""
        return COMMIT_SIGNATURES.get(self.status, "unknown")

    @property
    def signed(self) -> str:
        """The same, with the signer where git names one."""
        return self.signature + (f" ({self.signer})" if self.signer else "")


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit that changed the registry: `old` and `new` are the file's blobs, all zeros where there is none."""

    commit: str
    parents: tuple[str, ...]
    date: datetime
    who: Who
    subject: str
    old: str
    new: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What one commit did to an entry. landed: when it came into force; merge: the commit that brought it in.

    details: sha256 of what the entry pins, and verdict, evidence_sha256, reason, fields, where there are any.
    added: bytes of the signatures and attestations that it pins anew, by path; None where the commit does not hold them
    as they are pinned.
    """

    action: str
    commit: str
    landed: datetime
    who: Who
    subject: str
    merge: str | None = None
    details: Mapping[str, Json] = field(default_factory=lambda: EMPTY)
    added: Mapping[str, bytes | None] = field(default_factory=lambda: EMPTY)

    @property
    def when(self) -> str:
        """When it came into force, to the minute, UTC, for people."""
        return self.landed.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


@dataclass(frozen=True, slots=True)
class History:
    """The events of one entry, oldest first; shallow: the clone does not hold all there ever was."""

    entry: str
    events: tuple[Event, ...]
    shallow: bool


@dataclass(frozen=True, slots=True)
class AsOf:
    """The production entries of a moment, and the commit that was in force; None before the registry began."""

    moment: datetime
    commit: str | None
    rows: tuple[EntryRow, ...]
    shallow: bool


def history(path: Path, entry_id: str) -> History:
    """Every change to an entry. Raises InputError outside a repository, and for an id that never was."""
    folder = path.resolve().parent
    steps = _steps(path)
    with blobs(folder) as blob:
        rows = _Rows(blob)
        events = []
        for step in steps:
            old, new = rows.of(step.old).get(entry_id), rows.of(step.new).get(entry_id)
            if old != new:
                events.append(_event(step, old, new, entry_id, folder, rows))
    shallow = is_shallow(folder)
    if not events:
        hint = f"the history here is shallow: {FETCH_HINT}" if shallow else "check the id"
        raise InputError(f"{path}: no entry {entry_id!r} in any commit, expected one that was committed: {hint}")
    return History(entry_id, tuple(events), shallow)


def as_of(path: Path, moment: datetime, entry_id: str | None = None) -> AsOf:
    """What was production at a moment: of one id, or of all. Raises InputError where a shallow clone cannot know."""
    folder = path.resolve().parent
    shallow = is_shallow(folder)
    step = next((step for step in reversed(_steps(path)) if step.date <= moment), None)
    if step is None:
        if shallow:
            raise InputError(f"{path}: this shallow clone does not reach back to {moment.isoformat()}: {FETCH_HINT}")
        return AsOf(moment, None, (), shallow)
    with blobs(folder) as blob:
        rows = _Rows(blob).of(step.new).values()
    found = (row for row in rows if not row.get("smoke", False) and entry_id in (None, row["id"]))
    return AsOf(moment, step.commit, tuple(found), shallow)


def moment(text: str) -> datetime:
    """A day (its end) or a time of ISO 8601, UTC where it says no zone. Raises InputError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--as-of: found {text!r}, expected a day like 2026-05-06, or an ISO 8601 time") from None
    if len(text) <= len("2026-05-06"):
        found = datetime.combine(found.date(), time.max)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _steps(path: Path) -> list[Revision]:
    """The commits of HEAD's first-parent line that changed the file, oldest first; renames of the file are followed."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder, expected a registry in a git repository: check the path")
    inside = git(folder, "rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 or inside.stdout.strip() != b"true":
        why = words(inside.stderr)
        reason = "" if not why or "not a git repository" in why else f" that git reads: it says {why!r}"
        raise InputError(f"{path}: found no git repository{reason}, expected one with its history: run it in a clone")
    if git(folder, "rev-parse", "--verify", "--quiet", "HEAD").returncode != 0:
        raise InputError(f"{path}: its repository has no commit yet, so there is no history: commit it first")
    name = path_in_repository(path)
    return _log(folder, "--first-parent", "-m", "--follow", "HEAD", "--", f":(top,literal){name}")


def _log(folder: Path, *arguments: str) -> list[Revision]:
    log = git(folder, "-c", "core.quotePath=off", "log", "--raw", "--no-abbrev", "-M", LOG_FORMAT, *arguments)
    if log.returncode != 0:
        raise InputError(f"git log: {' '.join(log.stderr.decode(errors='replace').split())[:300]}: check the clone")
    steps = []
    for block in log.stdout.decode(errors="replace").split("\x01")[1:]:
        head, _, rest = block.partition("\n")
        commit, parents, date, author, committer, status, signer, subject = head.split("\0", 7)
        for line in rest.splitlines():
            if line.startswith(":"):
                fields, *paths = line.split("\t")
                old, new = fields.split(" ")[2:4]
                committed = datetime.fromisoformat(date)
                who = Who(author, committer, status, signer or None)
                steps.append(Revision(commit, tuple(parents.split()), committed, who, subject, old, new, tuple(paths)))
    return steps[::-1]


class _Rows:
    """The entries of a registry by id, for each of its blobs: read leniently, since old commits may hold anything."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self._known = blob, dict[str, dict[str, EntryRow]]()

    def of(self, name: str) -> dict[str, EntryRow]:
        if name not in self._known:
            data = None if set(name) == {"0"} else self.blob(name)
            try:
                document = json.loads(data or b"{}")
            except (ValueError, RecursionError):
                document = {}
            models = document.get("models") if isinstance(document, dict) else None
            rows = [row for row in models if isinstance(row, dict)] if isinstance(models, list) else []
            self._known[name] = {row["id"]: row for row in rows if isinstance(row.get("id"), str)}
        return self._known[name]


def _event(
    step: Revision, old: EntryRow | None, new: EntryRow | None, entry_id: str, folder: Path, rows: _Rows
) -> Event:
    source = step
    if len(step.parents) > 1:  # the commit that the merge brought in; the newest that made the entry what it is
        inside = f"{step.parents[0]}..{step.commit}"
        for one in _log(folder, "--no-merges", inside, "--", *(f":(top,literal){p}" for p in step.paths)):
            was, became = rows.of(one.old).get(entry_id), rows.of(one.new).get(entry_id)
            source = one if became == new != was else source
    merge = step.commit if source is not step else None
    details, added = dict(_details(step, old, new, rows.blob)), dict(_added(step, old, new, rows.blob))
    return Event(_action(old, new), source.commit, step.date, source.who, source.subject, merge, details, added)


def _action(old: EntryRow | None, new: EntryRow | None) -> str:
    if new is None:
        return "removed from production" if old and not old.get("smoke", False) else "removed"
    smoke, was_smoke = new.get("smoke", False), old.get("smoke", False) if old else True
    if old is None or (was_smoke and not smoke):
        imported = "imported_from" in _object(new, "promotion")
        return "registered as smoke" if smoke else "imported as production" if imported else "turned production"
    if smoke and not was_smoke:
        return "demoted"
    if old.get("sha256") != new.get("sha256"):
        return "trained again" if smoke else "other bytes in production"
    if signed := _pins(new, old) - _pins(old, new):
        fields = {name for name, _, _ in signed}
        return "signed" if "signatures" in fields else "attested" if "attestations" in fields else "reproduced"
    return "edited"


def _object(row: EntryRow | None, key: str) -> Mapping[str, Json]:
    value = row.get(key) if row else None
    return value if isinstance(value, dict) else EMPTY


def _pins(row: EntryRow | None, other: EntryRow | None) -> set[tuple[str, str, str]]:
    """(list, path, sha256) of what an entry pins of signatures, attestations and results of training again.

    Empty where anything else differs from the other row: then the change is another one.
    """

    def rest(some: EntryRow | None) -> Json:
        promotion = {k: v for k, v in _object(some, "promotion").items() if k not in ("attestations", "reproductions")}
        return {**{k: v for k, v in (some or EMPTY).items() if k != "signatures"}, "promotion": promotion}

    return set(_pinned(row)) if rest(row) == rest(other) else set()


def _pinned(row: EntryRow | None) -> Iterator[tuple[str, str, str]]:
    promotion = _object(row, "promotion")
    for name, pins in (
        ("signatures", (row or EMPTY).get("signatures")),
        ("attestations", promotion.get("attestations")),
        ("reproductions", promotion.get("reproductions")),
    ):
        for pin in pins if isinstance(pins, list) else ():
            if isinstance(pin, dict):
                yield name, str(pin.get("bundle", pin.get("path"))), str(pin.get("sha256"))


def _added(
    step: Revision, old: EntryRow | None, new: EntryRow | None, blob: Blob
) -> Iterator[tuple[str, bytes | None]]:
    """The signatures and attestations that the entry pins since this commit, with their bytes there."""
    known = set(_pinned(old))
    for name, path, digest in _pinned(new):
        if (name, path, digest) not in known and name != "reproductions":
            data = blob(f"{step.commit}:{posixpath.join(posixpath.dirname(step.paths[-1]), path)}")
            yield path, data if data is not None and sha256_of(data) == digest else None


def _details(step: Revision, old: EntryRow | None, new: EntryRow | None, blob: Blob) -> Iterator[tuple[str, Json]]:
    yield "sha256", (new or old or EMPTY).get("sha256")
    if old and new:
        yield "fields", sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    promotion = _object(new, "promotion")
    if promotion and promotion != _object(old, "promotion"):
        for key in ("verdict", "imported_from"):
            if key in promotion:
                yield key, promotion[key]
        if "verdict" in promotion:
            folder = posixpath.dirname(step.paths[-1])
            data = blob(f"{step.commit}:{posixpath.join(folder, str(promotion['verdict']))}")
            holds = data is not None and sha256_of(data) == promotion.get("sha256")
            yield "verdict_holds", holds
            try:
                verdict = json.loads(data) if holds and data else {}
            except (ValueError, RecursionError):
                verdict = {}
            yield "evidence_sha256", verdict.get("evidence_sha256") if isinstance(verdict, dict) else None
    reason = promotion.get("reason") or _object(new, "demotion").get("reason")
    if reason and (promotion != _object(old, "promotion") or _object(new, "demotion") != _object(old, "demotion")):
        yield "reason", reason
