"""Tests of signatures over folders: round trips, the reference implementation both ways, and everything refused."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from places import shared_data

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

from certificates import AUTHORITY, MAKERS, NOW, Issued, KeyPair, Use, issue, key_pair
from command_line import Program
from cryptography.x509.oid import ExtendedKeyUsageOID
from json_fields import changed, paths
from jsonschema import Draft202012Validator
from reference import reference

from registry_tool import schemas
from registry_tool.signing.bundle import Trust, read_bundle, verify_bundle
from registry_tool.signing.dsse import SignatureError, pae
from registry_tool.signing.folder import compare
from registry_tool.signing.keys import load_public_key, sign
from registry_tool.signing.statement import FilesStatement

pytestmark = pytest.mark.slow

SUPPORTED = ("p256", "p384", "p521", "ed25519")
REFERENCE = ("p256", "p384", "p521")  # the reference implementation signs with no other


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to sign: files at two depths, one of them empty."""
    path = tmp_path / "dist"
    (path / "sub").mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"\0\1\2")
    (path / "sub" / "weights.bin").write_bytes(b"w" * 1000)
    (path / "sub-file").write_bytes(b"")
    return path


@pytest.fixture
def signed(registry: Program, folder: Path, tmp_path: Path) -> tuple[Path, KeyPair]:
    """(the bundle of the folder, the key that signed it)."""
    pair = key_pair(tmp_path, "ci")
    bundle = tmp_path / "dist.sig"
    assert registry("sign", "--path", folder, "--key", pair.private, "--bundle", bundle).code == 0
    return bundle, pair


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Issued, Issued, Issued]:
    """(root, intermediate, signer)."""
    root = issue(tmp_path, "root", use=AUTHORITY, algorithm="p384")
    middle = issue(tmp_path, "middle", root, use=AUTHORITY)
    return root, middle, issue(tmp_path, "signer", middle)


def check(registry: Program, folder: Path, bundle: Path, *trust: object) -> tuple[int, str]:
    """(exit code, the one line of output)."""
    ran = registry("verify-signature", "--path", folder, "--bundle", bundle, *trust)
    lines = (ran.out + ran.err).splitlines()
    assert len(lines) == 1, lines
    return ran.code, lines[0]


