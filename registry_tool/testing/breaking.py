"""breaking.py: the part of the suite that breaks a good registry, and puts other plugins beside the one under test."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from registry_tool.documents.schema import is_valid
from registry_tool.errors import PluginError, RegistryError
from registry_tool.findings import Finding, errors_of
from registry_tool.hookspec import EntryView, Level, hookimpl
from registry_tool.onnx_summary import OnnxSummary
from registry_tool.plugins.manager import Plugins
from registry_tool.strictjson import pointer
from registry_tool.testing.base import undisturbed
from registry_tool.testing.bench import PLUGIN_NAME, Bench, plugin_of
from registry_tool.testing.changes import DocumentPath, few_changes
from registry_tool.testing.using import ROW_HOOKS, VIEW_HOOKS, Using
from registry_tool.values import Entry, Json
from registry_tool.workflows.explain import declared

OF_THE_FOLDER = "file-unregistered"  # the core says it of a file, where a manifest pins it no more
FOREIGN_KIND = "suite_stranger"  # a kind that the plugin under test does not own
MAX_CHANGES_SHOWN = 10  # names in a failure
MOST_NEIGHBOURS = 40  # changed documents that are checked beside a broken plugin


class Broken:
    """Fails whenever it looks at an entry."""

    @hookimpl
    def registry_verify(self, view: EntryView, level: Level) -> list[Finding]:
        raise RuntimeError("this neighbour is broken on purpose")


class ForeignView:
    """An entry of the stranger's kind. Reading it is none of the tested plugin's business."""

    paths = ("other.bin",)

    def __init__(self, entry: Entry, manifest: Json) -> None:
        self.entry, self.manifest = entry, manifest

    def read(self, path: str) -> bytes:
        raise AssertionError(f"read {path} of an entry of kind {FOREIGN_KIND}: return early for other kinds")

    def onnx(self, path: str) -> OnnxSummary:
        raise AssertionError(f"opened {path} of an entry of kind {FOREIGN_KIND}: return early for other kinds")

    def run(self, path: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        raise AssertionError(f"ran {path} of an entry of kind {FOREIGN_KIND}: return early for other kinds")

    def finding(self, code: str, message: str, pointer: str = "", **fields: Json) -> Finding:
        return Finding(code, message, entry=self.entry.id, pointer=pointer, **fields)


def _foreign_views(document: Json) -> Iterator[ForeignView]:
    """Entries with a manifest and with one ONNX file, in production and not; documents like ours, empty, none, odd."""
    for smoke in (True, False):
        for name in ("manifest", "onnx"):
            row = {"id": "other", "kind": FOREIGN_KIND, "smoke": smoke, "sha256": "0" * 64, name: f"other/{name}"}
            for manifest in (document, {}, None, {"kind": FOREIGN_KIND, "members": 7, "model": None}):
                yield ForeignView(Entry.from_dict(row), manifest)


class Breaking(Using):
    """Whatever is broken is found or left alone: nothing makes the plugin fail, and it does not harm other entries."""

    def test_every_file_is_pinned(self, good: Bench) -> None:
        """Each pinned file changed, cut, emptied or gone is an error that names it, before any hook sees it."""
        for name in good.pinned():
            path = good.artifacts / name
            data = path.read_bytes()
            for change, changed in (
                ("changed", _flipped(data, 0)),
                ("cut", data[:-1]),
                ("emptied", b""),
                ("gone", None),
            ):
                path.unlink() if changed is None else path.write_bytes(changed)
                assert any(name in str(f) for f in good.errors(Level.QUICK)), f"{name} {change}: no finding names it"
                path.write_bytes(data)

    def test_a_file_that_is_replaced_with_its_pins_proves_nothing(self, good: Bench, tmp_path: Path) -> None:
        """Each pinned file replaced by other bytes, all pins fitting: verify objects, or the gate does not promote."""
        accepted = []
        for name in good.pinned():
            with good.view() as view:
                data = view.read(name)
            for change, changed in (("emptied", b""), ("halved", data[: len(data) // 2]), ("made text", b"{}\n")):
                bench = self._forged(good, tmp_path, files={name: changed})
                with undisturbed(tmp_path, bench.path.parent):
                    errors = bench.errors()
                    promotes = not errors and self._promotes(bench)
                _assert_no_failure(errors, f"{name} {change}")
                if not errors and (promotes or not hasattr(bench.plugins.loaded[0].module, "registry_gate")):
                    accepted.append(f"{name} {change}")
        assert not accepted, f"neither registry_verify nor registry_gate objects: {accepted[:MAX_CHANGES_SHOWN]}"

    def test_no_changed_byte_makes_it_fail(self, good: Bench, tmp_path: Path) -> None:
        """Single bytes of each pinned file changed, all pins fitting: a finding or none, never an exception."""
        for name in good.pinned():
            with good.view() as view:
                data = view.read(name)
            for position in sorted({len(data) * part // 8 for part in range(8)}):
                bench = self._forged(good, tmp_path, files={name: _flipped(data, position)})
                errors = bench.errors()
                _assert_no_failure(errors, f"{name}: byte {position} changed")
                self._ask_each_hook(bench)

    def test_every_field_is_checked(self, good: Bench, tmp_path: Path) -> None:
        """Each field of the manifest dropped or of another type, all pins fitting, is an error: schema or verify.

        Fields changed within their type may pass; nothing makes the plugin fail.
        """
        missed, document = [], good.manifest
        codes = {rule.code for group in declared(good.plugins) for rule in group.rules}
        if not document:
            pytest.skip("the entry has no manifest and no sidecar")
        bench = self._forged(good, tmp_path)
        for change, place, changed in few_changes(document):
            if self._is_refused(good, changed):
                continue
            bench.forge(changed)
            with undisturbed(tmp_path, bench.path.parent):
                findings = bench.findings()
            errors = errors_of(findings)
            _assert_no_failure(errors, change)
            for finding in findings:
                if finding.code != OF_THE_FOLDER:
                    _assert_finding(finding, codes)
            if not errors and not self._may_pass(change, place):
                missed.append(change)
        assert not missed, (
            f"{len(missed)} changes with no finding, such as {missed[:MAX_CHANGES_SHOWN]}: let the schema "
            "ask for the field and its type, or name it in `optional`"
        )

    def _is_refused(self, bench: Bench, document: Json) -> bool:
        """Whether the kind's schema makes this manifest an error: no hook is given the entry then."""
        schema = bench.plugins.kinds[self.kind].schema
        return schema is not None and not is_valid(document, schema)

    def _may_pass(self, change: str, place: DocumentPath) -> bool:
        """A change within the type, an item of a list less, or a field that the author calls optional."""
        word = change.rpartition(" ")[2]
        kept = not (word == "dropped" or " made " in change) or change.endswith((" made huge", " made long"))
        free = any(pointer(*place) == p or pointer(*place).startswith(f"{p}/") for p in self.optional)
        return kept or free or (word == "dropped" and isinstance(place[-1], int))

    def test_entries_of_other_kinds_are_left_alone(self, good: Bench, tmp_path: Path) -> None:
        """Of an entry of another kind it says nothing, reads nothing, and is not confused by its document."""
        document = good.manifest
        for level, view in itertools.product(Level, _foreign_views(document)):
            with undisturbed(tmp_path):
                answers = list(good.plugins.verify(view, level))
            for _, found, error in answers:
                assert error is None, f"on an entry of another kind: {error}"
                assert found == [], f"registry_verify gave findings for another kind: {[str(f) for f in found]}"

    def test_a_broken_neighbour_hides_nothing(self, good: Bench, tmp_path: Path) -> None:
        """A plugin that fails on an entry, before this one or after it, changes none of this one's findings."""
        document, asked = good.manifest, 0
        changes = itertools.islice(few_changes(document), MOST_NEIGHBOURS)
        for changed in (document, *(changed for _, _, changed in changes)):
            bench = self._forged(good, tmp_path, changed)
            alone = bench.findings()
            for order in ((Broken(), bench), (bench, Broken())):
                found = bench.findings(plugins=_together(*order))
                failed = [f for f in found if f.code == "plugin-failed"]
                asked += len(failed)
                assert all("neighbour" in f.message for f in failed), f"this plugin failed too: {failed}"
                assert tuple(f for f in found if f not in failed) == alone, "a broken neighbour changed the findings"
        assert asked, "the core never came to ask any plugin"

    def _forged(
        self,
        good: Bench,
        tmp_path: Path,
        document: Mapping[str, Json] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Bench:
        """A fresh copy with these changes, in the place of the last one."""
        shutil.rmtree(tmp_path / "forged", ignore_errors=True)
        bench = good.copy(tmp_path / "forged")
        bench.forge(document, files or {})
        return bench

    def _ask_each_hook(self, bench: Bench) -> None:
        """The owner's hooks that need no rows: an answer, or an error that their contract allows."""
        for hook in VIEW_HOOKS:
            if hook not in ROW_HOOKS and hook != "registry_verify" and hasattr(plugin_of(self.plugin), hook):
                try:
                    self.ask_hook(bench, hook, None)
                except PluginError as error:
                    pytest.fail(str(error))
                except RegistryError:
                    continue

    def _promotes(self, bench: Bench) -> bool:
        """The gate's answer; evidence that cannot be read is a no. Any other exception is the plugin's failure."""
        if not hasattr(bench.plugins.loaded[0].module, "registry_gate"):
            return False
        try:
            return bench.gate().promotes
        except PluginError as error:
            pytest.fail(str(error))
        except RegistryError:
            return False


def _together(*members: object) -> Plugins:
    """Plugins on one manager, in this order; a bench in place of its own."""
    plugins = Plugins()
    for member in members:
        tested = isinstance(member, Bench)
        plugins.add(
            plugin_of(member.plugin) if isinstance(member, Bench) else member, PLUGIN_NAME if tested else "neighbour"
        )
    return plugins


def _flipped(data: bytes, position: int) -> bytes:
    """The bytes with one of them changed."""
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :] if data else b"\0"


def _assert_no_failure(findings: list[Finding], change: str) -> None:
    failed = [str(f) for f in findings if f.code == "plugin-failed"]
    assert not failed, f"{change}: registry_verify raised, where it should give a finding: {failed[0]}"


def _assert_finding(finding: Finding, codes: Collection[str]) -> None:
    """One line with a declared code and a place: what every report can show and explain."""
    assert finding.code in codes, f"code {finding.code!r}: declare it as a FindingRule where `Kind.findings` says"
    assert finding.message.strip(), f"{finding.code}: no message"
    assert len(str(finding).splitlines()) == 1, f"{finding.code}: {str(finding)!r} is not one line"
    assert finding.entry, f"{finding.code}: no entry: make it with view.finding"
    assert finding.file, f"{finding.code}: no file: make it with view.finding"
    assert (finding.pointer or "/").startswith("/"), f"{finding.code}: pointer {finding.pointer!r}: expected /a/b"
