"""bom.py: a bill of materials of an entry: CycloneDX 1.6, with a model card. Claims what the documents say, no more.

cyclonedx-python-lib writes components, digests and licences; it has no classes for model cards and data, whose parts
are put into its JSON here. Source: CycloneDX v1.6, JSON schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from registry_tool.documents.manifest import Manifest
from registry_tool.errors import InputError
from registry_tool.report.limits import limits
from registry_tool.report.machine import render
from registry_tool.report.text import part, plain
from registry_tool.values import Json
from registry_tool.version import __version__
from registry_tool.workflows.overview import Overview

MODEL, CORPUS, CARD = "model", "corpus", "model-card"  # references inside the document
LOW, HIGH = "_low", "_high"  # ends of names of metrics: the ends of a metric's confidence interval
SPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # of names that are object identifiers, as RFC 4122 has it


def cyclonedx(overview: Overview) -> str:
    """The document, one line at the end. The same entry gives the same bytes: no time, a serial number of its digest.

    Raises InputError where the extra is missing.
    """
    if find_spec("cyclonedx") is None:
        raise InputError("a bill of materials needs cyclonedx-python-lib: pip install cyclonedx-python-lib")
    entry, manifest = overview.entry, overview.manifest
    document = _components(overview)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(SPACE, f'{entry.id} {entry.sha256}')}"
    document["metadata"].pop("timestamp", None)
    component = document["metadata"]["component"]
    component["modelCard"] = _card(overview)
    component["properties"] = list(_properties(overview))
    if corpus := part(manifest, "corpus"):
        name = str(corpus.get("name", CORPUS))
        contents = {"properties": list(_named("corpus", corpus))}
        data = {"type": "dataset", "name": name, "bom-ref": f"{CORPUS}-data", "contents": contents}
        made = {"type": "data", "name": name, "bom-ref": CORPUS, "data": [data]}
        document.setdefault("components", []).append(made)
        document["dependencies"].append({"ref": CORPUS})
        next(row for row in document["dependencies"] if row["ref"] == MODEL).setdefault("dependsOn", []).append(CORPUS)
    return f"{render(document)}\n"


def _components(overview: Overview) -> dict[str, Json]:
    """What the library writes: the model, the files that it is made of, their digests and licence."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, XsUri
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense, License
    from cyclonedx.model.tool import Tool
    from cyclonedx.output.json import JsonV1Dot6

    entry = overview.entry
    licenses: list[License] = []
    if isinstance(name := entry.document.get("license"), str):
        license = LicenseFactory().make_from_string(name)
        if isinstance(license, DisjunctiveLicense) and isinstance(url := entry.document.get("license_url"), str):
            license.url = XsUri(url)
        licenses.append(license)

    def hashes(digest: str) -> list[HashType]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]

    bom = Bom()
    model = Component(
        name=entry.id,
        version=entry.sha256[:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL,
        description=entry.document.get("description"),
        licenses=licenses,
        hashes=hashes(entry.sha256),
    )
    bom.metadata.component = model
    bom.metadata.tools.tools.add(Tool(name="registry-tool", version=__version__))
    files = [
        Component(name=pin.path, type=ComponentType.FILE, bom_ref=f"file:{pin.path}", hashes=hashes(pin.sha256))
        for pin in overview.artifacts
    ]
    for file in files:
        bom.components.add(file)
    bom.register_dependency(model, files)
    document: dict[str, Json] = json.loads(JsonV1Dot6(bom).output_as_string())
    return document


def _card(overview: Overview) -> dict[str, Json]:
    manifest, judgement = overview.manifest, overview.judgement
    parameters: dict[str, Json] = {}
    if part(manifest, "target", name=str):
        parameters["approach"] = {"type": "supervised"}
    if part(manifest, "corpus"):
        parameters["datasets"] = [{"ref": CORPUS}]
    for name, field in (("inputs", "feature_order"), ("outputs", "outputs")):
        values = manifest.get(field)
        if isinstance(values, list):
            parameters[name] = [{"format": plain(value)} for value in values]
    card: dict[str, Json] = {"bom-ref": CARD, "modelParameters": parameters}
    if judgement is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": list(_metrics(judgement.verdict.metrics))}
    card["considerations"] = {"technicalLimitations": list(limits(overview.entry, manifest, judgement))}
    card["properties"] = list(_named("recipe", part(manifest, "recipe")))
    return card


def _metrics(metrics: Mapping[str, float]) -> Iterator[dict[str, Json]]:
    """A metric with its interval, where it has both ends."""
    for name, value in sorted(metrics.items()):
        base = name.removesuffix(LOW).removesuffix(HIGH)
        if base != name and base in metrics and {f"{base}{LOW}", f"{base}{HIGH}"} <= metrics.keys():
            continue
        row: dict[str, Json] = {"type": name, "value": repr(float(value))}
        low, high = metrics.get(f"{name}{LOW}"), metrics.get(f"{name}{HIGH}")
        if low is not None and high is not None:
            row["confidenceInterval"] = {"lowerBound": repr(float(low)), "upperBound": repr(float(high))}
        yield row


def _properties(overview: Overview) -> Iterator[dict[str, str]]:
    entry, judgement = overview.entry, overview.judgement
    yield _property("kind", entry.kind)
    yield _property("state", "smoke" if entry.smoke else "production")
    yield _property("pinned_file", entry.path)
    if overview.verdict is not None:
        yield _property("verdict", overview.verdict.path)
        yield _property("verdict_sha256", overview.verdict.sha256)
    if judgement is not None:
        yield _property("gate", judgement.verdict.decision)
        if judgement.verdict.evidence_sha256:
            yield _property("evidence_sha256", judgement.verdict.evidence_sha256)
    yield from (_property(f"environment:{name}", v) for name, v in Manifest.of(overview.manifest).environment.items())


def _named(prefix: str, document: Mapping[str, Json]) -> Iterator[dict[str, str]]:
    """A part of the manifest, field by field; nested ones as JSON."""
    for name, value in sorted(document.items()):
        yield _property(f"{prefix}:{name}", plain(value))


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"registry-tool:{name}", "value": value}
