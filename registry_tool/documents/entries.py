"""entries.py: verifies an entry: reads its documents, compares every digest, hands out its bytes. Judges no content."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from registry_tool.documents.schema import TYPE
from registry_tool.documents.store import schema_findings
from registry_tool.errors import PluginError
from registry_tool.findings import Finding, FindingFields, FindingRule, InFile, errors_of
from registry_tool.hookspec import Kind
from registry_tool.onnx_summary import OnnxSummary
from registry_tool.sandbox.prober import Prober
from registry_tool.storage.files import Contents, Folder
from registry_tool.storage.paths import FILE_CHANGED, FileProblem, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, Document, JsonProblem, parse, pointer
from registry_tool.values import SHA256_PATTERN, Artifact, Entry, Json, read_only

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

ONNX_MAX_BYTES = 50 * 2**20  # a policy's `max_file_bytes` says otherwise
MAX_FILES_HELD = 4  # of that size, in one entry: so many bytes are held at once
PIN_KEYS = ("onnx", "path")  # in a manifest, an object with one of these and `sha256` pins that file

DIGEST_MISMATCH = FindingRule(
    "digest-mismatch",
    "digest mismatch",
    why="The bytes are not those that were reviewed and judged.",
    message="digest mismatch: the sha256 of {file} is not the pinned one",
    hint="restore the file, or train or pin it again",
    example="one byte of the ONNX file changed",
)
LINE_ENDINGS = (
    "its line endings were converted to CRLF: write `* -text` into .gitattributes beside the registry, delete {file} "
    "and run `git checkout -- {file}` there"
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
PINNED_TOO_LARGE = FindingRule(
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


def pins_of(manifest: Json) -> Iterator[tuple[str, Mapping[str, Json], str]]:
    """Every pin of a manifest: (key that names the file, the pinning object, its pointer), in document order."""
    found: list[tuple[str, Mapping[str, Json], str]] = []
    _add_pins(manifest, (), found)
    return iter(found)


def _add_pins(value: Json, path: tuple[str | int, ...], found: list[tuple[str, Mapping[str, Json], str]]) -> None:
    if isinstance(value, Mapping):
        found += [(key, value, pointer(*path)) for key in PIN_KEYS if isinstance(value.get(key), str)]
        items: Iterable[tuple[str | int, Json]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return
    for key, item in items:
        if not isinstance(item, str | float | int):  # most are, and pin nothing
            _add_pins(item, (*path, key), found)


def stem(onnx: str) -> str:
    return onnx.removesuffix(".onnx")


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Reader:
    """What the files of entries are read with.

    kinds: whose schemas manifests are held to; an entry of another kind is held to none. prober: reads ONNX files;
    None at Level.QUICK, which starts no child. keep: hold bytes once they are hashed, so that no file is opened twice.
    """

    folder: Folder
    kinds: Mapping[str, Kind]
    prober: Prober | None = None
    keep: bool = True


class PinnedFiles:
    """The pinned files of one entry, by the names its documents use; only bytes with the pinned digest come out."""

    def __init__(self, reader: Reader, entry_id: str, max_bytes: int) -> None:
        self.artifacts: dict[str, Artifact] = {}
        self._reader = reader
        self._entry_id = entry_id
        self._max_bytes = max_bytes
        self._room = MAX_FILES_HELD * max_bytes
        self._contents: dict[str, Contents] = {}

    def read(self, name: str) -> bytes:
        """Raises KeyError for a name without a pin, FileProblem for a file that changed since it was hashed."""
        if name not in self.artifacts:
            raise KeyError(f"{name}: nothing in entry {self._entry_id} pins it")
        if name not in self._contents:
            artifact = self.artifacts[name]
            contents = self._reader.folder.contents(artifact.path, self._max_bytes)
            if contents.sha256 != artifact.sha256:
                raise FileProblem(FILE_CHANGED, artifact.path)
            self._contents[name] = contents
        return self._contents[name].data

    def onnx(self, name: str) -> OnnxSummary:
        """What the ONNX file of this name says; see `hookspec.EntryView`."""
        data = self.read(name)
        return self._prober(name).read(data, sha256=self.artifacts[name].sha256)

    def run(self, name: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        """What the ONNX file of this name gives for rows; see `hookspec.EntryView`."""
        data = self.read(name)
        return self._prober(name).infer(data, inputs)

    def _prober(self, name: str) -> Prober:
        if self._reader.prober is None:
            raise PluginError(f"{name}: no ONNX file is read or run at --level quick: return early")
        return self._reader.prober

    def read_unpinned(self, path: str) -> bytes:
        """A file that nothing pins by sha256, for the core's own checks. Raises FileProblem."""
        return self._reader.folder.read(check_path(path), self._max_bytes)

    def check(self, name: str) -> Finding | None:
        """Read one of `artifacts`; None where it holds. Its bytes are kept where the reader keeps bytes."""
        found = self.compare(self.artifacts[name], self._max_bytes, hashed=not self._reader.keep)
        if isinstance(found, Finding):
            return found
        if self._reader.keep:
            self._contents[name] = found
        return None

    def document(self, name: str) -> Contents | Finding:
        """The contents of one of `artifacts` that is a JSON document; kept in any case."""
        found = self.compare(self.artifacts[name], JSON_MAX_BYTES)
        if isinstance(found, Contents):
            self._contents[name] = found
        return found

    def compare(self, artifact: Artifact, limit: int, *, hashed: bool = False) -> Contents | Finding:
        """Read a pinned file and compare digest and size; a finding is at the pin. hashed: without the data."""
        found = self.contents(artifact.path, limit, artifact.document, artifact.pointer, hashed=hashed)
        if isinstance(found, Finding):
            return found
        pin = InFile(artifact.document, self._entry_id)
        if found.sha256 != artifact.sha256:
            hint = LINE_ENDINGS.format(file=artifact.path) if self._has_converted_lines(artifact, limit) else None
            return DIGEST_MISMATCH.at(
                pin, artifact.pointer, found=found.sha256, expected=artifact.sha256, hint=hint, file=artifact.path
            )
        if artifact.size is not None and artifact.size != found.size:
            size, expected = f"{found.size} bytes", f"{artifact.size} bytes"
            return SIZE_MISMATCH.at(pin, artifact.pointer, found=size, expected=expected, file=artifact.path)
        return found

    def _has_converted_lines(self, artifact: Artifact, limit: int) -> bool:
        """Whether the file would have the pinned digest with the line endings of Unix."""
        try:
            data = self._reader.folder.read(artifact.path, limit)
        except FileProblem:
            return False
        return b"\r\n" in data and sha256_of(data.replace(b"\r\n", b"\n")) == artifact.sha256

    def contents(
        self, path: str, limit: int, document: str, pointer: str | None, *, hashed: bool = False
    ) -> Contents | Finding:
        """A file of at most `limit` bytes, as far as there is room; a finding is at the pointer in the document."""
        room = min(limit, self._room)
        try:
            contents = self._reader.folder.contents(path, room, hashed=hashed)
        except FileProblem as problem:
            if problem.code == "file-too-large" and room < limit:
                expected = f"at most {MAX_FILES_HELD * self._max_bytes} bytes"
                return PINNED_TOO_LARGE.at(InFile(document, self._entry_id), pointer, expected=expected, file=path)
            return problem.at(document, self._entry_id, pointer)
        self._room -= contents.size
        return contents


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ReadEntry:
    """What was read of an entry. row: the entry in the registry itself, as a place for findings on its fields.

    manifest: the parsed manifest, or a single model's sidecar (the file `sidecar`); None where there is none.
    documents: parsed JSON by file, for the positions of findings. findings: what was wrong on the way.
    """

    entry: Entry
    row: InFile
    files: PinnedFiles
    manifest: Mapping[str, Json] | None
    sidecar: str | None
    documents: dict[str, Document]
    findings: tuple[Finding, ...]

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """The pins that were read, by the names the documents use."""
        return self.files.artifacts

    @property
    def document_file(self) -> str:
        """The file that `finding` points into: the manifest, the sidecar, else the registry."""
        return self.entry.manifest or self.sidecar or str(self.row.file)

    def finding(self, code: str, message: str, pointer: str = "", **fields: Unpack[FindingFields]) -> Finding:
        file, base = fields.get("file", self.document_file), self.row.base or ""
        if file == self.row.file and not pointer.startswith(base):
            pointer = base + pointer  # a plugin speaks of its entry, not of the whole registry
        placed: FindingFields = {"entry": self.entry.id, **fields, "file": file}
        return Finding(code, message, pointer=pointer, **placed)


