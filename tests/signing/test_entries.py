"""Tests of signatures that entries pin: made, verified, asked for by policies, and everything that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import AUTHORITY, NOW, Issued, KeyPair, Use, issue, key_pair
from command_line import Program
from jsonschema import Draft202012Validator
from places import ROOT
from policies import MANUAL, set_policy
from reference import reference
from repository import commit, own_git, start  # noqa: F401 (own_git is a fixture)
from sandbox import Sandbox, sha256, to_json, tree

import registry_tool
from registry_tool import schemas
from registry_tool.checks import signatures
from registry_tool.errors import RejectedError
from registry_tool.signing.bundle import Trust, verify_bundle
from registry_tool.signing.keys import load_public_key
from registry_tool.signing.statement import FilesStatement
from registry_tool.values import Policy

pytestmark = pytest.mark.slow


@pytest.fixture
def ci(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path, "ci")


@pytest.fixture
def other(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path, "other", "ed25519")


def sign(registry: Program, box: Sandbox, pair: KeyPair, *options: object) -> dict[str, str]:
    """Sign the entry; its newest pin."""
    ran = registry("sign", box.id, "--key", pair.private, *options, "--registry", box.path)
    assert (ran.code, ran.err) == (0, "")
    pin: dict[str, str] = box.entry["signatures"][-1]
    return pin


def check(registry: Program, box: Sandbox, *trust: object) -> tuple[int, dict[str, Any]]:
    """(exit code, JSON) of `verify-signature`."""
    ran = registry("verify-signature", box.id, *trust, "--format", "json", "--registry", box.path)
    document = json.loads(ran.out)
    Draft202012Validator(schemas.bundled(schemas.load("signatures"))).validate(document)
    return ran.code, document


def found(registry: Program, box: Sandbox, *options: object) -> list[tuple[str, str, str]]:
    """(severity, code, pointer) of what a quick validate finds."""
    ran = registry("validate", box.path, "--level", "quick", "--format", "json", *options)
    return [(f["severity"], f["code"], f["pointer"]) for f in json.loads(ran.out)["findings"]]


def signer(box: Sandbox, pair: KeyPair, name: str = "ci.pem") -> dict[str, str]:
    """A policy's signer, its key in the registry's folder."""
    (box.folder / "keys").mkdir(exist_ok=True)
    data = pair.public.read_bytes()
    (box.folder / "keys" / name).write_bytes(data)
    return {"public_key": f"keys/{name}", "sha256": sha256(data)}


def root(box: Sandbox, issued: Issued) -> dict[str, str]:
    (box.folder / "keys").mkdir(exist_ok=True)
    data = issued.path.read_bytes()
    (box.folder / "keys" / "root.pem").write_bytes(data)
    return {"certificate": "keys/root.pem", "sha256": sha256(data)}


def ask(box: Sandbox, *signers: dict[str, str], **fields: Any) -> None:
    """The policy asks for signatures of these."""
    policy = box.registry["policies"]["fr_ensemble"]
    box.edit(set_policy("fr_ensemble", {**policy, "signers": list(signers), **fields}))


# ---- made and verified ------------------------------------------------------------------------------------------


def test_a_signature_is_over_the_pinned_files(registry: Program, smoke: Sandbox, ci: KeyPair) -> None:
    """It lies outside the folder that it covers, is pinned, and holds after a flip and a demotion."""
    before = tree(smoke.folder)
    pin = sign(registry, smoke, ci)
    assert set(tree(smoke.folder)) - set(before) == {pin["bundle"]}
    assert pin["bundle"] == f"tiny/signatures/{pin['sha256'][:12]}.sig"
    verified = verify_bundle((smoke.folder / pin["bundle"]).read_bytes(), Trust(NOW, [load_public_key(ci.public)]))
    statement = FilesStatement.from_bytes(verified.payload)
    run = smoke.folder / "tiny" / smoke.entry["sha256"][:12]
    assert statement.digests == {name: sha256(data) for name, data in tree(run).items()}
    trust = ("--public-key", ci.public)
    assert check(registry, smoke, *trust)[0] == 0
    assert smoke.flip()
    assert check(registry, smoke, *trust)[0] == 0
    assert registry("flip", "tiny", "--demote", "--reason", "drifts", "--registry", smoke.path).code == 0
    code, document = check(registry, smoke, *trust)
    assert (code, document["holds"], document["signatures"][0]["problem"]) == (0, True, None)
    assert found(registry, smoke) == [("note", "signature-unverified", "/models/0/signatures/0")]
    assert found(registry, smoke, *trust) == []


def test_the_reference_implementation_verifies_an_entry(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """The bundle is one over the artifact folder, for any tool that reads the format."""
    pin = sign(registry, production, ci)
    run = production.folder / "tiny" / production.entry["sha256"][:12]
    signature = production.folder / pin["bundle"]
    ran = reference("verify", "key", run, "--signature", signature, "--public_key", ci.public)
    assert (ran.exit_code, ran.stderr) == (0, "")
    (run / "manifest.json").write_bytes(b"{}")
    assert reference("verify", "key", run, "--signature", signature, "--public_key", ci.public).exit_code != 0


def test_signing_again_replaces_the_same_key(
    registry: Program, production: Sandbox, ci: KeyPair, other: KeyPair
) -> None:
    """One signature a key; the file of the old one goes, signatures by other keys stay."""
    first = sign(registry, production, ci)
    second = sign(registry, production, other)
    third = sign(registry, production, ci)
    assert production.entry["signatures"] == [second, third]
    assert not (production.folder / first["bundle"]).exists()
    assert found(registry, production, "--public-key", ci.public, "--public-key", other.public) == []


def test_an_entry_of_one_file_is_signed(registry: Program, tmp_path: Path, ci: KeyPair) -> None:
    """Its names are relative to the registry, and what it pins beside the model is signed too."""
    box = example("int8", tmp_path)
    sign(registry, box, ci)
    assert check(registry, box, "--public-key", ci.public)[0] == 0
    statement = FilesStatement.from_bytes(payload(box, ci))
    assert set(statement.digests) == {"m.onnx", "m.int8.onnx"}


def example(name: str, tmp_path: Path) -> Sandbox:
    return Sandbox(ROOT / "tests" / "examples" / "valid" / name / "registry.json", "m").copy(tmp_path / name)


def payload(box: Sandbox, pair: KeyPair) -> bytes:
    data = (box.folder / box.entry["signatures"][0]["bundle"]).read_bytes()
    return verify_bundle(data, Trust(NOW, [load_public_key(pair.public)])).payload


def test_certificates_sign_entries(registry: Program, production: Sandbox, tmp_path: Path) -> None:
    """A chain to the root that is named; another root, and a day after it expired, are refused."""
    authority = issue(tmp_path, "root", use=AUTHORITY)
    middle = issue(tmp_path, "middle", authority, use=AUTHORITY)
    person = issue(tmp_path, "person", middle)
    sign(registry, production, person.pair, "--cert", person.path, "--chain", middle.path)
    assert check(registry, production, "--trust", authority.path)[1]["signatures"][0]["signer"] == "CN=person"
    code, document = check(registry, production, "--trust", issue(tmp_path, "root2", use=AUTHORITY).path)
    assert (code, document["holds"]) == (1, False)
    late = ("--trust", authority.path, "--at", f"{NOW.year + 2}-01-01")
    code, document = check(registry, production, *late)
    assert code == 1
    assert "expired" in document["signatures"][0]["problem"]
    assert [code for _, code, _ in found(registry, production, *late)] == ["signature-invalid", "signature-missing"]


# ---- refused ----------------------------------------------------------------------------------------------------


def repin(box: Sandbox, data: bytes) -> None:
    """Other bytes in the place of the signature, pinned."""
    pin = box.entry["signatures"][0]
    (box.folder / pin["bundle"]).write_bytes(data)
    box.edit_entry(signatures=[{**pin, "sha256": sha256(data)}])


def resigned(box: Sandbox, pair: KeyPair, change: Callable[[dict[str, str]], object]) -> bytes:
    """A proper signature of the same key over other files."""
    from registry_tool.signing.bundle import sign_statement

    statement = FilesStatement.from_bytes(payload(box, pair))
    digests = dict(statement.digests)
    change(digests)
    return sign_statement(FilesStatement(statement.name, dict(sorted(digests.items()))).to_bytes(), pair.key)


COVERAGE: dict[str, Callable[[dict[str, str]], object]] = {
    "the entry pins the file, but it is not signed": lambda digests: digests.pop("manifest.json"),
    "the file is signed, but the entry does not pin it": lambda digests: digests.update(more="0" * 64),
    "digest mismatch": lambda digests: digests.update({"manifest.json": "0" * 64}),
}


@pytest.mark.parametrize("expected", COVERAGE)
def test_a_signature_over_other_files_is_refused(
    registry: Program, production: Sandbox, ci: KeyPair, expected: str
) -> None:
    """Whoever signed it: its statement must list exactly what the entry pins."""
    sign(registry, production, ci)
    repin(production, resigned(production, ci, COVERAGE[expected]))
    [finding] = production.errors()
    assert finding.code == "signature-invalid"
    assert expected in finding.message
    code, document = check(registry, production, "--public-key", ci.public)
    assert (code, document["holds"], len(document["findings"])) == (1, False, 1)
    sign(registry, production, ci)  # as its hint says
    assert production.errors() == []


def test_a_pinned_bundle_stays_as_it_is(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """A changed byte, a missing file and a path outside are findings at the pin."""
    pin = sign(registry, production, ci)
    file = production.folder / pin["bundle"]
    data = file.read_bytes()
    file.write_bytes(data[:-2] + b" \n")
    assert production.codes() == ["digest-mismatch"]
    file.unlink()
    assert production.codes() == ["file-missing"]
    production.edit_entry(signatures=[{**pin, "bundle": "tiny/../x.sig"}])
    assert production.codes() == ["file-escapes"]


def test_the_signature_of_another_entry_does_not_hold(
    registry: Program, production: Sandbox, ci: KeyPair, made: Any, tmp_path: Path
) -> None:
    """A bundle that was copied from another training covers other digests."""
    elsewhere = Sandbox(made.random / "registry.json").copy(tmp_path / "random")
    pin = sign(registry, elsewhere, ci)
    sign(registry, production, ci)
    repin(production, (elsewhere.folder / pin["bundle"]).read_bytes())
    assert production.codes() == ["signature-invalid"]


def test_a_private_key_stays_outside(registry: Program, production: Sandbox) -> None:
    """A key in the registry's folder is refused, and nothing of any key is printed or stored."""
    inside = key_pair(production.folder, "ci")
    before = tree(production.folder)
    ran = registry("sign", "tiny", "--key", inside.private, "--registry", production.path)
    assert (ran.code, ran.out) == (2, "")
    assert "inside the registry's folder" in ran.err
    assert tree(production.folder) == before
    secret = [line for line in inside.private.read_text().splitlines() if "---" not in line]
    assert not any(line in ran.err for line in secret)


