"""Tests of attestations of verdicts: made after everything was checked, verified, refused where they are of others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import AUTHORITY, NOW, KeyPair, issue, key_pair
from command_line import Program
from json_fields import VALUES, changed, paths
from jsonschema import Draft202012Validator
from policies import set_policy
from registries import Made
from sandbox import Sandbox, sha256, to_json, tree

from registry_tool import schemas
from registry_tool.checks.attestations import policy_digest
from registry_tool.signing.bundle import sign_envelope
from registry_tool.signing.dsse import SignatureError
from registry_tool.signing.keys import fingerprint
from registry_tool.signing.svr import VerificationResult

pytestmark = pytest.mark.slow
PROMOTED, REPRODUCED = "REGISTRY_PROMOTED", "REGISTRY_REPRODUCED"


@pytest.fixture
def ci(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path, "ci")


def attest(registry: Program, box: Sandbox, pair: KeyPair, *options: object) -> dict[str, str]:
    """Attest the entry's verdict; its newest pin."""
    ran = registry("attest", "tiny", "--key", pair.private, *options, "--registry", box.path)
    assert (ran.code, ran.err) == (0, "")
    pin: dict[str, str] = box.entry["promotion"]["attestations"][-1]
    return pin


def check(registry: Program, box: Sandbox, *trust: object) -> tuple[int, dict[str, Any]]:
    """(exit code, JSON) of `verify-attestation`."""
    ran = registry("verify-attestation", "tiny", *trust, "--format", "json", "--registry", box.path)
    document = json.loads(ran.out)
    Draft202012Validator(schemas.bundled(schemas.load("attestations"))).validate(document)
    return ran.code, document


def statement_of(box: Sandbox) -> dict[str, Any]:
    pin = box.entry["promotion"]["attestations"][0]
    envelope = json.loads((box.folder / pin["path"]).read_bytes())
    statement: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return statement


def replace_attestation(box: Sandbox, data: bytes) -> None:
    """Other bytes in the place of the attestation, pinned."""
    promotion = box.entry["promotion"]
    pin = promotion["attestations"][0]
    (box.folder / pin["path"]).write_bytes(data)
    box.edit_entry(promotion={**promotion, "attestations": [{**pin, "sha256": sha256(data)}]})