def test_the_signed_bytes() -> None:
    """The example of the DSSE specification, byte for byte."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("algorithm", SUPPORTED)
def test_a_key_signs(registry: Program, folder: Path, tmp_path: Path, algorithm: str) -> None:
    """What a key signed, its public key verifies, and the output fits its schema."""
    pair, bundle = key_pair(tmp_path, "ci", algorithm), tmp_path / "dist.sig"
    ran = registry("sign", "--path", folder, "--key", pair.private, "--bundle", bundle)
    assert (ran.code, ran.err) == (0, "")
    assert "3 files signed" in ran.out
    ran = registry(
        "verify-signature", "--path", folder, "--bundle", bundle, "--public-key", pair.public, "--format", "json"
    )
    assert ran.code == 0
    document = json.loads(ran.out)
    Draft202012Validator(schemas.load("signature")).validate(document)
    assert document["unchecked"] == []


@pytest.mark.parametrize("algorithm", SUPPORTED)
def test_a_certificate_signs(registry: Program, folder: Path, tmp_path: Path, algorithm: str) -> None:
    """A chain of root, intermediate and signer verifies under the root alone."""
    root = issue(tmp_path, "root", use=AUTHORITY)
    middle = issue(tmp_path, "middle", root, use=AUTHORITY)
    signer = issue(tmp_path, "signer", middle, algorithm=algorithm)
    bundle = tmp_path / "dist.sig"
    options = ("--cert", signer.path, "--chain", middle.path, "--bundle", bundle)
    assert registry("sign", "--path", folder, "--key", signer.pair.private, *options).code == 0
    assert check(registry, folder, bundle, "--trust", root.path) == (0, f"{folder}: signed by CN=signer")


@pytest.mark.parametrize("algorithm", REFERENCE)
def test_the_reference_implementation_agrees(registry: Program, folder: Path, tmp_path: Path, algorithm: str) -> None:
    """model-signing verifies our bundles, and we verify its bundles, by key and by certificate."""
    root = issue(tmp_path, "root", use=AUTHORITY)
    signer = issue(tmp_path, "signer", root, algorithm=algorithm)
    key, public = signer.pair.private, signer.pair.public
    ours, theirs = tmp_path / "ours.sig", tmp_path / "theirs.sig"

    registry("sign", "--path", folder, "--key", key, "--bundle", ours)
    ran = reference("verify", "key", folder, "--signature", ours, "--public_key", public)
    assert (ran.exit_code, ran.stderr) == (0, "")
    ran = reference("sign", "key", folder, "--private_key", key, "--signature", theirs)
    assert ran.exit_code == 0, ran.stderr
    assert check(registry, folder, theirs, "--public-key", public)[0] == 0

    registry("sign", "--path", folder, "--key", key, "--cert", signer.path, "--bundle", ours)
    ran = reference("verify", "certificate", folder, "--signature", ours, "--certificate_chain", root.path)
    assert ran.exit_code == 0, ran.stderr
    certificate = ("--private_key", key, "--signing_certificate", signer.path, "--certificate_chain", root.path)
    ran = reference("sign", "certificate", folder, *certificate, "--signature", theirs)
    assert ran.exit_code == 0, ran.stderr
    assert check(registry, folder, theirs, "--trust", root.path)[0] == 0


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (lambda f: (f / "model.onnx").write_bytes(b"\0\1\3"), "model.onnx: digest mismatch"),
    "a missing file": (lambda f: (f / "sub-file").unlink(), "sub-file: file not found"),
    "an extra file": (lambda f: (f / "more").write_bytes(b"x"), "more: the file is not signed"),
    "a hidden file": (lambda f: (f / ".hidden").write_bytes(b"x"), ".hidden: the file is not signed"),
    "a hidden repository": (
        lambda f: ((f / "sub" / ".git").mkdir(), (f / "sub" / ".git" / "x").write_bytes(b"x")),
        "sub/.git/x: the file is not signed",
    ),
    "a name that registries reserve": (
        lambda f: (f / ".staging-x").write_bytes(b"x"),
        ".staging-x: the file is not signed",
    ),
    "the name of a lock": (
        lambda f: (f / ".registry.lock").write_bytes(b"x"),
        ".registry.lock: the file is not signed",
    ),
    "a renamed file": (lambda f: (f / "sub-file").rename(f / "other"), "sub-file: file not found"),
    "a moved file": (lambda f: (f / "sub-file").rename(f / "sub" / "sub-file"), "sub-file: file not found"),
    "a link": (lambda f: (f / "link").symlink_to("model.onnx"), "found a symlink"),
    "a link in place": (
        lambda f: ((f / "sub-file").unlink(), (f / "sub-file").symlink_to("model.onnx")),
        "found a symlink",
    ),
    "a fifo": (lambda f: os.mkfifo(f / "pipe"), "found a special file"),
    "a name that is not UTF-8": (lambda f: Path(os.fsdecode(bytes(f) + b"/\xff")).write_bytes(b"x"), "unusable path"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_refused(
    registry: Program, folder: Path, signed: tuple[Path, KeyPair], change: str
) -> None:
    """Whatever is changed below the folder, the signature does not hold, and the line names the file."""
    bundle, pair = signed
    act, expected = CHANGES[change]
    act(folder)
    code, line = check(registry, folder, bundle, "--public-key", pair.public)
    assert code == 1
    assert expected in line


def test_files_can_be_left_out(registry: Program, folder: Path, tmp_path: Path) -> None:
    """--ignore-path and git's own files are not signed; --ignore-unsigned-files lets others be."""
    pair, bundle = key_pair(tmp_path, "ci"), folder / "dist.sig"  # inside the folder: never part of itself
    skip = ("--ignore-path", folder / "sub")
    assert "2 files" in registry("sign", "--path", folder, "--key", pair.private, "--bundle", bundle, *skip).out
    (folder / "sub" / "weights.bin").write_bytes(b"changed")
    (folder / ".gitignore").write_text("x")
    trust = ("--public-key", pair.public)
    assert check(registry, folder, bundle, *trust)[0] == 0
    (folder / "more").write_bytes(b"x")
    assert check(registry, folder, bundle, *trust)[0] == 1
    assert check(registry, folder, bundle, *trust, "--ignore-unsigned-files")[0] == 0
    assert check(registry, folder, bundle, *trust, "--ignore-path", folder / "more")[0] == 0
    ran = registry(
        "verify-signature",
        "--path",
        folder,
        "--bundle",
        bundle,
        *trust,
        "--ignore-unsigned-files",
        "--ignore-path",
        folder / "sub-file",
    )
    assert (ran.code, ran.out.splitlines()[1:]) == (
        0,
        ["not checked: sub-file: it is signed, and --ignore-path leaves it out"],
    )
    every = [option for name in ("model.onnx", "sub-file", "more") for option in ("--ignore-path", folder / name)]
    assert check(registry, folder, bundle, *trust, *every) == (
        1,
        "registry: every signed file is ignored: nothing was verified",
    )


