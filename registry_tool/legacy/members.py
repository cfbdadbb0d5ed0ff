"""members.py: the members that a manifest of version 1 names, held against it, their sidecars and each other.

The same for a manifest that an entry pins and for one that none does. Knows no kind by name.
"""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import NormalDist

from registry_tool.documents.entries import ONNX_MAX_BYTES, ReadEntry, VerifiedEntry, sha256_of, stem
from registry_tool.documents.schema import show
from registry_tool.findings import Finding, FindingRule, Severity
from registry_tool.hookspec import Level
from registry_tool.onnx_summary import OnnxError, OnnxSummary
from registry_tool.plugins.inspection import Inspection
from registry_tool.plugins.sidecars import ENCODER_COLUMN_PREFIX, FEATURES_PORT
from registry_tool.storage.files import Folder
from registry_tool.storage.paths import FileProblem, check_path
from registry_tool.strictjson import JSON_MAX_BYTES, JsonProblem, parse, pointer
from registry_tool.values import EMPTY, Entry, Json

LEFT_OPEN = ("loose-sidecar-disagrees", "loose-codec-width")  # by a migration, where sidecars do not agree
SHARED_FIELDS = (  # what a manifest says once for all its members: its field, and the sidecars' field
    ("feature_order", "feature_order"),
    ("feature_mean", "feature_mean"),
    ("feature_std", "feature_std"),
    ("codec_vocab", "encoder_vocab"),
    ("codec_vocab_version", "encoder_vocab_version"),
)
COVERAGE_ROUNDING = 1e-3  # 1.96 in the place of 1.959964
DISAGREES_HINT = "correct the one that is wrong, or train the ensemble into a registry of version 2"

