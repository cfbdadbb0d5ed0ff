"""make.py: writes `valid/`, `invalid/` and `expected.json` beside it. Run it after a change here, and commit both.

An invalid folder is named by its finding code, with a variant after two dashes. expected.json says where each is found.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
Json = dict[str, Any]
Files = dict[str, bytes]
EXPECTED: dict[str, Json] = {}
MODEL = "registry.json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def model(op: str = "MatMul", domain: str = "", weight: float = 0.25, external: str = "") -> bytes:
    """features [N, 6] times six weights -> score [N, 1]."""
    tensor = numpy_helper.from_array(np.full((6, 1), weight, np.float32), "w")
    if external:
        onnx.external_data_helper.set_external_data(tensor, external, offset=0, length=24)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", w]) for n, w in (("features", 6), ("score", 1))]
    node = helper.make_node(op, ["features", "w"], ["score"], domain=domain)
    graph = helper.make_graph([node], "tiny", ports[:1], ports[1:], [tensor])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


PLAIN, WEIGHTS = model(), np.full(6, 0.25, np.float32).tobytes()
ENTRY: Json = {"id": "m", "kind": "fr", "onnx": "m.onnx", "sha256": sha256(PLAIN), "smoke": True, "license": "MIT"}
PRODUCTION: Json = {**ENTRY, "smoke": False, "promotion": {"manual": True, "reason": "compared by eye"}}
EVIDENCE = {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.95}]}
MANUAL = {"gate": "manual", "rules": []}
SIDECAR: Json = {
    "id": "m",
    "kind": "fr",
    "onnx": "m.onnx",
    "sha256": sha256(PLAIN),
    "opset": 17,
    "input_names": ["features"],
    "output_names": ["score"],
}
VERDICT: Json = {
    "schema_version": 2,
    "entry": "m",
    "verdict": "PROMOTE",
    "manifest_sha256": ENTRY["sha256"],
    "evidence_sha256": "0" * 64,
    "summary_only": False,
    "policy": EVIDENCE,
    "metrics": {"mean_plcc": 0.97},
    "reasons": [],
    "plugins": {},
}


def registry(*entries: Json, policy: Json = EVIDENCE, **fields: Any) -> Json:
    return {"schema_version": 2, "policies": {"fr": policy}, "models": list(entries), **fields}


def v1(*entries: Json, version: int = 1) -> Json:
    return {"schema_version": version, "models": list(entries)}


def write(folder: str, document: Json | bytes, files: Files) -> None:
    """A sidecar in version 2 is pinned, unless it is the one thing that is wrong."""
    target = HERE / folder
    if isinstance(document, dict) and document.get("schema_version") == 2 and "m.json" in files:
        document = copy.deepcopy(document)
        for row in document["models"] if folder != "invalid/sidecar-unpinned" else ():
            if row.get("onnx") == "m.onnx":
                row.setdefault("sidecar_sha256", sha256(files["m.json"]))
    for name, data in {MODEL: document if isinstance(document, bytes) else to_json(document), **files}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


def valid(name: str, document: Json, files: Files | None = None) -> None:
    write(f"valid/{name}", document, files or {})


class Place(TypedDict, total=False):
    """Where the finding is. line: where no pointer leads to it; like: a text that is in this line and in no other."""

    file: str  # registry.json
    pointer: str | None  # the whole document
    line: int
    like: str


def invalid(
    name: str,
    document: Json | bytes,
    files: Files | None = None,
    *,
    severity: str = "error",
    also: tuple[str, ...] = (),
    **place: Unpack[Place],
) -> None:
    """also: codes of further findings that follow from the one defect."""
    file, pointer, line, like = place.get("file", MODEL), place.get("pointer", ""), place.get("line"), place.get("like")
    write(f"invalid/{name}", document, {"m.onnx": PLAIN} if files is None else files)
    path = HERE / "invalid" / name / file
    text = path.read_bytes() if path.suffix == ".json" else b""
    if text and pointer is not None and line is None and not like and not name.startswith("json-"):
        line = line_of(json.loads(text), pointer)
    if like:
        lines = [i for i, row in enumerate(text.splitlines(), 1) if like.encode() in row]
        assert len(lines) == 1, (name, like, lines)
        [line] = lines
    pointer = None if name.startswith("json-") else pointer
    EXPECTED[name] = {"file": file, "line": line, "pointer": pointer, "severity": severity, "also": list(also)}


def line_of(document: Any, pointer: str) -> int:
    """Where the value at a pointer stands: a mark is put in its place, and looked for."""
    marked, at = copy.deepcopy(document), pointer.split("/")[1:]
    if not at:
        return 1
    place: Any = marked
    for key in at[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(at[-1]) if isinstance(place, list) else at[-1]] = "the mark"
    rows = to_json(marked).decode().splitlines()
    return next(number for number, row in enumerate(rows, 1) if "the mark" in row)


def entry(**fields: Any) -> Json:
    """A registry of the plain entry with these fields; None leaves one out."""
    return registry({name: value for name, value in {**ENTRY, **fields}.items() if value is not None})


def make_valid() -> None:
    plain, production = {"m.onnx": PLAIN}, {"m.onnx": PLAIN, "m.json": to_json(SIDECAR)}
    valid("empty", registry())
    valid("smoke", registry(ENTRY), plain)
    valid("manual", registry(PRODUCTION, policy=MANUAL), production)
    valid("migrated", registry({**PRODUCTION, "promotion": {"imported_from": "0" * 64}}), production)
    valid("demoted", entry(demotion={"reason": "drifts", "manifest_sha256": ENTRY["sha256"]}), plain)
    valid("sidecar-pinned", entry(sidecar_sha256=sha256(to_json(SIDECAR))), production)
    valid("int8", entry(quant_mode="dynamic", int8_sha256=sha256(PLAIN)), {**plain, "m.int8.onnx": PLAIN})
    external = model(external="m.data")
    pin = {"path": "m.data", "sha256": sha256(WEIGHTS), "bytes": len(WEIGHTS)}
    files = {"m.onnx": external, "m.data": WEIGHTS}
    valid("external-data", entry(sha256=sha256(external), external_data=[pin]), files)
    valid("version-1-external-data", v1({**ENTRY, "sha256": sha256(external), "external_data": [pin]}), files)
    unknown = {"of_another_version": {"deep": [1, None]}}
    policy = {"rules": [], "gate": "manual", **unknown}
    valid("unknown-fields", registry({**ENTRY, **unknown}, policy=policy, **unknown), plain)
    valid("version-1-smoke", v1(ENTRY), plain)
    valid("version-1-production", v1({k: v for k, v in ENTRY.items() if k != "smoke"}), production)
    valid("version-0", v1(ENTRY, version=0), plain)


def make_documents() -> None:
    text = to_json(registry(ENTRY)).decode()
    invalid("json-syntax", text.replace('"kind": "fr",', '"kind" "fr",').encode(), like='"kind" "fr"')
    invalid("json-syntax--empty", b"", line=1)
    invalid("json-syntax--trailing", text.encode() + b"{}\n", like="{}")
    twice = text.replace('"smoke": true,', '"smoke": true,\n      "sm\\u006fke": false,')
    again = text.replace('"schema_version": 2,', '"schema_version": 2,\n  "models": [],')
    invalid("json-duplicate-key", again.encode(), line=again.splitlines().index('  "models": [') + 1)
    invalid("json-duplicate-key--escaped", twice.encode(), like="u006f")
    rule = text.replace('"op": ">=",', '"op": ">=",\n          "op": "<=",')
    invalid("json-duplicate-key--nested", rule.encode(), like='"op": "<="')
    sidecar = to_json(SIDECAR).replace(b'"id": "m",', b'"id": "m",\n  "id": "n",')
    invalid(
        "json-duplicate-key--sidecar", registry(ENTRY), {"m.onnx": PLAIN, "m.json": sidecar}, file="m.json", like='"n"'
    )
    for name, word in (("nan", "NaN"), ("infinity", "-Infinity"), ("overflow", "1e999")):
        invalid(f"json-not-finite--{name}", text.replace("0.95", word).encode(), like=word)
    invalid("json-huge-number", text.replace("0.95", "9" * 40).encode(), like="9" * 40)
    invalid("json-bom", b"\xef\xbb\xbf" + text.encode(), line=1)
    invalid("json-not-utf8", text.replace("MIT", "M\xecT").encode("latin-1"), like='"license"')
    invalid("json-control-character", text.replace("MIT", "M\u202eIT").encode(), like='"license"')
    invalid("json-control-character--escaped", text.replace("MIT", "M\\u0000IT").encode(), like='"license"')
    invalid("json-too-deep", text.replace('"MIT"', "[" * 40 + "]" * 40).encode(), like='"license"')
    invalid("registry-version--array", to_json([registry()]), pointer="/schema_version", line=1)
    invalid("schema-type--models", {**registry(), "models": {}}, pointer="/models")
    invalid("schema-type--smoke", entry(smoke="true"), pointer="/models/0/smoke")
    invalid(
        "schema-type--bound",
        registry(ENTRY, policy={"rules": [{"metric": "m", "op": ">=", "bound": "1"}]}),
        pointer="/policies/fr/rules/0/bound",
    )
    invalid(
        "schema-value--operator",
        registry(ENTRY, policy={"rules": [{"metric": "m", "op": "~", "bound": 1}]}),
        pointer="/policies/fr/rules/0/op",
    )
    invalid("schema-required--smoke", entry(smoke=None), pointer="/models/0")
    invalid("schema-required--policies", {"schema_version": 2, "models": [ENTRY]})
    invalid("schema-required--int8", entry(quant_mode="static"), pointer="/models/0")
    lookalike = {
        "cyrillic": "m\u0430",
        "full-width": "\uff4d",
        "newline": "m\n",
        "capital": "M",
        "long": "m" * 65,
        "empty": "",
    }
    for name, text_ in lookalike.items():
        invalid(f"schema-value--id-{name}", entry(id=text_), pointer="/models/0/id")
    for name, text_ in (("short", "0" * 63), ("capital", ENTRY["sha256"].upper()), ("newline", ENTRY["sha256"] + "\n")):
        invalid(f"schema-value--sha256-{name}", entry(sha256=text_), pointer="/models/0/sha256")
    for name, text_ in (("absolute", "/m.onnx"), ("backslash", "a\\m.onnx"), ("dot", "./m.onnx"), ("no-onnx", "m.bin")):
        invalid(f"schema-value--path-{name}", entry(onnx=text_), pointer="/models/0/onnx")
    invalid("schema-choice", entry(onnx=None), pointer="/models/0")
    invalid("schema-choice--both", entry(manifest="m/manifest.json"), pointer="/models/0")
    invalid(
        "schema-choice--promotion",
        registry({**PRODUCTION, "promotion": {"manual": False, "reason": ""}}),
        pointer="/models/0/promotion",
    )
    invalid("schema-unknown-field", v1({**ENTRY, "sha265": "0" * 64}), pointer="/models/0/sha265")
    invalid("schema-value--version-1-kind", v1({**ENTRY, "kind": "thumb"}), pointer="/models/0/kind")
    for name, version in (("newer", 3), ("text", "2"), ("boolean", True), ("float", 2.5), ("null", None)):
        invalid(f"registry-version--{name}", registry(ENTRY, schema_version=version), pointer="/schema_version")
    invalid("registry-version--absent", {"policies": {}, "models": []}, pointer="/schema_version", line=1)
    invalid("kind-unknown", entry(kind="thumb"), pointer="/models/0/kind")
    misspelt = registry(ENTRY, policies={"fr": EVIDENCE, "rf": EVIDENCE})
    invalid("policy-kind-unknown", misspelt, pointer="/policies/rf", severity="warning")
    misspelt = registry(ENTRY, policy={"rules": [{"metric": "mean_plc", "op": ">=", "bound": 0.9}]})
    invalid("policy-metric-unknown", misspelt, pointer="/policies/fr/rules/0/metric", severity="warning")
    invalid("id-duplicate", registry(ENTRY, ENTRY), pointer="/models/1/id")


def make_files() -> None:
    other = b"\n" + PLAIN
    at = "/models/0/sha256"
    invalid("digest-mismatch", registry(ENTRY), {"m.onnx": other}, pointer=at)
    invalid("digest-mismatch--empty", registry(ENTRY), {"m.onnx": b""}, pointer=at)
    invalid("digest-mismatch--version-1", v1(ENTRY), {"m.onnx": other}, pointer=at)
    int8 = entry(quant_mode="qat", int8_sha256=sha256(PLAIN))
    invalid("digest-mismatch--int8", int8, {"m.onnx": PLAIN, "m.int8.onnx": other}, pointer="/models/0/int8_sha256")
    invalid("file-missing--int8", int8, pointer="/models/0/int8_sha256")
    sidecar = entry(sidecar_sha256=sha256(to_json(SIDECAR)))
    changed = to_json({**SIDECAR, "opset": 16})
    invalid(
        "digest-mismatch--sidecar", sidecar, {"m.onnx": PLAIN, "m.json": changed}, pointer="/models/0/sidecar_sha256"
    )
    invalid("sidecar-unpinned", entry(), {"m.onnx": PLAIN, "m.json": to_json(SIDECAR)}, pointer="/models/0/sha256")
    twice = [{"path": "m.onnx", "sha256": sha256(PLAIN), "bytes": len(PLAIN)}]
    invalid("pin-conflict", entry(external_data=twice), pointer="/models/0/external_data/0/sha256")
    invalid("file-missing--sidecar", sidecar, pointer="/models/0/sidecar_sha256")
    external = model(external="m.data")
    pin = {"path": "m.data", "sha256": sha256(WEIGHTS), "bytes": len(WEIGHTS)}
    outside = entry(sha256=sha256(external), external_data=[pin])
    at = "/models/0/external_data/0/sha256"
    invalid("digest-mismatch--external-data", outside, {"m.onnx": external, "m.data": bytes(24)}, pointer=at)
    invalid("file-missing--external-data", outside, {"m.onnx": external}, pointer=at)
    wrong = entry(sha256=sha256(external), external_data=[{**pin, "bytes": 23}])
    invalid("size-mismatch", wrong, {"m.onnx": external, "m.data": WEIGHTS}, pointer=at)
    unpinned = {"m.onnx": external, "m.data": WEIGHTS}
    invalid("onnx-external-unpinned", entry(sha256=sha256(external)), unpinned, file="m.onnx", pointer=None)
    escaping = model(external="../m.data")
    invalid("onnx-external-escapes", entry(sha256=sha256(escaping)), {"m.onnx": escaping}, file="m.onnx", pointer=None)
    invalid("file-missing", registry(ENTRY), {}, pointer="/models/0/sha256")
    for name, path in (("", "a/../../m.onnx"), ("--inside", "a/../m.onnx"), ("--git", "a/.git/m.onnx")):
        also = () if "inside" in name else ("file-unregistered",)  # m.onnx itself, which nobody names
        invalid(f"file-escapes{name}", entry(onnx=path), pointer="/models/0/sha256", also=also)
    invalid("file-escapes--external-data", entry(external_data=[{**pin, "path": "a/../../m.data"}]), pointer=at)
    invalid("file-not-regular", registry(ENTRY), {"m.onnx/keep": b""}, pointer="/models/0/sha256")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132735\n"
    invalid("file-lfs-pointer", registry(ENTRY), {"m.onnx": pointer}, pointer="/models/0/sha256")
    invalid("file-lfs-pointer--pinned", entry(sha256=sha256(pointer)), {"m.onnx": pointer}, pointer="/models/0/sha256")
    for name in ("n.onnx", "deep/n.onnx", "n.onnx.data"):
        folder = f"file-unregistered--{name.replace('/', '-').replace('.', '-')}"
        files = {"m.onnx": PLAIN, name: PLAIN}
        invalid(folder, registry(ENTRY), files, file=name, pointer=None, severity="warning")
    words = {"m.onnx": PLAIN, "words.txt": b"x"}
    invalid("file-named-unpinned", entry(notes="words.txt"), words, pointer="/models/0/notes", severity="warning")
    run = {"m.onnx": PLAIN, "old/0123456789ab/manifest.json": b"{}"}
    invalid("folder-unused", registry(ENTRY), run, file="old/0123456789ab", pointer=None, severity="note")
    invalid(
        "bundle-missing",
        v1({**ENTRY, "sigstore_bundle": "m.sigstore.json"}),
        pointer="/models/0/sigstore_bundle",
        severity="warning",
    )
    unlicensed = v1({name: value for name, value in ENTRY.items() if name != "license"})
    invalid("license-missing", unlicensed, pointer="/models/0", severity="warning")


def make_models() -> None:
    for name, data in (
        ("onnx-unreadable", b"not a model"),
        ("onnx-unreadable--cut", PLAIN[:-7]),
        ("onnx-operator", model("BitShift")),
        ("onnx-domain", model("MatMul", "com.example")),
        ("onnx-not-finite", model(weight=float("nan"))),
        ("onnx-not-finite--infinity", model(weight=float("-inf"))),
        ("onnx-protobuf", PLAIN + b"\xc2\x3e\x04more"),
        ("onnx-invalid", model("Sum").replace(b"score", b"scorf", 1)),
    ):
        invalid(name, entry(sha256=sha256(data)), {"m.onnx": data}, file="m.onnx", pointer=None)
    production = registry(PRODUCTION, policy=MANUAL)
    invalid("sidecar-missing", production, pointer="/models/0")
    for name, pointer, fields in (
        ("sidecar-disagrees", "/sha256", {"sha256": "0" * 64}),
        ("entry-disagrees--id", "/id", {"id": "n"}),
        ("entry-disagrees--kind", "/kind", {"kind": "nr"}),
        ("entry-disagrees--smoke", "/smoke", {"smoke": True}),
        ("sidecar-inputs", "/input_names", {"input_names": ["features", "codec_onehot"]}),
        ("sidecar-width", "/feature_order", {"feature_order": ["adm2", "motion2"]}),
    ):
        files = {"m.onnx": PLAIN, "m.json": to_json({**SIDECAR, **fields})}
        invalid(name, production, files, file="m.json", pointer=pointer)
    invalid("onnx-opset-disagrees", entry(opset=18), file="m.onnx", pointer=None)


def make_signatures() -> None:
    def signed(data: bytes) -> tuple[Json, Files]:
        """A registry whose entry pins these bytes as a signature, and its files."""
        document = entry(signatures=[{"bundle": "m/signatures/a.sig", "sha256": sha256(data)}])
        return document, {"m.onnx": PLAIN, "m/signatures/a.sig": data}

    document, files = signed(b"{}")
    invalid("signature-invalid", document, files, pointer="/models/0/signatures/0")
    at = "/models/0/signatures/0/sha256"
    secret = b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"
    invalid("file-private-key", entry(), {"m.onnx": PLAIN, "ci.key": secret}, file="ci.key", pointer=None)
    invalid("digest-mismatch--signature", document, {**files, "m/signatures/a.sig": b"{ }"}, pointer=at)
    invalid("file-missing--signature", document, {"m.onnx": PLAIN}, pointer=at)
    for name, field, data in (
        ("signer-invalid--private", "public_key", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"),
        ("digest-mismatch--signer", "certificate", b"hello"),
    ):
        digest = sha256(data) if name.startswith("signer") else "0" * 64
        policy = {**MANUAL, "signers": [{field: "keys/ci.txt", "sha256": digest}]}
        place = f"/policies/fr/signers/0/{field if name.startswith('signer') else 'sha256'}"
        invalid(name, registry(ENTRY, policy=policy), {"m.onnx": PLAIN, "keys/ci.txt": data}, pointer=place)


def make_promotions() -> None:
    files = {"m.onnx": PLAIN, "m.json": to_json(SIDECAR)}
    unsaid = {name: value for name, value in PRODUCTION.items() if name != "promotion"}
    invalid("promotion-missing", registry(unsaid), files, pointer="/models/0/smoke")
    invalid("promotion-missing--manual-policy", registry(unsaid, policy=MANUAL), files, pointer="/models/0/smoke")
    invalid(
        "promotion-on-smoke",
        registry({**PRODUCTION, "smoke": True}, policy=MANUAL),
        files,
        pointer="/models/0/promotion",
    )
    unsigned = registry(PRODUCTION, policy={**MANUAL, "signers": []})
    invalid("promotion-unsigned", unsigned, files, pointer="/models/0/smoke")
    unsigned = registry(PRODUCTION, policy={**MANUAL, "signatures": 1})
    invalid("promotion-unsigned--no-signers", unsigned, files, pointer="/models/0/smoke")
    invalid("promotion-kind", registry(PRODUCTION), files, pointer="/models/0/promotion")
    invalid("promotion-kind--no-policy", {**registry(PRODUCTION), "policies": {}}, files, pointer="/models/0/promotion")
    pinned: dict[str, Json] = {
        "evidence-unusable": {},  # the kind fr has no gate, so nothing can be recomputed
        "verdict-holds": {"verdict": "HOLD"},
        "verdict-holds--summary-only": {"summary_only": True},
        "verdict-holds--reasons": {"reasons": ["mean_plcc >= 0.95: found 0.5"]},
        "verdict-other--entry": {"entry": "n"},
        "verdict-other--manifest": {"manifest_sha256": "0" * 64},
        "policy-looser": {"policy": {"rules": [{"metric": "mean_plcc", "op": ">=", "bound": 0.96}]}},
        "schema-required--verdict": {"metrics": None},
        "schema-value--verdict": {"verdict": "YES"},
    }
    at = {
        "verdict-holds": "/verdict",
        "verdict-other--entry": "/entry",
        "verdict-other--manifest": "/manifest_sha256",
        "schema-required--verdict": "",
        "schema-value--verdict": "/verdict",
    }
    for name, fields in pinned.items():
        document = {key: value for key, value in {**VERDICT, **fields}.items() if value is not None}
        verdict = to_json({**document, **({"evidence_sha256": None} if "evidence_sha256" not in document else {})})
        where = "m/verdicts/PROMOTE-000000000000.json"
        production = {**PRODUCTION, "promotion": {"verdict": where, "sha256": sha256(verdict)}}
        place: Place = {"file": where, "pointer": at.get(name, "/verdict")}
        if name in ("policy-looser", "evidence-unusable"):
            place = {"file": MODEL, "pointer": "/models/0/promotion"}
        invalid(name, registry(production), {**files, where: verdict}, **place)
    promotion = {"verdict": "m/verdicts/PROMOTE-000000000000.json", "sha256": "0" * 64}
    production = registry({**PRODUCTION, "promotion": promotion})
    at_ = "/models/0/promotion/sha256"
    invalid("file-missing--verdict", production, files, pointer=at_)
    invalid("digest-mismatch--verdict", production, {**files, promotion["verdict"]: to_json(VERDICT)}, pointer=at_)


def main() -> None:
    for name in ("valid", "invalid"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    make_valid()
    make_documents()
    make_files()
    make_models()
    make_signatures()
    make_promotions()
    (HERE / "expected.json").write_bytes(to_json(dict(sorted(EXPECTED.items()))))


if __name__ == "__main__":
    main()