@pytest.mark.parametrize("name", [".git/config", ".github/workflow.yml", ".gitignore", "model.onnx", "sub/weights.bin"])
@pytest.mark.parametrize("ignored", [(), ("model.onnx", "sub", "./sub/weights.bin", ".git")])
def test_what_is_signed_is_compared(folder: Path, name: str, ignored: tuple[str, ...]) -> None:
    """Whatever a statement lists is compared, also where it or git's names would leave the file out."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"signed")
    statement = FilesStatement("folder", {name: sha256(b"signed").hexdigest()}, "sha256", ignored)
    assert compare(statement, folder, extra_allowed=True) == ()
    file.write_bytes(b"changed")
    with pytest.raises(SignatureError, match=re.escape(f"{name}: digest mismatch")):
        compare(statement, folder, extra_allowed=True)
    file.unlink()
    with pytest.raises(SignatureError, match=re.escape(f"{name}: file not found")):
        compare(statement, folder, extra_allowed=True)


def test_a_wrong_key_is_refused(registry: Program, folder: Path, signed: tuple[Path, KeyPair], tmp_path: Path) -> None:
    """Another key is refused by its fingerprint, and by the signature where the fingerprint was forged."""
    bundle, pair = signed
    other = key_pair(tmp_path, "other")
    code, line = check(registry, folder, bundle, "--public-key", other.public)
    assert code == 1
    assert "is not a trusted one" in line
    document = json.loads(bundle.read_text())
    document["verificationMaterial"]["publicKey"] = {"rawBytes": base64.b64encode(other.public.read_bytes()).decode()}
    bundle.write_text(json.dumps(document))
    code, line = check(registry, folder, bundle, "--public-key", other.public)
    assert code == 1
    assert "the signature does not hold" in line
    assert check(registry, folder, bundle, "--public-key", other.public, "--public-key", pair.public)[0] == 0


def test_chains_that_are_refused(
    registry: Program, folder: Path, authority: tuple[Issued, Issued, Issued], tmp_path: Path
) -> None:
    """Another root, a missing intermediate, certificates out of date, and one that is not for signing."""
    root, middle, signer = authority
    bundle = tmp_path / "dist.sig"

    def verified(who: Issued, *chain: Issued, trust: Issued = root, at: tuple[object, ...] = ()) -> tuple[int, str]:
        above = [option for issued in chain for option in ("--chain", issued.path)]
        options = ("--cert", who.path, *above, "--bundle", bundle)
        assert registry("sign", "--path", folder, "--key", who.pair.private, *options).code == 0
        return check(registry, folder, bundle, "--trust", trust.path, *at)

    def verdict(who: Issued, *chain: Issued, trust: Issued = root, at: tuple[object, ...] = ()) -> str:
        code, line = verified(who, *chain, trust=trust, at=at)
        assert code == 1
        return line

    assert verified(signer, middle)[0] == 0
    assert verified(signer, middle, trust=middle)[0] == 0  # an intermediate that the user trusts
    assert "does not lead to a trusted root" in verdict(signer)
    assert "does not lead to a trusted root" in verdict(signer, middle, trust=issue(tmp_path, "root2", use=AUTHORITY))
    assert "expired on" in verdict(issue(tmp_path, "old", middle, days=(-9, -2)), middle)
    assert "check this machine's clock" in verdict(issue(tmp_path, "new", middle, days=(2, 9)), middle)
    assert "is not for signing: its key usage" in verdict(issue(tmp_path, "mute", middle, use=Use(signs=False)), middle)
    server = issue(tmp_path, "server", middle, use=Use(purpose=ExtendedKeyUsageOID.SERVER_AUTH))
    assert "is not for signing: its extended key usage" in verdict(server, middle)
    assert "is not for signing: its extended key usage" in verdict(
        issue(tmp_path, "any", middle, use=Use(purpose=None)), middle
    )
    stale = issue(tmp_path, "stale", root, use=AUTHORITY, days=(-9, -2))
    assert "expired on" in verdict(issue(tmp_path, "under", stale), stale)
    end_entity = issue(tmp_path, "plain", root)
    assert "does not lead to a trusted root" in verdict(issue(tmp_path, "child", end_entity), end_entity)
    past = ("--at", f"{NOW.year - 3}-01-01")
    assert "check this machine's clock" in verdict(signer, middle, at=past)
    code, line = check(registry, folder, bundle, "--public-key", signer.pair.public)
    assert code == 1
    assert "name the root to trust with --trust" in line


def test_the_certificate_must_be_the_keys(
    registry: Program, folder: Path, authority: tuple[Issued, Issued, Issued], tmp_path: Path
) -> None:
    """A certificate of another key is bad input before anything is written."""
    other = key_pair(tmp_path, "other")
    bundle = tmp_path / "dist.sig"
    options = ("--cert", authority[2].path, "--bundle", bundle)
    ran = registry("sign", "--path", folder, "--key", other.private, *options)
    assert (ran.code, ran.out) == (2, "")
    assert "another key" in ran.err
    assert not bundle.exists()


def bad_keys(tmp_path: Path) -> Iterator[tuple[str, Path, str]]:
    good = key_pair(tmp_path, "good")
    yield "none", tmp_path / "no.key", "file not found"
    yield "a folder", tmp_path, "found a folder"
    yield "public", good.public, "found a public key"
    (tmp_path / "text").write_text("hello")
    yield "text", tmp_path / "text", "no private key"
    (tmp_path / "cut").write_bytes(good.private.read_bytes()[:80])
    yield "cut", tmp_path / "cut", "cannot be read"
    for algorithm in sorted(MAKERS.keys() - set(SUPPORTED)):
        yield algorithm, key_pair(tmp_path, algorithm, algorithm).private, "another algorithm"
    yield "protected", key_pair(tmp_path, "secret", password="12345678").private, "--password-file"


def test_keys_that_cannot_sign(registry: Program, folder: Path, tmp_path: Path) -> None:
    """Each is one line that says what to do, exit 2, no bundle, and never a word of the key."""
    for name, path, expected in bad_keys(tmp_path):
        ran = registry("sign", "--path", folder, "--key", path, "--bundle", tmp_path / "x.sig")
        assert (ran.code, ran.out) == (2, ""), name
        assert expected in ran.err, name
        assert len(ran.err.splitlines()) == 1
        assert not (tmp_path / "x.sig").exists()
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if len(line) > 30 and "---" not in line]
            assert not any(line in ran.err for line in lines)


def test_a_protected_key(registry: Program, folder: Path, tmp_path: Path) -> None:
    """--password-file opens it; a wrong or empty password, or no such file, is one line."""
    pair = key_pair(tmp_path, "secret", password="correct horse")
    (tmp_path / "password").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    options = ("--path", folder, "--key", pair.private, "--bundle", tmp_path / "x.sig", "--password-file")
    assert registry("sign", *options, tmp_path / "password").code == 0
    assert check(registry, folder, tmp_path / "x.sig", "--public-key", pair.public)[0] == 0
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "line").write_bytes(b"\r\ncorrect horse\n")
    for name, expected in {
        "wrong": "wrong password",
        "empty": "its first line is empty",
        "line": "its first line is empty",
        "absent": "file not found, expected a file with the key's password",
        "dist": "found a folder",
    }.items():
        ran = registry("sign", *options, tmp_path / name)
        assert (ran.code, ran.out) == (2, ""), name
        assert expected in ran.err, name
        assert len(ran.err.splitlines()) == 1, name


def test_a_password_is_asked_for_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    """Typed unseen; the key signs, and the password is not on the screen."""
    pair = key_pair(tmp_path, "secret", password="correct horse")
    options = ("--path", folder, "--key", pair.private, "--bundle", "x.sig")
    command = [sys.executable, "-m", "registry_tool", "sign", *options]
    child, screen = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [str(part) for part in command])
    shown = b""
    while b"Password of" not in shown:
        shown += os.read(screen, 1024)
    os.write(screen, b"correct horse\n")
    with suppress(OSError):  # the terminal closes when the program ends
        while more := os.read(screen, 1024):
            shown += more
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"3 files signed" in shown
    assert b"correct horse" not in shown


def test_a_readable_private_key_is_warned_of(registry: Program, folder: Path, tmp_path: Path) -> None:
    """Others can read it: a warning, and the signature is made."""
    pair = key_pair(tmp_path, "ci")
    pair.private.chmod(0o644)
    ran = registry("sign", "--path", folder, "--key", pair.private, "--bundle", tmp_path / "x.sig")
    assert ran.code == 0
    assert "chmod 600" in ran.err


def test_a_private_key_is_not_to_trust(registry: Program, folder: Path, signed: tuple[Path, KeyPair]) -> None:
    """A private key where a public one is due is refused."""
    code, line = check(registry, folder, signed[0], "--public-key", signed[1].private)
    assert code == 2
    assert "expected a public key" in line
    assert check(registry, folder, signed[0])[0] == 2


def test_nothing_to_sign(registry: Program, tmp_path: Path) -> None:
    """No such path, and a folder without files."""
    pair = key_pair(tmp_path, "ci")
    (tmp_path / "empty").mkdir()
    for name, expected in (("none", "file not found"), ("empty", "found no file to sign")):
        ran = registry("sign", "--path", tmp_path / name, "--key", pair.private, "--bundle", tmp_path / "x.sig")
        assert ran.code == 2
        assert expected in ran.err


def test_one_file_can_be_signed(registry: Program, folder: Path, tmp_path: Path) -> None:
    """A file signs like a folder that holds it alone."""
    pair, bundle = key_pair(tmp_path, "ci"), tmp_path / "x.sig"
    file = folder / "model.onnx"
    assert "1 file signed" in registry("sign", "--path", file, "--key", pair.private, "--bundle", bundle).out
    assert check(registry, file, bundle, "--public-key", pair.public)[0] == 0
    file.write_bytes(b"other")
    assert check(registry, file, bundle, "--public-key", pair.public)[0] == 1


def resigned(pair: KeyPair, bundle: bytes, statement: Any) -> bytes:
    """The bundle with another statement, properly signed: only the statement can give it away."""
    document = json.loads(bundle)
    payload = json.dumps(statement).encode()
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature = sign(pair.key, pae("application/vnd.in-toto+json", payload))
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(document).encode()


def test_every_field_of_a_statement_counts(folder: Path, signed: tuple[Path, KeyPair]) -> None:
    """The same of the signed statement, with a signature that fits: senseless names and digests are refused."""
    bundle, pair = signed
    data = bundle.read_bytes()
    statement = json.loads(read_bundle(data).envelope.payload)
    trust = Trust(NOW, [load_public_key(pair.public)])
    for at in paths(statement):
        if at in (("subject", 0, "name"), ("predicate", "serialization", "allow_symlinks")):
            continue
        if at[:3] == ("predicate", "serialization", "ignore_paths"):
            continue  # which files are left out: what is left is compared with the folder
        for value in (..., None, 7, "", [], {}, "../x", "/x", "a//b", "sha1"):
            if (value in ("../x", "/x", "a//b")) is not (at[-1] == "name") and isinstance(value, str) and value:
                continue  # bad names for names, and "sha1" for the rest
            payload = verify_bundle(resigned(pair, data, changed(statement, at, value)), trust).payload
            with pytest.raises(SignatureError, match=r"\w"):
                FilesStatement.from_bytes(payload)
    twice = changed(statement, ("predicate", "resources", 1), statement["predicate"]["resources"][0])
    with pytest.raises(SignatureError):
        FilesStatement.from_bytes(json.dumps(twice).encode())


@pytest.mark.parametrize("name", ["valid/key", "valid/certificate", "valid/sigstore"])
def test_public_vectors_are_read(name: str) -> None:
    """The specification's own bundles are read, with their two files."""
    bundle = read_bundle((shared_data("oms/vectors") / f"{name}.bundle.json").read_bytes())
    assert len(FilesStatement.from_bytes(bundle.envelope.payload).digests) >= 1


def test_public_vectors_are_refused() -> None:
    """Those that must be refused are."""
    files = [path for name in ("invalid", "invalid-payload") for path in (shared_data("oms/vectors") / name).iterdir()]
    assert len(files) >= 5
    for file in files:
        with pytest.raises(SignatureError):
            FilesStatement.from_bytes(read_bundle(file.read_bytes()).envelope.payload)