def test_an_unpinned_file_is_not_signed(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """What no entry pins, a strict verifier of the folder would refuse: so do `sign` and `verify-signature`."""
    sign(registry, production, ci)
    verify = ("verify-signature", "tiny", "--public-key", ci.public, "--registry", production.path)
    assert registry(*verify).code == 0
    run = production.folder / "tiny" / production.entry["sha256"][:12]
    for name in ("notes.txt", ".hidden", "evidence/more.json"):
        (run / name).write_text("x")
        for command in (("sign", "tiny", "--key", ci.private, "--registry", production.path), verify):
            ran = registry(*command)
            assert (ran.code, ran.out) == (1, "")
            assert f"{name}: no entry pins the file" in ran.err
        (run / name).unlink()
    assert registry(*verify).code == 0


@pytest.mark.parametrize("options", [(), ("--path", "x"), ("--bundle", "x"), ("tiny", "--path", "x", "--bundle", "y")])
def test_what_to_sign_is_named_once(registry: Program, ci: KeyPair, options: tuple[str, ...]) -> None:
    """An entry, or a path with its bundle: anything else is bad usage for both commands."""
    for command in (("sign", "--key", ci.private), ("verify-signature", "--public-key", ci.public)):
        ran = registry(*command, *options)
        assert (ran.code, ran.out) == (2, "")
        assert "name what to" in ran.err


def test_older_registries_have_no_place_for_it(registry: Program, tmp_path: Path, ci: KeyPair) -> None:
    """Version 1 is told of migrate."""
    box = example("version-1-production", tmp_path)
    ran = registry("sign", "m", "--key", ci.private, "--registry", box.path)
    assert ran.code == 2
    assert "registry migrate" in ran.err


# ---- policies ---------------------------------------------------------------------------------------------------


def test_signers_are_policy(registry: Program, smoke: Sandbox, ci: KeyPair, other: KeyPair) -> None:
    """Without a signature of the policy's signer nothing flips, and what is production is an error."""
    ask(smoke, signer(smoke, ci))
    assert not smoke.flip()
    sign(registry, smoke, other)
    verdict = smoke.gate()
    assert verdict.reasons == ("signatures by the policy's signers >= 1: found 0",)
    sign(registry, smoke, ci)
    assert smoke.flip()
    assert [code for _, code, _ in found(registry, smoke)] == ["signature-unverified"]  # of the other key
    assert check(registry, smoke)[1]["signatures"][1]["problem"] is None  # the policy's signers are trusted
    smoke.edit_entry(signatures=None)
    assert ("error", "promotion-unsigned", "/models/0/smoke") in found(registry, smoke)
    assert "promotion-unsigned" in smoke.codes()


def test_a_program_loads_what_the_signers_signed(registry: Program, smoke: Sandbox, ci: KeyPair) -> None:
    """`load` refuses a production entry without the signatures that its policy asks for."""
    ask(smoke, signer(smoke, ci))
    sign(registry, smoke, ci)
    assert smoke.flip()
    assert registry_tool.open(smoke.path).load("tiny").entry.id == "tiny"
    smoke.edit_entry(signatures=None)
    with pytest.raises(RejectedError, match="asks for signatures"):
        registry_tool.open(smoke.path).load("tiny")


def test_no_signers_promote_nothing(registry: Program, smoke: Sandbox, ci: KeyPair) -> None:
    """An empty list, and a number without a list, are no bar that can be met."""
    sign(registry, smoke, ci)
    for policy in ({"signers": []}, {"signatures": 1}):
        smoke.edit(set_policy("fr_ensemble", {"rules": smoke.registry["policies"]["fr_ensemble"]["rules"], **policy}))
        assert not smoke.flip()
        assert "names no signers" in smoke.gate().reasons[0]


def test_different_signers_are_counted(
    registry: Program, smoke: Sandbox, tmp_path: Path, ci: KeyPair, other: KeyPair
) -> None:
    """Two signatures of one name, or of one key, count once."""
    authority = issue(tmp_path, "root", use=AUTHORITY)
    ask(smoke, signer(smoke, ci), root(smoke, authority), signatures=2)
    one, renewed = issue(tmp_path, "person", authority), issue(tmp_path, "again", authority, use=Use(subject="person"))
    sign(registry, smoke, one.pair, "--cert", one.path)
    sign(registry, smoke, renewed.pair, "--cert", renewed.path)
    assert not smoke.gate().promotes
    assert "found 1 (CN=person)" in smoke.gate().reasons[0]
    sign(registry, smoke, ci)
    assert smoke.gate().promotes
    assert smoke.flip()
    assert smoke.errors() == []


def broken_signers(box: Sandbox, pair: KeyPair) -> dict[str, tuple[str, dict[str, str]]]:
    """Name -> (the finding's code, the signer)."""
    good = signer(box, pair)
    keys = box.folder / "keys"
    (keys / "private.txt").write_bytes(pair.private.read_bytes())
    (keys / "text.pem").write_text("hello")
    return {
        "another digest": ("digest-mismatch", {**good, "sha256": "0" * 64}),
        "missing": ("file-missing", {**good, "public_key": "keys/none.pem"}),
        "outside": ("file-escapes", {**good, "public_key": "keys/../../ci.pub"}),
        "private": (
            "signer-invalid",
            {"public_key": "keys/private.txt", "sha256": sha256(pair.private.read_bytes())},
        ),
        "text": ("signer-invalid", {"public_key": "keys/text.pem", "sha256": sha256(b"hello")}),
        "no certificate": ("signer-invalid", {"certificate": good["public_key"], "sha256": good["sha256"]}),
    }


def test_signers_that_cannot_be_used(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """Each is a finding at the signer, counts for nobody, and leaves the entry unsigned, with the reason."""
    sign(registry, production, ci)
    for name, (code, broken) in broken_signers(production, ci).items():
        ask(production, broken)
        assert production.codes() == sorted([code, "promotion-unsigned"]), name
        [unsigned] = [finding for finding in production.errors() if finding.code == "promotion-unsigned"]
        assert "keys/" in unsigned.message, name
        place = [finding.pointer for finding in production.errors() if finding.code == code]
        assert str(place[0]).startswith("/policies/fr_ensemble/signers/0/"), name
        assert not production.gate().promotes


def test_a_person_decides_with_signatures(registry: Program, tmp_path: Path, ci: KeyPair) -> None:
    """A manual policy with signers flips only what they signed, and keeps only that."""
    box = example("sidecar-pinned", tmp_path)
    box.edit(set_policy("fr", {**MANUAL, "signers": [signer(box, ci)]}))
    flip = ("flip", "m", "--reason", "compared by eye", "--registry", box.path)
    ran = registry(*flip)
    assert (ran.code, ran.out) == (1, "")
    assert "signatures by the policy's signers" in ran.err
    sign(registry, box, ci)
    assert registry(*flip).code == 0
    assert box.errors() == []
    box.edit_entry(signatures=None)
    assert box.codes() == ["promotion-unsigned"]


def test_without_cryptography_nothing_passes(
    registry: Program, smoke: Sandbox, ci: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the extra is missing, a policy with signers promotes nothing and says why; others are a note."""
    ask(smoke, signer(smoke, ci))
    sign(registry, smoke, ci)
    assert smoke.flip()
    monkeypatch.setattr(signatures, "can_verify", lambda: False)
    [finding] = [finding for finding in smoke.errors() if finding.code == "promotion-unsigned"]
    assert "pip install cryptography" in finding.message
    assert not smoke.gate().promotes
    smoke.edit(set_policy("fr_ensemble", {"rules": smoke.registry["policies"]["fr_ensemble"]["rules"]}))
    assert "promotion-unsigned" not in smoke.codes()


def test_production_needs_a_trusted_signature(
    registry: Program, production: Sandbox, ci: KeyPair, other: KeyPair
) -> None:
    """With --public-key or --trust, each production entry must be signed by one of those; smoke need not."""
    trust = ("--public-key", ci.public)
    missing = ("error", "signature-missing", "/models/0/smoke")
    assert found(registry, production, *trust) == [missing]
    sign(registry, production, other)
    assert missing in found(registry, production, *trust)
    sign(registry, production, ci)
    assert missing not in found(registry, production, *trust)
    ran = registry("validate", production.path, "--at", "2026-01-01")
    assert ran.code == 2
    assert "--at goes with" in ran.err


LOOSER: dict[str, tuple[dict[str, Any] | None, dict[str, Any], bool]] = {
    "the same": ({"signers": [{"public_key": "a.pem", "sha256": "a" * 64}]}, {}, False),
    "another path, the same bytes": ({"signers": [{"public_key": "b.pem", "sha256": "a" * 64}]}, {}, False),
    "fewer": ({"signers": []}, {}, False),
    "more asked": ({"signers": [{"public_key": "a.pem", "sha256": "a" * 64}], "signatures": 2}, {}, False),
    "a new signer": ({"signers": [{"public_key": "a.pem", "sha256": "b" * 64}]}, {}, True),
    "a root in place of a key": ({"signers": [{"certificate": "a.pem", "sha256": "a" * 64}]}, {}, True),
    "none asked": (None, {}, True),
    "fewer signatures": ({"signers": [{"public_key": "a.pem", "sha256": "a" * 64}]}, {"signatures": 2}, True),
}


@pytest.mark.parametrize("name", LOOSER)
@pytest.mark.parametrize("gate", ["evidence", "manual"])
def test_a_new_signer_loosens_a_policy(name: str, gate: str) -> None:
    """By the bytes of its file: whoever may sign now and could not before makes the bar lower."""
    now, more, looser = LOOSER[name]
    was = {"gate": gate, "rules": [], "signers": [{"public_key": "a.pem", "sha256": "a" * 64}], **more}
    policy = Policy.from_dict({"gate": gate, "rules": [], **(now or {})})
    assert policy.is_looser_than(Policy.from_dict(was)) is looser
    assert not Policy.from_dict(was).is_looser_than(Policy.from_dict({"gate": gate, "rules": []}))


@pytest.mark.usefixtures("own_git")
def test_the_gate_takes_signers_from_the_base(
    registry: Program, smoke: Sandbox, tmp_path: Path, ci: KeyPair, other: KeyPair
) -> None:
    """A change that brings its own signer, or other bytes of the key's file, promotes nothing."""
    ask(smoke, signer(smoke, ci))
    start(smoke.folder)

    def judged() -> tuple[int, str]:
        commit(smoke.folder)
        ran = registry("gate", "--base", "HEAD~1", "--registry", smoke.path)
        return ran.code, ran.out

    ask(smoke, signer(smoke, ci), signer(smoke, other, "other.pem"))
    sign(registry, smoke, other)
    assert smoke.flip()
    code, out = judged()
    assert code == 1
    assert "was loosened in the same change" in out
    assert "loosened: signers" in out

    smoke.edit_entry(smoke=True, promotion=None)
    ask(smoke, signer(smoke, ci))
    commit(smoke.folder)
    (smoke.folder / "keys" / "ci.pem").write_bytes(other.public.read_bytes())  # the pin stays
    smoke.edit_entry(smoke=False, promotion={"verdict": "x.json", "sha256": "0" * 64})
    code, out = judged()
    assert code == 1
    assert "promotion-unsigned" in out
    assert "digest mismatch" in out


@pytest.mark.usefixtures("own_git")
def test_a_signature_promotes_and_changes_nothing_else(registry: Program, production: Sandbox, ci: KeyPair) -> None:
    """A production entry that is signed later is judged again and passes, an imported one is kept as it is."""
    start(production.folder)
    sign(registry, production, ci)
    commit(production.folder)
    ran = registry("gate", "--base", "HEAD~1", "--registry", production.path)
    assert ran.code == 0, ran.out
    assert "PROMOTE" in ran.out


@pytest.mark.usefixtures("own_git")
def test_an_imported_entry_can_be_signed(registry: Program, tmp_path: Path, ci: KeyPair) -> None:
    """A signature says nothing of what the model computes: nothing is judged again."""
    box = example("migrated", tmp_path)
    start(box.folder)
    sign(registry, box, ci)
    commit(box.folder)
    ran = registry("gate", "--base", "HEAD~1", "--registry", box.path)
    assert ran.code == 0, ran.out


def test_keyless_signatures_promote_nothing(registry: Program, smoke: Sandbox, tmp_path: Path) -> None:
    """A certificate of the policy's root in a keyless bundle is read, and counts for nobody."""
    authority = issue(tmp_path, "root", use=AUTHORITY)
    person = issue(tmp_path, "person", authority)
    ask(smoke, root(smoke, authority))
    sign(registry, smoke, person.pair, "--cert", person.path)
    assert smoke.gate().promotes
    document = json.loads((smoke.folder / smoke.entry["signatures"][0]["bundle"]).read_text())
    material = document["verificationMaterial"]
    [certificate] = material.pop("x509CertificateChain")["certificates"]
    material |= {"certificate": certificate, "tlogEntries": [{"integratedTime": str(int(NOW.timestamp()))}]}
    repin(smoke, to_json(document))
    code, said = check(registry, smoke)
    assert code == 0
    assert len(said["signatures"][0]["unchecked"]) == 3
    assert not smoke.gate().promotes
    assert ("note", "signature-unverified", "/models/0/signatures/0") in found(registry, smoke)
