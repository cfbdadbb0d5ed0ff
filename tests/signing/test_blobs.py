"""Tests of the signature bundle beside an ONNX file: its digest is compared always, its signature on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import AUTHORITY, NOW, Issued, KeyPair, Use, issue, key_pair
from command_line import Program
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from json_fields import VALUES, changed, paths
from places import ROOT
from sandbox import Sandbox, to_json

from registry_tool.signing.blob import read_blob_bundle, verify_blob
from registry_tool.signing.bundle import Trust
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.keys import load_public_key

pytestmark = pytest.mark.slow
BUNDLE = "m.onnx.sigstore.json"
HASHES = {"sha256": "SHA2_256", "sha384": "SHA2_384", "sha512": "SHA2_512"}


@pytest.fixture(params=["version-1-production", "smoke"])
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Sandbox:
    """A registry of one ONNX file, of version 1 and 2, that names a bundle."""
    valid = ROOT / "tests" / "examples" / "valid" / request.param / "registry.json"
    box = Sandbox(valid, "m").copy(tmp_path / "model")
    box.edit_entry(sigstore_bundle=BUNDLE)
    return box


def onnx(box: Sandbox) -> bytes:
    return (box.folder / "m.onnx").read_bytes()


def openssl_signature(pair: KeyPair, data: bytes, hashed: str = "sha256") -> str:
    """As openssl makes it, which is what cosign's are; in Base64."""
    command = ["openssl", "dgst", f"-{hashed}", "-sign", str(pair.private)]
    return base64.b64encode(subprocess.run(command, input=data, capture_output=True, check=True).stdout).decode()


def message(pair: KeyPair, data: bytes, hashed: str = "sha256", hint: str | None = None) -> dict[str, Any]:
    """What `cosign sign-blob --key` writes."""
    der = pair.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = {"algorithm": HASHES[hashed], "digest": base64.b64encode(hashlib.new(hashed, data).digest()).decode()}
    hint = base64.b64encode(hashlib.sha256(der).digest()).decode() if hint is None else hint
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "messageSignature": {"messageDigest": digest, "signature": openssl_signature(pair, data, hashed)},
    }


def keyless(who: Issued, data: bytes, at: int) -> dict[str, Any]:
    """The same with a certificate, and the time that a log names."""
    document = message(who.pair, data)
    der = base64.b64encode(who.certificate.public_bytes(Encoding.DER)).decode()
    document["verificationMaterial"] = {"certificate": {"rawBytes": der}, "tlogEntries": [{"integratedTime": str(at)}]}
    return document


def flat(pair: KeyPair, data: bytes, certificate: Path | None = None) -> dict[str, Any]:
    """cosign's form before bundles had a standard."""
    body = {"kind": "hashedrekord", "spec": {"data": {"hash": {"algorithm": "sha256", "value": digest(data)}}}}
    log = {"body": base64.b64encode(json.dumps(body).encode()).decode(), "integratedTime": int(NOW.timestamp())}
    cert = base64.b64encode(certificate.read_bytes()).decode() if certificate else ""
    return {"base64Signature": openssl_signature(pair, data), "cert": cert, "rekorBundle": {"Payload": log}}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def found(registry: Program, box: Sandbox, document: Any, *trust: object) -> list[tuple[str, str]]:
    """(code, message) of what validate says of this bundle."""
    (box.folder / BUNDLE).write_bytes(to_json(document))
    ran = registry("validate", box.path, "--level", "quick", "--format", "json", *trust)
    findings = [f for f in json.loads(ran.out)["findings"] if f["code"].startswith("bundle")]
    return [(f["code"], f["message"]) for f in findings]


def test_a_key_verifies_a_bundle(registry: Program, box: Sandbox, tmp_path: Path) -> None:
    """Nothing is found under the signer's key; under none, a note; under another, a note that names it."""
    ci, other = key_pair(tmp_path, "ci"), key_pair(tmp_path, "other")
    document = message(ci, onnx(box))
    assert found(registry, box, document, "--public-key", ci.public) == []
    [(code, said)] = found(registry, box, document)
    assert code == "bundle-unverified"
    assert "no key or root to trust was named; its digest was compared" in said
    [(code, said)] = found(registry, box, document, "--public-key", other.public)
    assert code == "bundle-unverified"
    assert "is not a trusted one" in said