MEMBER_DISAGREES = FindingRule(
    "loose-member-disagrees",
    "manifest and member disagree",
    why="One of them describes another file.",
    message="the {field} differs from that in {document}",
    hint=DISAGREES_HINT,
    example="another sha256, seed or ensemble_id",
)
MEMBER_TWICE = FindingRule(
    "loose-member-twice",
    "members with the same weights",
    why="An ensemble of copies has no spread: sigma means nothing.",
    message="members {member} and {other} have the same weights",
    expected="members that differ",
    hint="train the ensemble again with distinct seeds",
    example="seed 1 a copy of seed 0 under another name",
)
MANIFEST_DISAGREES = FindingRule(
    "loose-sidecar-disagrees",
    "manifest and sidecars disagree",
    why="Members would be fed what they were not trained on.",
    message="differs from {field} in the sidecars of {members}",
    hint=DISAGREES_HINT,
    example="feature_mean of an older run",
)
CODEC_WIDTH = FindingRule(
    "loose-codec-width",
    "vocabulary that does not fit the codec input",
    why="The documented query fails in the runtime.",
    message="the vocabulary does not fit the codec input of {members}",
    hint=DISAGREES_HINT,
    example="6 encoders, 14 columns",
)
SMOKE_MISMATCH = FindingRule(
    "loose-smoke-mismatch",
    "manifest and entries disagree on smoke",
    why="A reader of the manifest and a reader of the registry decide differently what ships.",
    message="differs from smoke in the entries of {members}",
    hint="correct the manifest: the registry decides",
    example="smoke: true in the manifest, false in the entries",
)
MISSTATED_Z = FindingRule(
    "loose-confidence",
    "gaussian_z of another coverage than nominal_coverage",
    why="A reader that believes z gives intervals of another coverage than the manifest says.",
    message="gaussian_z is not the z of nominal_coverage",
    hint=DISAGREES_HINT,
    example="a nominal_coverage of 0.9 with the z of 0.95",
    since="0.2.0",
    severity=Severity.WARNING,
)
PORTS = FindingRule(
    "loose-member-ports",
    "member with other inputs or outputs",
    why="A runtime feeds all members of an ensemble the same rows, and averages what they give.",
    message="the inputs and outputs of {member} are not those of {document}",
    hint=DISAGREES_HINT,
    example="a member that takes pictures among members that take features",
)
FEATURE_WIDTH = FindingRule(
    "loose-feature-width",
    "features that do not fit the members' input",
    why="The documented query fails in the runtime.",
    message="the features do not fit the input of {members}",
    hint=DISAGREES_HINT,
    example="6 names, 8 columns",
)
OPSET_DISAGREES = FindingRule(
    "onnx-opset-disagrees",
    "opset or IR version mismatch",
    why="A runtime that relies on the document refuses the model, or is surprised.",
    message="the {word} differs from that in {document}",
    hint="correct the number, or restore the file",
    example="16 in the registry, 17 in the model",
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member that a manifest names, with its registry entry, its sidecar, and what its ONNX file says.

    pin: the object that names it, at `place` of the manifest. onnx: its path from the registry's folder. row: its entry
    of version 1; None where it has none. graph: None where the file cannot be read, or no file is.
    """

    id: str
    pin: Mapping[str, Json]
    place: str
    onnx: str
    row: Entry | None
    sidecar: Mapping[str, Json]
    graph: OnnxSummary | None

    @property
    def codec_width(self) -> int | None:
        """Columns of the one ONNX input beside `features`; None where there is none or it is not known."""
        return self._width(features=False)

    @property
    def feature_width(self) -> int | None:
        """Those of `features`."""
        return self._width(features=True)

    def _width(self, *, features: bool) -> int | None:
        inputs = self.graph.inputs if self.graph is not None else ()
        shapes = [port.shape for port in inputs if (port.name == FEATURES_PORT) is features]
        last = shapes[0][-1] if len(shapes) == 1 and shapes[0] else None
        return last if isinstance(last, int) else None


def check_pinned_members(view: VerifiedEntry, inspection: Inspection) -> list[Finding]:
    """The findings on the members of a version-1 manifest that an entry pins.

    A manifest that `registry migrate` made has what the sidecars agree on; what is left open where they do not agree is
    a warning.
    """
    manifest = view.manifest or EMPTY
    if "schema_version" in manifest or not isinstance(manifest.get("members"), list | tuple):
        return []
    pins = [(pin, f"/members/{index}") for index, pin in enumerate(manifest["members"]) if isinstance(pin, Mapping)]
    members = read_members(view, [(pin, place) for pin, place in pins if "onnx" in pin], inspection)
    findings = check_members(view, members, inspection.folder)
    if "migration" not in manifest:
        return findings
    left = {
        pointer(key)
        for key, sidecar_key in SHARED_FIELDS
        if not _agree([member.sidecar.get(sidecar_key) for member in members])
    }
    hint = "train the ensemble again: nothing here shows which is right"
    return [
        replace(finding, severity=Severity.WARNING, hint=hint)
        if finding.code in LEFT_OPEN and finding.pointer in left
        else finding
        for finding in findings
    ]


def _agree(values: Sequence[Json]) -> bool:
    return None not in values and all(value == values[0] for value in values)


def read_members(
    read: ReadEntry, pins: Iterable[tuple[Mapping[str, Json], str]], inspection: Inspection
) -> list[Member]:
    """The members at these pins, of those that have a digest: one without has its finding."""
    by_file = {row.onnx: row for row in inspection.registry.entries if row.onnx}
    members = []
    for pin, place in pins:
        if pin["onnx"] in read.artifacts:
            name, onnx = str(pin.get("id", pin["onnx"])), read.artifacts[pin["onnx"]].path
            graph = _graph(read, pin["onnx"]) if inspection.level is Level.FULL else None
            row = inspection.registry.entry(name) or by_file.get(onnx)
            sidecar = _sidecar(read, pin, onnx, inspection.folder)
            members.append(Member(name, pin, place, onnx, row, sidecar, graph))
    return members


def check_members(read: ReadEntry, members: Sequence[Member], folder: Folder) -> list[Finding]:
    """What a manifest says of its members, compared with their entries, ONNX files and sidecars, and among them."""
    findings: list[Finding] = []
    weights: dict[str, str] = {}  # of the members so far: the digest of their numbers -> id
    for member in members:
        findings += _check_member(member, read)
        if member.graph is not None:
            values = _values(folder, member.onnx, member.graph)
            if values in weights:
                place, other = f"{member.place}/onnx", weights[values]
                findings.append(MEMBER_TWICE.at(read, place, found=member.onnx, member=member.id, other=other))
            weights[values] = member.id
    return [*findings, *_check_ports(read, members), *_check_shared(read, members), *_check_widths(read, members)]


def _check_member(member: Member, read: ReadEntry) -> Iterator[Finding]:
    """One member, compared with its entry, its ONNX file and its sidecar. Its entry compares the latter two."""
    manifest, pin, row, sidecar = read.manifest or EMPTY, member.pin, member.row, member.sidecar
    if row is not None:
        for key, value, other in (("onnx", member.onnx, row.onnx), ("sha256", pin["sha256"], row.sha256)):
            if value != other:
                field, document = f"{member.place}/{key}", f"the entry {row.id}"
                yield MEMBER_DISAGREES.at(read, field, found=value, expected=other, field=key, document=document)
    if member.graph is not None:
        opset = member.graph.opsets.get("")
        recorded = manifest.get("opset", opset)
        if recorded != opset:
            yield OPSET_DISAGREES.at(
                read, "/opset", found=show(recorded), expected=opset, word="opset", document=member.id
            )
    same = {"seed": (pin.get("seed"), "/seed"), "ensemble_id": (manifest.get("id"), None)}
    if row is None:
        same |= {"id": (member.id, "/id"), "sha256": (pin["sha256"], "/sha256")}
    for key, (value, place) in same.items():
        other, document = sidecar.get(key, value), f"the sidecar of {member.id}"
        if not _same(other, value):
            found, expected, field = _text(value), _text(other), "/id" if place is None else member.place + place
            yield MEMBER_DISAGREES.at(read, field, found=found, expected=expected, field=key, document=document)
    if row is None and not _names_file(sidecar.get("onnx", member.onnx), member.onnx):
        field, document = f"{member.place}/onnx", f"the sidecar of {member.id}"
        found, expected = pin["onnx"], _text(sidecar["onnx"])
        yield MEMBER_DISAGREES.at(read, field, found=found, expected=expected, field="onnx", document=document)


def _names_file(found: Json, path: str) -> bool:
    """Whether a sidecar names the model beside it, from wherever: it may have moved together with its model."""
    return isinstance(found, str) and posixpath.basename(found) == posixpath.basename(path)


def _check_ports(read: ReadEntry, members: Sequence[Member]) -> Iterator[Finding]:
    """Members have the ports of most others, and those that their own sidecars name."""
    known = [(member, _ports(member.graph)) for member in members if member.graph is not None]
    if not known:
        return
    usual = Counter(ports for _, ports in known).most_common(1)[0][0]
    like = next(member.id for member, ports in known if ports == usual)
    for member, ports in known:
        place = f"{member.place}/onnx"
        if ports != usual:
            yield PORTS.at(read, place, found=ports, expected=usual, member=member.id, document=like)
        for key, side in (("input_names", "inputs"), ("output_names", "outputs")):
            names, listed = [port.name for port in getattr(member.graph, side)], member.sidecar.get(key)
            if member.row is None and listed is not None and listed != names:
                found, expected = ", ".join(names), _text(listed)
                yield PORTS.at(read, place, found=found, expected=expected, member=member.id, document="its sidecar")


def _ports(graph: OnnxSummary) -> str:
    """`features float32 [?, 6] -> score float32 [?, 1]`."""
    return f"{', '.join(map(str, graph.inputs))} -> {', '.join(map(str, graph.outputs))}"


def _check_shared(read: ReadEntry, members: Sequence[Member]) -> Iterator[Finding]:
    """What the manifest says once for all its members: one finding a field, naming who says otherwise."""
    manifest = read.manifest or EMPTY
    smoke = manifest.get("smoke")
    if names := [m.id for m in members if smoke is not None and m.row is not None and m.row.smoke is not smoke]:
        yield SMOKE_MISMATCH.at(read, "/smoke", found=show(smoke), expected=show(not smoke), members=_names(names))
    if (z := misstated_z(manifest)) is not None:
        found = show(manifest["confidence"]["gaussian_z"])
        yield MISSTATED_Z.at(read, "/confidence/gaussian_z", found=found, expected=f"{z:.6f}")
    for key, sidecar_key in SHARED_FIELDS:
        value = manifest.get(key)
        if differing := [m for m in members if not _same(m.sidecar.get(sidecar_key, value), value)]:
            found, expected, ids = (
                _text(value),
                _text(differing[0].sidecar[sidecar_key]),
                _names([m.id for m in differing]),
            )
            yield MANIFEST_DISAGREES.at(
                read, pointer(key), found=found, expected=expected, field=sidecar_key, members=ids
            )


def misstated_z(manifest: Mapping[str, Json]) -> float | None:
    """The z of the manifest's nominal coverage, where it says another; None where it says none, or this one."""
    confidence = manifest.get("confidence")
    given = (
        [confidence.get(name) for name in ("nominal_coverage", "gaussian_z")] if isinstance(confidence, Mapping) else []
    )
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < 2 or not 0 < numbers[0] < 1:
        return None
    coverage, z = numbers
    agrees = abs(math.erf(z / math.sqrt(2.0)) - coverage) <= COVERAGE_ROUNDING
    return None if agrees else NormalDist().inv_cdf((1 + coverage) / 2)


def _check_widths(read: ReadEntry, members: Sequence[Member]) -> Iterator[Finding]:
    """Features and vocabulary are as wide as what the members take."""
    manifest = read.manifest or EMPTY
    order = manifest.get("feature_order")
    wide: dict[int, list[str]] = {}
    for member in members:
        width = member.feature_width
        if isinstance(order, list | tuple) and width not in (None, len(order)):
            wide.setdefault(width, []).append(member.id)
    for width, ids in wide.items():
        found, expected = f"{len(order or ())} names", f"{width} columns"
        yield FEATURE_WIDTH.at(read, "/feature_order", found=found, expected=expected, members=_names(ids))
    vocabulary, block = manifest.get("codec_vocab"), manifest.get("codec_block")
    slots = len(vocabulary) if isinstance(vocabulary, list | tuple) else 0
    needs: dict[int, list[tuple[int, str]]] = {}  # width -> those that have it
    for member in members:
        layout = member.sidecar.get("codec_block_layout")
        columns = [str(column) for column in layout] if isinstance(layout, list) else []
        extra = (
            len(block) - slots
            if isinstance(block, list | tuple)
            else sum(not c.startswith(ENCODER_COLUMN_PREFIX) for c in columns)
        )
        width = member.codec_width or len(columns)
        if slots and width and slots + extra != width:
            needs.setdefault(width, []).append((extra, member.id))
    for width, others in needs.items():
        extra, members_named = max(others)[0], _names([name for _, name in others])
        found = f"{slots} encoders" + (f" and {extra} more columns" if extra else "")
        yield CODEC_WIDTH.at(read, "/codec_vocab", found=found, expected=f"{width} columns", members=members_named)


def _sidecar(read: ReadEntry, pin: Mapping[str, Json], onnx: str, folder: Folder) -> Mapping[str, Json]:
    """What the sidecar says that the manifest pins, else the one beside the model."""
    pinned = pin.get("sidecar")
    path = pinned.get("path") if isinstance(pinned, Mapping) else None
    try:
        data = (
            read.files.read(str(path)) if path in read.artifacts else folder.read(f"{stem(onnx)}.json", JSON_MAX_BYTES)
        )
        value = parse(data).value
    except (FileProblem, JsonProblem):
        return EMPTY  # the member's own entry reports it
    return value if isinstance(value, dict) else EMPTY


def _graph(read: ReadEntry, name: str) -> OnnxSummary | None:
    try:
        return read.files.onnx(name)
    except (FileProblem, OnnxError):
        return None  # the member's own entry reports it


def _values(folder: Folder, onnx: str, graph: OnnxSummary) -> str:
    """One digest of all numbers that a member holds, whatever they are called, in its file and in others."""
    parts = [graph.values_sha256]
    for location in {tensor.location for tensor in graph.external}:
        with suppress(FileProblem):  # the member's own entry reports it
            path = posixpath.join(posixpath.dirname(onnx), check_path(location))
            parts.append(sha256_of(folder.read(path, ONNX_MAX_BYTES)))
    return sha256_of("".join(sorted(parts)).encode())


def _same(one: Json, other: Json) -> bool:
    """true is no 1 here."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _text(value: Json) -> str:
    return show(value).strip('"')


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 2 else f"{ids[0]} and {len(ids) - 1} others"
