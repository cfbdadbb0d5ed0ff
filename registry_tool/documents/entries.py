"""entries.py: opens an entry: its documents, its pins, and its verified bytes. Judges no content."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from registry_tool.documents.schema import TYPE
from registry_tool.documents.store import schema_findings
from registry_tool.errors import PluginError
from registry_tool.findings import Finding, FindingRule, InFile
from registry_tool.hookspec import Kind
from registry_tool.onnx_summary import OnnxSummary
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import CHANGED, Contents, FileProblem, Folder, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import SHA256_PATTERN, Artifact, Entry, Json, read_only

ONNX_MAX_BYTES = 50 * 2**20  # a policy's `max_file_bytes` says otherwise
FILES_AT_MOST = 4  # of that size, in one entry: so many bytes are held at once
PIN_KEYS = ("onnx", "path")  # in a manifest, an object with one of these and `sha256` pins that file

DIGEST_MISMATCH = FindingRule(
    "digest-mismatch",
    "digest mismatch",
    why="The bytes are not those that were reviewed and judged.",
    message="digest mismatch: the sha256 of {file} is not the pinned one",
    hint="restore the file, or train or pin it again",
    example="one byte of the ONNX file changed",
)
SIZE_MISMATCH = FindingRule(
    "size-mismatch",
    "size mismatch",
    why="The pin was edited by hand.",
    message="size mismatch: the size of {file} is not the pinned one",
    hint="correct the number",
    example='"bytes": 0',
)
PIN_MISSING = FindingRule(
    "pin-missing",
    "unpinned file",
    why="The file can be replaced unseen.",
    message="unpinned file: {file} has no sha256",
    hint="add its sha256, or train again",
    example='{"onnx": "seed0.onnx"}',
)
PIN_CONFLICT = FindingRule(
    "pin-conflict",
    "file pinned twice",
    why="One of the pins is wrong.",
    message="{file} is pinned twice",
    hint="train again",
    example="seed0.onnx with two digests",
)
TOO_LARGE = FindingRule(
    "entry-too-large",
    "files of one entry too large together",
    why="They are held in memory while the entry is checked; the limit is four times that of one file.",
    message="{file}: the entry's files are too large together",
    hint="make it smaller, or raise `max_file_bytes` in the policy of its kind",
    example="an ensemble of five members of 45 MiB",
)
PLUGIN_FAILED = FindingRule(
    "plugin-failed",
    "plugin failure",
    why="What the plugin would have found is unknown, so the entry is not valid.",
    message="{error}",
    hint="update or uninstall the plugin, then validate again",
    example="KeyError: 'eval'",
)


def pins_of(manifest: Json, at: str = "") -> Iterator[tuple[str, Mapping[str, Json], str]]:
    """Every pin of a manifest: (key that names the file, the pinning object, its pointer), in document order."""
    if isinstance(manifest, Mapping):
        for key in PIN_KEYS:
            if isinstance(manifest.get(key), str):
                yield key, manifest, at
        for name, value in manifest.items():
            yield from pins_of(value, at + pointer(name))
    elif isinstance(manifest, list | tuple):
        for index, value in enumerate(manifest):
            yield from pins_of(value, at + pointer(index))


def stem(onnx: str) -> str:
    return onnx.removesuffix(".onnx")


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class OpenEntry:
    """An entry whose pinned files were read once, hashed, and compared; implements `hookspec.EntryView`.

    findings: everything that was wrong on the way. `sound` is False where a document or a digest does not hold: then
    no hook sees the entry. documents: parsed JSON by file, for the positions of findings. index: its place in the
    registry of that name; None for a manifest that no entry pins: `registry_name` then is the manifest's own. prober:
    reads its ONNX files; None where no child may be started.
    """

    def __init__(
        self,
        folder: Folder,
        entry: Entry,
        index: int | None,
        registry_name: str,
        max_bytes: int,
        prober: Prober | None = None,
    ) -> None:
        self.entry = entry
        self.prober = prober
        self.manifest: Mapping[str, Json] | None = None
        self.findings: list[Finding] = []
        self.documents: dict[str, Document] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.sidecar: str | None = None
        self._folder = folder
        self._contents: dict[str, Contents] = {}
        self._checked: set[str] = set()
        self._room = FILES_AT_MOST * max_bytes
        self._registry_name = registry_name
        self._at = "" if index is None else f"/models/{index}"
        self._max_bytes = max_bytes

    @property
    def sound(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    @property
    def paths(self) -> Sequence[str]:
        return tuple(self.artifacts)

    @property
    def document_file(self) -> str:
        """The file that `finding` points into: the manifest, the sidecar, else the registry."""
        return self.entry.manifest or self.sidecar or self._registry_name

    def read(self, path: str) -> bytes:
        if path not in self.artifacts:
            raise KeyError(f"{path}: nothing in entry {self.entry.id} pins it")
        if path not in self._contents:
            artifact = self.artifacts[path]
            contents = self._folder.contents(artifact.path, self._max_bytes)
            if contents.sha256 != artifact.sha256:
                raise FileProblem(CHANGED, artifact.path)
            self._contents[path] = contents
        return self._contents[path].data

    def onnx(self, path: str) -> OnnxSummary:
        data = self.read(path)
        if self.prober is None:
            raise PluginError(f"{path}: no ONNX file is read at --level quick: return early")
        return self.prober.read(data, sha256=self.artifacts[path].sha256)

    def run(self, path: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        data = self.read(path)
        if self.prober is None:
            raise PluginError(f"{path}: no ONNX file is run at --level quick: return early")
        return self.prober.infer(data, inputs)

    def finding(self, code: str, message: str, pointer: str = "", **fields: Any) -> Finding:
        file = fields.pop("file", self.document_file)
        if file == self._registry_name and not pointer.startswith(self._at):
            pointer = self._at + pointer  # a plugin speaks of its entry, not of the whole registry
        return Finding(code, message, **{"entry": self.entry.id, "file": file, "pointer": pointer, **fields})

    @property
    def row(self) -> InFile:
        """The entry in the registry itself, as a place for findings on its fields."""
        return InFile(self._registry_name, self.entry.id, self._at)

    def plugin_finding(self, error: PluginError) -> Finding:
        """What a plugin did wrong with this entry, at its id."""
        return PLUGIN_FAILED.at(self.row, "/id", error=error)

    def read_unpinned(self, path: str) -> bytes:
        """A file that nothing pins by sha256, for the core's own checks. Raises FileProblem."""
        return self._folder.read(check_path(path), self._max_bytes)

    def pinned_document(self, path: str, sha256: str, *field: str) -> Document | None:
        """A JSON document that the registry pins next to the entry (its verdict); None, with findings, if it fails."""
        artifact = Artifact(path, sha256, None, self._registry_name, self._at + pointer(*field))
        contents = self._check(path, artifact, JSON_MAX_BYTES)
        return self._parse(path, contents) if contents is not None else None

    def open_other(self, entry: Entry, index: int, kind: Kind | None) -> OpenEntry:
        """Another entry of the same registry, opened too."""
        other = OpenEntry(self._folder, entry, index, self._registry_name, self._max_bytes, self.prober)
        return other.open(kind, keep=True)

    # ---- opening ------------------------------------------------------------------------------------------------

    def open(self, kind: Kind | None, *, keep: bool) -> OpenEntry:
        """Read the documents and check every digest. keep: hold the bytes for `read`, so no file is opened twice."""
        if self.entry.manifest is not None:
            self._open_manifest(kind)
        else:
            self._pin_single_model()
        for name, artifact in self.artifacts.items():
            if name not in self._checked:
                self._check(name, artifact, keep=keep, hashed=not keep)
        return self

    def _open_manifest(self, kind: Kind | None) -> None:
        path = self.entry.manifest or ""
        name = posixpath.basename(path)
        self.artifacts[name] = self._artifact(path, self.entry.sha256, "sha256")
        contents = self._check(name, self.artifacts[name], JSON_MAX_BYTES, keep=True)
        document = self._parse(path, contents) if contents is not None else None
        if document is None or not self.sound:
            return
        if not isinstance(document.value, dict):
            self.findings.append(TYPE.at(self, found="not an object", expected="object"))
            return
        if kind is not None and kind.schema is not None:
            try:
                self.findings += schema_findings(document, kind.schema, path, self.entry.id)
            except PluginError as error:
                self.findings.append(self.plugin_finding(PluginError(f"kind {kind.name!r}: {error}")))
        self.manifest = read_only(document.value)
        if self.sound:
            self._pin_manifest(posixpath.dirname(path), path, document.value)

    def _pin_manifest(self, base: str, path: str, manifest: Mapping[str, Json]) -> None:
        for key, pin, at in pins_of(manifest):
            name, digest = pin[key], pin.get("sha256")
            if not isinstance(digest, str) or not SHA256_PATTERN.match(digest):
                self.findings.append(PIN_MISSING.at(self, at + pointer(key), file=name))
                continue
            artifact = Artifact(posixpath.join(base, name), digest, None, path, at + pointer("sha256"))
            known = self.artifacts.get(name)
            if known is not None and known.sha256 != digest:
                place, expected = at + pointer("sha256"), known.sha256
                self.findings.append(PIN_CONFLICT.at(self, place, found=digest, expected=expected, file=name))
            elif known is None:
                self.artifacts[name] = artifact

    def _pin_single_model(self) -> None:
        document, onnx = self.entry.document, self.entry.onnx or ""
        self.artifacts[onnx] = self._artifact(onnx, self.entry.sha256, "sha256")
        if "int8_sha256" in document:
            int8 = f"{stem(onnx)}.int8.onnx"
            self._pin(self._artifact(int8, document["int8_sha256"], "int8_sha256"))
        for index, pin in enumerate(document.get("external_data", ())):
            at = self._at + pointer("external_data", index, "sha256")
            self._pin(Artifact(pin["path"], pin["sha256"], pin["bytes"], self._registry_name, at))
        sidecar = f"{stem(onnx)}.json"
        if "sidecar_sha256" in document:
            self._pin(self._artifact(sidecar, document["sidecar_sha256"], "sidecar_sha256"))
            contents = self._check(sidecar, self.artifacts[sidecar], JSON_MAX_BYTES, keep=True)
        else:
            before = len(self.findings)
            contents = self._read(sidecar, JSON_MAX_BYTES, {"file": sidecar, "pointer": None})
            if any(f.code in ("file-missing", "file-escapes") for f in self.findings[before:]):
                del self.findings[before:]  # the kind says whether it has to be there; the model's own pin, where it is
        parsed = self._parse(sidecar, contents) if contents is not None else None
        if parsed is not None and isinstance(parsed.value, dict):
            self.manifest, self.sidecar = read_only(parsed.value), sidecar
        elif parsed is not None:
            self.findings.append(TYPE.at(InFile(sidecar, self.entry.id), "", found="not an object", expected="object"))

    def _pin(self, artifact: Artifact) -> None:
        """A second pin of one file takes nothing over from the first: it is a finding."""
        known = self.artifacts.setdefault(artifact.path, artifact)
        if known is not artifact:
            self.findings.append(
                PIN_CONFLICT.at(
                    InFile(artifact.document, self.entry.id),
                    artifact.pointer,
                    found=artifact.sha256,
                    expected=known.sha256,
                    hint="keep the pin that is right",
                    file=artifact.path,
                )
            )

    def _artifact(self, path: str, digest: str, field: str) -> Artifact:
        return Artifact(path, digest, None, self._registry_name, f"{self._at}/{field}")

    def _parse(self, path: str, contents: Contents) -> Document | None:
        try:
            self.documents[path] = parse(contents.data)
        except JsonProblem as problem:
            self.findings.append(problem.at(path, self.entry.id))
            return None
        return self.documents[path]

    def _read(
        self, path: str, max_bytes: int, place: Mapping[str, str | None], hashed: bool = False
    ) -> Contents | None:
        limit = min(max_bytes, self._room)
        try:
            contents = self._folder.contents(path, limit, hashed=hashed)
        except FileProblem as problem:
            finding = replace(problem.at(path, self.entry.id), **place)  # type: ignore[arg-type]  # text fields
            if problem.code == "file-too-large" and limit < max_bytes:
                expected = f"at most {FILES_AT_MOST * self._max_bytes} bytes"
                finding = TOO_LARGE.at(
                    InFile(finding.file, self.entry.id), finding.pointer, expected=expected, file=path
                )
            self.findings.append(finding)
            return None
        self._room -= contents.size
        return contents

    def _check(
        self, name: str, artifact: Artifact, max_bytes: int | None = None, *, keep: bool = False, hashed: bool = False
    ) -> Contents | None:
        """Read one pinned file and compare its digest and size; a finding points at the pin.

        keep: for `read`. hashed: nobody wants the data.
        """
        self._checked.add(name)
        place, pin = {"file": artifact.document, "pointer": artifact.pointer}, InFile(artifact.document, self.entry.id)
        contents = self._read(artifact.path, max_bytes or self._max_bytes, place, hashed)
        if contents is None:
            return None
        if contents.sha256 != artifact.sha256:
            found, expected = contents.sha256, artifact.sha256
            self.findings.append(
                DIGEST_MISMATCH.at(pin, artifact.pointer, found=found, expected=expected, file=artifact.path)
            )
            return None
        if artifact.size is not None and artifact.size != contents.size:
            found, expected = f"{contents.size} bytes", f"{artifact.size} bytes"
            self.findings.append(
                SIZE_MISMATCH.at(pin, artifact.pointer, found=found, expected=expected, file=artifact.path)
            )
        if keep:
            self._contents[name] = contents
        return contents