class BrokenEntry(ReadEntry):
    """An entry of which a document or a digest does not hold: an error is among its findings. No hook takes it."""

    __slots__ = ()


class VerifiedEntry(ReadEntry):
    """An entry whose documents hold and whose pinned files have their digests; implements `hookspec.EntryView`.

    A manifest is held to the schema of its kind. Of a kind that no plugin provides there is none: asking the kind's
    owner is an error. findings: warnings.
    """

    __slots__ = ()

    @property
    def paths(self) -> Sequence[str]:
        return tuple(self.files.artifacts)

    def read(self, path: str) -> bytes:
        return self.files.read(path)

    def onnx(self, path: str) -> OnnxSummary:
        return self.files.onnx(path)

    def run(self, path: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        return self.files.run(path, inputs)

    def pinned_file(self, path: str, sha256: str, *field: str | int) -> bytes | Finding:
        """A file beside the artifacts that a field of the entry pins (a signature)."""
        artifact = Artifact(path, sha256, None, str(self.row.file), (self.row.base or "") + pointer(*field))
        found = self.files.compare(artifact, JSON_MAX_BYTES)
        return found if isinstance(found, Finding) else found.data

    def pinned_document(self, path: str, sha256: str, *field: str | int) -> Document | Finding:
        """The same, of a JSON document (its verdict)."""
        data = self.pinned_file(path, sha256, *field)
        if isinstance(data, Finding):
            return data
        try:
            self.documents[path] = parse(data)
        except JsonProblem as problem:
            return problem.at(path, self.entry.id)
        return self.documents[path]


def verify_entry(
    reader: Reader, entry: Entry, row: InFile, max_bytes: int = ONNX_MAX_BYTES
) -> VerifiedEntry | BrokenEntry:
    """Read an entry's documents and compare every digest. max_bytes: of one file.

    row: the entry in its registry; of a manifest that no entry pins, that manifest.
    """
    return _Verification(reader, entry, row, max_bytes).result()


class _Verification:
    """An entry while it is read: what was found so far."""

    def __init__(self, reader: Reader, entry: Entry, row: InFile, max_bytes: int) -> None:
        self._reader = reader
        self._entry = entry
        self._row = row
        self._files = PinnedFiles(reader, entry.id, max_bytes)
        self._manifest: Mapping[str, Json] | None = None
        self._sidecar: str | None = None
        self._documents: dict[str, Document] = {}
        self._findings: list[Finding] = []
        self._read: set[str] = set()  # names of files that were read as documents

    def result(self) -> VerifiedEntry | BrokenEntry:
        if self._entry.manifest is not None:
            self._read_manifest(self._entry.manifest)
        else:
            self._pin_single_model()
        for name in self._files.artifacts:
            if name not in self._read and (finding := self._files.check(name)) is not None:
                self._findings.append(finding)
        made = VerifiedEntry if self._holds() else BrokenEntry
        return made(
            self._entry,
            self._row,
            self._files,
            self._manifest,
            self._sidecar,
            self._documents,
            tuple(self._findings),
        )

    def _holds(self) -> bool:
        return not errors_of(self._findings)

    def _read_manifest(self, path: str) -> None:
        name, place = posixpath.basename(path), InFile(path, self._entry.id)
        self._files.artifacts[name] = self._artifact(path, self._entry.sha256, "sha256")
        document = self._document(path, self._pinned(name))
        if document is None:
            return
        if not isinstance(document.value, dict):
            self._findings.append(TYPE.at(place, "", found="not an object", expected="object"))
            return
        self._check_schema(document, path)
        self._manifest = read_only(document.value)
        if self._holds():
            self._pin_manifest(path, document.value)

    def _check_schema(self, document: Document, path: str) -> None:
        kind = self._reader.kinds.get(self._entry.kind)
        if kind is None or kind.schema is None:
            return
        try:
            self._findings += schema_findings(document, kind.schema, path, self._entry.id)
        except PluginError as error:
            self._findings.append(PLUGIN_FAILED.at(self._row, "/id", error=f"kind {kind.name!r}: {error}"))

    def _pin_manifest(self, path: str, manifest: Mapping[str, Json]) -> None:
        place, artifacts = InFile(path, self._entry.id), self._files.artifacts
        for key, pin, base in pins_of(manifest):
            name, digest = pin[key], pin.get("sha256")
            if not isinstance(digest, str) or not SHA256_PATTERN.match(digest):
                self._findings.append(PIN_MISSING.at(place, base + pointer(key), file=name))
                continue
            artifact = Artifact(
                posixpath.join(posixpath.dirname(path), name), digest, None, path, base + pointer("sha256")
            )
            known = artifacts.setdefault(name, artifact)
            if known.sha256 != digest:
                self._findings.append(
                    PIN_CONFLICT.at(place, artifact.pointer, found=digest, expected=known.sha256, file=name)
                )

    def _pin_single_model(self) -> None:
        document, onnx = self._entry.document, self._entry.onnx or ""
        self._files.artifacts[onnx] = self._artifact(onnx, self._entry.sha256, "sha256")
        if "int8_sha256" in document:
            self._pin(self._artifact(f"{stem(onnx)}.int8.onnx", document["int8_sha256"], "int8_sha256"))
        for index, pin in enumerate(document.get("external_data", ())):
            field = ("external_data", index, "sha256")
            self._pin(self._artifact(pin["path"], pin["sha256"], *field, size=pin["bytes"]))
        if (evidence := document.get("evidence")) is not None:
            self._pin(self._artifact(evidence["path"], evidence["sha256"], "evidence", "sha256"))
        self._read_sidecar(f"{stem(onnx)}.json")

    def _read_sidecar(self, path: str) -> None:
        if "sidecar_sha256" in self._entry.document:
            self._pin(self._artifact(path, self._entry.document["sidecar_sha256"], "sidecar_sha256"))
            found = self._pinned(path)
        else:
            found = self._files.contents(path, JSON_MAX_BYTES, path, None)
            if isinstance(found, Finding) and found.code in ("file-missing", "file-escapes"):
                return  # the kind says whether it has to be there; the model's own pin, where it is
        document = self._document(path, found)
        if document is not None and isinstance(document.value, dict):
            self._manifest, self._sidecar = read_only(document.value), path
        elif document is not None:
            place = InFile(path, self._entry.id)
            self._findings.append(TYPE.at(place, "", found="not an object", expected="object"))

    def _pin(self, artifact: Artifact) -> None:
        """A second pin of one file takes nothing over from the first: it is a finding."""
        known = self._files.artifacts.setdefault(artifact.path, artifact)
        if known is not artifact:
            self._findings.append(
                PIN_CONFLICT.at(
                    InFile(artifact.document, self._entry.id),
                    artifact.pointer,
                    found=artifact.sha256,
                    expected=known.sha256,
                    hint="keep the pin that is right",
                    file=artifact.path,
                )
            )

    def _artifact(self, path: str, digest: str, *field: str | int, size: int | None = None) -> Artifact:
        return Artifact(path, digest, size, str(self._row.file), (self._row.base or "") + pointer(*field))

    def _pinned(self, name: str) -> Contents | Finding:
        self._read.add(name)
        return self._files.document(name)

    def _document(self, path: str, found: Contents | Finding) -> Document | None:
        """The contents of a document, parsed; None where there are none."""
        if isinstance(found, Finding):
            self._findings.append(found)
            return None
        try:
            self._documents[path] = parse(found.data)
        except JsonProblem as problem:
            self._findings.append(problem.at(path, self._entry.id))
            return None
        return self._documents[path]