@pytest.mark.parametrize(("algorithm", "hashed"), [("p256", "sha256"), ("p384", "sha256"), ("p521", "sha512")])
def test_the_hash_is_the_one_that_is_named(
    registry: Program, box: Sandbox, tmp_path: Path, algorithm: str, hashed: str
) -> None:
    """Whatever curve signed: the bundle says with which hash, and that digest is compared too."""
    pair = key_pair(tmp_path, "ci", algorithm)
    document = message(pair, onnx(box), hashed)
    assert found(registry, box, document, "--public-key", pair.public) == []
    [(code, said)] = found(registry, box, message(pair, b"other", hashed))
    assert code == "bundle-invalid"
    assert "it signs another file" in said


def test_a_signature_that_does_not_hold_is_an_error(registry: Program, box: Sandbox, tmp_path: Path) -> None:
    """The right digest beside the signature of other bytes, by the key that is trusted."""
    ci = key_pair(tmp_path, "ci")
    document = message(ci, onnx(box))
    document["messageSignature"]["signature"] = openssl_signature(ci, b"other")
    [(code, said)] = found(registry, box, document, "--public-key", ci.public)
    assert code == "bundle-invalid"
    assert "the signature does not hold" in said
    assert [code for code, _ in found(registry, box, document)] == ["bundle-unverified"]


def test_a_certificate_without_a_key_is_checked_as_far_as_it_can_be(
    registry: Program, box: Sandbox, tmp_path: Path
) -> None:
    """Chain and signature under the root, at the time that the log names; the rest is said."""
    root = issue(tmp_path, "root", use=AUTHORITY, days=(-30, 30))
    person = issue(tmp_path, "person", root, days=(-9, -8))
    signed = int(NOW.timestamp()) - 9 * 86400 + 3600
    [(code, said)] = found(registry, box, keyless(person, onnx(box), signed), "--trust", root.path)
    assert code == "bundle-unverified"
    assert "transparency log" in said
    other = issue(tmp_path, "root2", use=AUTHORITY)
    [(code, said)] = found(registry, box, keyless(person, onnx(box), signed), "--trust", other.path)
    assert (code, "does not lead to a trusted root" in said) == ("bundle-unverified", True)
    [(code, said)] = found(registry, box, keyless(person, onnx(box), int(NOW.timestamp())), "--trust", root.path)
    assert (code, "expired" in said) == ("bundle-invalid", True)
    server = issue(tmp_path, "server", root, use=Use(purpose=None))
    [(code, said)] = found(registry, box, keyless(server, onnx(box), int(NOW.timestamp())), "--trust", root.path)
    assert (code, "is not for signing" in said) == ("bundle-invalid", True)


def test_the_older_form_names_its_digest_in_the_log_entry(registry: Program, box: Sandbox, tmp_path: Path) -> None:
    """It is compared where there is one; where there is none, that is said."""
    ci = key_pair(tmp_path, "ci")
    assert found(registry, box, flat(ci, onnx(box)), "--public-key", ci.public) == []
    assert [code for code, _ in found(registry, box, flat(ci, b"other"))] == ["bundle-invalid"]
    without = {key: value for key, value in flat(ci, onnx(box)).items() if key != "rekorBundle"}
    [(code, said)] = found(registry, box, without)
    assert (code, "names no digest to compare" in said) == ("bundle-unverified", True)
    root = issue(tmp_path, "root", use=AUTHORITY)
    person = issue(tmp_path, "person", root)
    [(code, said)] = found(registry, box, flat(person.pair, onnx(box), person.path), "--trust", root.path)
    assert (code, "transparency log" in said) == ("bundle-unverified", True)


MAKERS: dict[str, Callable[[KeyPair, bytes], dict[str, Any]]] = {"message": message, "flat": flat}


@pytest.mark.parametrize("form", MAKERS)
def test_every_field_counts(tmp_path: Path, form: str) -> None:
    """A field that is removed or has another type or value: refused with a reason, or says nothing of the file."""
    ci, data = key_pair(tmp_path, "ci"), b"model"
    trust = Trust(NOW, [load_public_key(ci.public)])
    good = MAKERS[form](ci, data)
    log = ("rekorBundle", "Payload", "integratedTime")
    harmless = {("verificationMaterial", "tlogEntries"), ("cert",), log}

    def is_refused(document: Any) -> bool:
        try:
            bundle = read_blob_bundle(to_json(document))
            bundle.refuse_other(digest(data), lambda: data)
            verify_blob(bundle, data, trust)
        except SignatureError as error:
            return bool(str(error))
        return False

    assert not is_refused(good)
    tried = [(at, value) for at in paths(good) if at not in harmless for value in (*VALUES, "AAAA")]
    accepted = [(at, value) for at, value in tried if not is_refused(changed(good, at, value))]
    nothing = [(("rekorBundle",), value) for value in (..., None)]  # then no digest is named, which is said
    assert accepted == (nothing if form == "flat" else [])
    assert len(tried) > 30