def test_a_verdict_is_attested(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """An in-toto statement on the manifest's digest, beside the verdict and pinned; the entry stays valid."""
    before = tree(production.folder)
    pin = attest(registry, production, ci, "--verifier", "https://example.org/gate/v1")
    assert set(tree(production.folder)) - set(before) == {pin["path"]}
    assert pin["path"].startswith("tiny/verdicts/ATTESTATION-")
    statement, entry = statement_of(production), production.entry
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/svr/v0.1"
    assert statement["subject"] == [{"name": entry["manifest"], "digest": {"sha256": entry["sha256"]}}]
    predicate = statement["predicate"]
    assert set(predicate) == {"verifier", "timeCreated", "properties"}
    assert predicate["properties"] == [PROMOTED]
    assert predicate["verifier"]["id"] == "https://example.org/gate/v1"
    assert predicate["verifier"]["verdict"] == {"digest": {"sha256": entry["promotion"]["sha256"]}}
    policy = to_json_sorted(production.verdict["policy"])
    assert predicate["verifier"]["policy"] == {"digest": {"sha256": sha256(policy)}}
    assert abs((datetime.fromisoformat(predicate["timeCreated"]) - datetime.now(UTC)).total_seconds()) < 600
    code, document = check(registry, production, "--public-key", ci.public)
    assert (code, document["holds"], document["attestations"][0]["properties"]) == (0, True, [PROMOTED])
    assert [f.code for f in production.findings()] == ["attestation-unverified"]
    assert registry("flip", "tiny", "--demote", "--reason", "drifts", "--registry", production.path).code == 0
    assert "promotion" not in production.entry


def to_json_sorted(value: Any) -> bytes:
    """As `strictjson.dump` writes, by an independent way."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize("algorithm", ["p256", "p384", "p521", "ed25519"])
def test_another_library_verifies_the_envelope(
    registry: Program, production: Sandbox, tmp_path: Path, algorithm: str
) -> None:
    """securesystemslib verifies the DSSE envelope with the key, and in-toto's own reader takes the statement."""
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    pair = key_pair(tmp_path, "one", algorithm)
    pin = attest(registry, production, pair)
    envelope = dsse.Envelope.from_dict(json.loads((production.folder / pin["path"]).read_bytes()))
    public = pair.key.public_key()
    key = signer.SSlibKey.from_crypto(public, keyid=fingerprint(public))
    assert set(envelope.verify([key], 1)) == {fingerprint(public)}
    other = key_pair(tmp_path, "two", algorithm).key.public_key()
    wrong = signer.SSlibKey.from_crypto(other, keyid=fingerprint(public))
    with pytest.raises(Exception, match="do not match threshold"):
        envelope.verify([wrong], 1)
    protobuf = pytest.importorskip("google.protobuf.json_format")
    statements = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    parsed = protobuf.Parse(envelope.payload, statements.Statement())
    assert parsed.subject[0].digest["sha256"] == production.entry["sha256"]


def test_reproduced_is_said_of_a_stored_result_alone(
    registry: Program, production: Sandbox, ci: KeyPair, made: Made
) -> None:
    """`reproduce --store` keeps its result beside the verdict, and only then an attestation says so."""
    attest(registry, production, ci)
    assert statement_of(production)["predicate"]["properties"] == [PROMOTED]
    again = ("reproduce", "tiny", "--corpus", made.corpus, "--registry", production.path)
    before = tree(production.folder)
    assert registry(*again).code == 0
    assert tree(production.folder) == before
    ran = registry(*again, "--store")
    assert ran.code == 0
    [pin] = production.entry["promotion"]["reproductions"]
    assert pin["path"] in ran.err
    result = json.loads((production.folder / pin["path"]).read_bytes())
    Draft202012Validator(schemas.bundled(schemas.load("reproduction"))).validate(result)
    assert (result["entry"], result["manifest_sha256"]) == ("tiny", production.entry["sha256"])
    assert result["outcome"] == "identical"
    assert result["made_sha256"] == production.entry["sha256"]
    assert result["made_with"]["numpy"]
    registry(*again, "--store")
    assert production.entry["promotion"]["reproductions"] == [pin]  # the same result is kept once
    attest(registry, production, ci)
    code, document = check(registry, production, "--public-key", ci.public)
    assert (code, document["attestations"][0]["properties"]) == (0, [PROMOTED, REPRODUCED])
    assert production.codes() == []

    promotion = {key: value for key, value in production.entry["promotion"].items() if key != "reproductions"}
    production.edit_entry(promotion=promotion)
    [finding] = production.errors()
    assert (finding.code, "no stored result" in finding.message) == ("attestation-invalid", True)
    assert check(registry, production, "--public-key", ci.public)[0] == 1


def kept(box: Sandbox, **fields: Any) -> None:
    """A result of training again beside the verdict."""
    result = {
        "entry": "tiny",
        "manifest_sha256": box.entry["sha256"],
        "outcome": "identical",
        "files": {},
        "changes": [],
        "added": [],
        "environment": [],
        "agreements": [],
        "warnings": [],
        **fields,
    }
    data = to_json({key: value for key, value in result.items() if value is not None})
    (box.folder / "tiny" / "verdicts" / "R.json").write_bytes(data)
    promotion = box.entry["promotion"]
    pin = {"path": "tiny/verdicts/R.json", "sha256": sha256(data)}
    box.edit_entry(promotion={**promotion, "reproductions": [pin]})


RESULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "good": ({}, []),
    "within tolerance": ({"outcome": "within-tolerance"}, []),
    "beyond tolerance": ({"outcome": "beyond-tolerance"}, ["reproduction-failed"]),
    "unexplained": ({"outcome": "unexplained"}, ["reproduction-failed"]),
    "another entry": ({"entry": "other"}, ["reproduction-invalid"]),
    "another manifest": ({"manifest_sha256": "0" * 64}, ["reproduction-invalid"]),
    "no manifest": ({"manifest_sha256": None}, ["reproduction-invalid"]),
    "no outcome": ({"outcome": None}, ["schema-required"]),
    "another outcome": ({"outcome": "perfect"}, ["schema-value"]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_kept_result_is_of_this_entry(registry: Program, production: Sandbox, ci: KeyPair, name: str) -> None:
    """Else it is a finding; one that says the entry was not reproduced is a warning, and attests nothing."""
    fields, codes = RESULTS[name]
    kept(production, **fields)
    assert [finding.code for finding in production.findings()] == codes
    ran = registry("attest", "tiny", "--key", ci.private, "--registry", production.path)
    errors = [code for code in codes if code != "reproduction-failed"]
    assert ran.code == (1 if errors else 0)
    if not errors:
        assert (REPRODUCED in ran.out) is not bool(codes)


def test_a_result_is_kept_beside_a_verdict_alone(registry: Program, smoke: Sandbox, made: Made) -> None:
    """A smoke entry has none, which is said before anything is trained."""
    ran = registry("reproduce", "tiny", "--corpus", made.corpus / "none", "--store", "--registry", smoke.path)
    assert (ran.code, ran.out) == (1, "")
    assert "it is smoke" in ran.err


def test_attesting_again_replaces_the_same_key(
    registry: Program, production: Sandbox, ci: KeyPair, tmp_path: Path
) -> None:
    """One attestation a key; a certificate's is a bundle that holds its chain."""
    first = attest(registry, production, ci)
    authority = issue(tmp_path, "root", use=AUTHORITY)
    person = issue(tmp_path, "person", authority)
    second = attest(registry, production, person.pair, "--cert", person.path)
    third = attest(registry, production, ci)
    assert production.entry["promotion"]["attestations"] == [second, third]
    assert not (production.folder / first["path"]).exists()
    code, document = check(registry, production, "--trust", authority.path)
    assert (code, document["attestations"][0]["signer"]) == (0, "CN=person")
    assert "is signed with a key" in document["attestations"][1]["problem"]
    other = issue(tmp_path, "root2", use=AUTHORITY)
    assert check(registry, production, "--trust", other.path)[0] == 1
    assert check(registry, production, "--trust", authority.path, "--public-key", ci.public)[1]["findings"] == []


def test_signers_of_the_policy_are_trusted(registry: Program, smoke: Sandbox, ci: KeyPair) -> None:
    """Where none is named, and where there are none either, that is bad input."""
    (smoke.folder / "ci.pem").write_bytes(ci.public.read_bytes())
    policy = smoke.registry["policies"]["fr_ensemble"]
    signers = [{"public_key": "ci.pem", "sha256": sha256(ci.public.read_bytes())}]
    smoke.edit(set_policy("fr_ensemble", {**policy, "signers": signers}))
    assert registry("sign", "tiny", "--key", ci.private, "--registry", smoke.path).code == 0
    assert smoke.flip()
    attest(registry, smoke, ci)
    assert check(registry, smoke)[0] == 0
    assert smoke.findings() == ()


def test_what_cannot_be_attested(registry: Program, smoke: Sandbox, ci: KeyPair) -> None:
    """A smoke entry, one that does not validate, and a key inside the registry's folder."""

    def refused(key: Path = ci.private) -> str:
        ran = registry("attest", "tiny", "--key", key, "--registry", smoke.path)
        assert (ran.code, ran.out) in ((1, ""), (2, ""))
        return ran.err

    assert "it is smoke" in refused()
    assert "inside the registry's folder" in refused(key_pair(smoke.folder, "in").private)
    ran = registry("attest", "tiny", "--key", ci.private, "--verifier", "not a uri", "--registry", smoke.path)
    assert (ran.code, "expected a URI" in ran.err) == (2, True)
    (smoke.folder / "in.key").unlink()
    assert smoke.flip()
    smoke.edit_entry(license=None, sidecar_sha256="0" * 64)
    assert "does not validate" in refused()
    ran = registry("verify-attestation", "tiny", "--registry", smoke.path)
    assert (ran.code, "names no signers" in ran.err) == (2, True)
    ran = registry("verify-attestation", "tiny", "--public-key", ci.public, "--registry", smoke.path)
    assert (ran.code, "nothing attests its verdict" in ran.out) == (1, True)


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "subject": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
    "verdict": lambda s: s["predicate"]["verifier"]["verdict"]["digest"].update(sha256="0" * 64),
    "policy": lambda s: s["predicate"]["verifier"]["policy"]["digest"].update(sha256="0" * 64),
    "reproduced": lambda s: s["predicate"]["properties"].append(REPRODUCED),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_attestation_of_something_else_is_an_error(
    registry: Program, production: Sandbox, ci: KeyPair, name: str
) -> None:
    """Properly signed by a trusted key all the same."""
    attest(registry, production, ci)
    statement = statement_of(production)
    FORGED[name](statement)
    replace_attestation(production, sign_envelope(json.dumps(statement).encode(), ci.key))
    assert production.codes() == ["attestation-invalid"]
    assert check(registry, production, "--public-key", ci.public)[0] == 1
    attest(registry, production, ci)  # as its hint says
    assert production.codes() == []


RESULT = VerificationResult("t/m.json", "a" * 64, "b" * 64, "c" * 64, NOW, (PROMOTED, REPRODUCED))


def test_a_result_survives() -> None:
    """What is written is read again; properties that a later release adds are read, too."""
    assert VerificationResult.from_bytes(RESULT.to_bytes()) == RESULT
    later = json.loads(RESULT.to_bytes())
    later["predicate"]["properties"].append("REGISTRY_SOMETHING_ELSE")
    assert VerificationResult.from_bytes(json.dumps(later).encode()).properties[-1] == "REGISTRY_SOMETHING_ELSE"


def test_every_field_of_a_statement_counts() -> None:
    """Each removed or of another type: refused with a reason, or another result; never a crash."""
    good = json.loads(RESULT.to_bytes())
    free = {("subject", 0, "name"), ("predicate", "verifier", "id")}  # any text
    for at in paths(good):
        for value in VALUES:
            if at in free and isinstance(value, str):
                continue
            if (at[1:2], value) == (("properties",), ...) and len(at) == 3:
                continue  # one property less
            if at[1:] == ("properties",) and value == []:
                continue
            with pytest.raises(SignatureError, match=r"\w"):
                VerificationResult.from_bytes(json.dumps(changed(good, at, value)).encode())


def test_the_policys_digest_is_of_the_document() -> None:
    """Sorted keys, two spaces, a newline at the end: anyone can compute it."""
    policy = {"rules": [{"op": ">=", "metric": "m", "bound": 0.5}], "gate": "evidence"}
    assert policy_digest({"policy": policy}) == sha256(to_json_sorted(policy))
