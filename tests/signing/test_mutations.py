"""Mutated signatures of every form: any byte, any field, any byte of a certificate: refused with a reason, no crash."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import AUTHORITY, NOW, issue, key_pair
from command_line import Program
from hypothesis import given, settings
from hypothesis import strategies as st
from json_fields import VALUES, changed, paths
from places import ROOT
from sandbox import Sandbox, sha256, to_json

from registry_tool.errors import InputError
from registry_tool.signing.bundle import Trust, sign_envelope, sign_statement, verify_container
from registry_tool.signing.certificates import certificates_in
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.statement import FilesStatement

pytestmark = pytest.mark.slow
PAYLOAD = FilesStatement("m", {"a": "0" * 64}).to_bytes()


def by_key(folder: Path) -> tuple[dict[str, Any], Trust]:
    pair = key_pair(folder, "ci")
    return json.loads(sign_statement(PAYLOAD, pair.key)), Trust(NOW, [pair.key.public_key()])


def alone(folder: Path) -> tuple[dict[str, Any], Trust]:
    """An envelope without a bundle around it."""
    pair = key_pair(folder, "alone")
    return json.loads(sign_envelope(PAYLOAD, pair.key)), Trust(NOW, [pair.key.public_key()])


def by_certificate(folder: Path) -> tuple[dict[str, Any], Trust]:
    root = issue(folder, "root", use=AUTHORITY)
    middle = issue(folder, "middle", root, use=AUTHORITY)
    leaf = issue(folder, "leaf", middle)
    document = json.loads(sign_statement(PAYLOAD, leaf.pair.key, [leaf.certificate, middle.certificate]))
    return document, Trust(NOW, roots=[root.certificate])


def keyless(folder: Path) -> tuple[dict[str, Any], Trust]:
    root = issue(folder, "authority", use=AUTHORITY)
    leaf = issue(folder, "person", root)
    document = json.loads(sign_statement(PAYLOAD, leaf.pair.key, [leaf.certificate]))
    [certificate] = document["verificationMaterial"].pop("x509CertificateChain")["certificates"]
    entry = {"integratedTime": str(int(NOW.timestamp()))}
    document["verificationMaterial"] = {"certificate": certificate, "tlogEntries": [entry]}
    return document, Trust(NOW, roots=[root.certificate])


FORMS: dict[str, Callable[[Path], tuple[dict[str, Any], Trust]]] = {
    "key": by_key,
    "alone": alone,
    "certificate": by_certificate,
    "keyless": keyless,
}
Made = Callable[[str], tuple[dict[str, Any], Trust]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A document of each form, made once."""
    folder = tmp_path_factory.mktemp("forms")
    known = {name: make(folder) for name, make in FORMS.items()}
    return known.__getitem__


def outcome(data: bytes, trust: Trust) -> bytes | None:
    """What is verified; None where it is refused with a reason. Anything else is an error of the test."""
    try:
        return verify_container(data, trust).payload
    except SignatureError:
        return None


@pytest.mark.parametrize("form", FORMS)
def test_every_field_counts(made: Made, form: str) -> None:
    """Removed, or of another type or value: refused, but for what says nothing of the signature."""
    document, trust = made(form)
    assert outcome(to_json(document), trust) == PAYLOAD
    free = [("signatures", 0, "keyid"), ("dsseEnvelope", "signatures", 0, "keyid")]
    if form != "keyless":
        free.append(("verificationMaterial", "tlogEntries"))
    tried = [(at, value) for at in paths(document) for value in VALUES if at not in free]
    accepted = [(at, value) for at, value in tried if outcome(to_json(changed(document, at, value)), trust) is not None]
    assert accepted == []
    assert len(tried) > 30


@settings(max_examples=300)
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_no_changed_byte_is_accepted(made: Made, data: st.DataObject, form: str) -> None:
    """Any byte of the file: refused, or nothing of what was signed is another."""
    document, trust = made(form)
    good = to_json(document)
    position = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    assert outcome(good[:position] + bytes([value]) + good[position + 1 :], trust) in (None, PAYLOAD)


@settings(max_examples=600)
@given(data=st.data(), form=st.sampled_from(["certificate", "keyless"]))
def test_a_changed_certificate_is_no_crash(made: Made, data: st.DataObject, form: str) -> None:
    """Bytes of a certificate itself: another signer, a broken one, or a reason."""
    document, trust = made(form)
    material = document["verificationMaterial"]
    places = material["x509CertificateChain"]["certificates"] if form == "certificate" else [material["certificate"]]
    index = data.draw(st.integers(0, len(places) - 1))
    der = bytearray(base64.b64decode(places[index]["rawBytes"]))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    text = base64.b64encode(bytes(der)).decode()
    at = ("x509CertificateChain", "certificates", index) if form == "certificate" else ("certificate",)
    broken = changed(document, ("verificationMaterial", *at, "rawBytes"), text)
    assert outcome(to_json(broken), trust) in (None, PAYLOAD)


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_root_is_bad_input(made: Made, data: st.DataObject) -> None:
    """A PEM file with another byte is read as certificates, or one line says that it holds none."""
    from cryptography.hazmat.primitives.serialization import Encoding

    _, trust = made("certificate")
    pem = bytearray(trust.roots[0].public_bytes(Encoding.PEM))
    pem[data.draw(st.integers(0, len(pem) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = len(certificates_in(bytes(pem), "root.pem"))
    except InputError:
        found = 1  # it is one that was refused
    assert found == 1


def test_every_field_of_an_entrys_signature_counts(registry: Program, tmp_path: Path) -> None:
    """Mutated, and pinned as it is then: verify-signature refuses it, and validate says that it does not count."""
    valid = ROOT / "tests" / "examples" / "valid" / "smoke" / "registry.json"
    box = Sandbox(valid, "m").copy(tmp_path / "model")
    pair = key_pair(tmp_path, "ci")
    assert registry("sign", "m", "--key", pair.private, "--registry", box.path).code == 0
    pin = box.entry["signatures"][0]
    document = json.loads((box.folder / pin["bundle"]).read_bytes())
    free = [("verificationMaterial", "tlogEntries"), ("dsseEnvelope", "signatures", 0, "keyid")]
    trust = ("--public-key", pair.public)
    for at in paths(document):
        for value in VALUES if at not in free else ():
            data = to_json(changed(document, at, value))
            (box.folder / pin["bundle"]).write_bytes(data)
            box.edit_entry(signatures=[{**pin, "sha256": sha256(data)}])
            ran = registry("verify-signature", "m", *trust, "--registry", box.path)
            assert (ran.code, ran.err) == (1, ""), (at, value)
            ran = registry("validate", box.path, "--level", "quick", "--format", "json", *trust)
            codes = [finding["code"] for finding in json.loads(ran.out)["findings"]]
            assert codes in (["signature-invalid"], ["signature-unverified"]), (at, value)
