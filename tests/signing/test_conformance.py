"""The cases of the public conformance suite of model signatures, through its adapter: what holds, and what is refused.

The suite itself is not part of this project: keys, certificates, folders and broken bundles are made here.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")

import oms_adapter
from certificates import AUTHORITY, Issued, KeyPair, Use, issue, key_pair
from command_line import Program, Ran
from places import TESTS

from registry_tool.signing.bundle import read_bundle
from registry_tool.signing.statement import FilesStatement

pytestmark = pytest.mark.slow
PAST, FUTURE, NEAR = (-30, -10), (10, 30), (-30, 30)
Files = dict[str, bytes]
SIMPLE: Files = {"signme-1": b"one", "signme-2": b"two", "ignore-me": b"other"}


@dataclass(frozen=True)
class Signer:
    """What the suite calls a group of keys: options to sign with, options to verify with."""

    sign: tuple[object, ...]
    verify: tuple[object, ...]


def by_key(folder: Path, algorithm: str = "p384") -> Signer:
    pair = key_pair(folder, f"key-{algorithm}", algorithm)
    return Signer(("--method", "key", "--private-key", pair.private), ("--method", "key", "--public-key", pair.public))


def by_certificate(
    folder: Path,
    *,
    root: tuple[int, int] = NEAR,
    middle: tuple[int, int] = NEAR,
    leaf: tuple[int, int] = NEAR,
    use: Use | None = None,
) -> Signer:
    """A chain of three, valid on these days."""
    folder.mkdir(exist_ok=True)
    top = issue(folder, "root", use=AUTHORITY, days=root, algorithm="p384")
    between = issue(folder, "middle", top, use=AUTHORITY, days=middle, algorithm="p384")
    signer = issue(folder, "leaf", between, use=use or Use(), days=leaf, algorithm="p384")
    return Signer(certificate_options(signer, between), ("--method", "certificate", "--cert-chain", top.path))


def certificate_options(signer: Issued, above: Issued) -> tuple[object, ...]:
    key = ("--private-key", signer.pair.private, "--signing-cert", signer.path)
    return ("--method", "certificate", *key, "--cert-chain", above.path)


@dataclass(frozen=True)
class Suite:
    """The suite's client: signs and verifies `model` through the adapter."""

    registry: Program
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def bundle(self) -> Path:
        return self.folder / "model.sig"

    def write(self, files: Files) -> None:
        self.model.mkdir(exist_ok=True)
        for name, data in files.items():
            (self.model / name).parent.mkdir(parents=True, exist_ok=True)
            (self.model / name).write_bytes(data)

    def run(self, command: str, *options: object) -> Ran:
        return self.registry(*oms_adapter.translated([command, *map(str, options)]))

    def sign(self, signer: Signer, *options: object, path: Path | None = None) -> Ran:
        model = ("--model-path", path or self.model, "--output-bundle", self.bundle)
        return self.run("sign-model", *signer.sign, *model, *options)

    def verify(self, signer: Signer, *options: object, path: Path | None = None) -> Ran:
        model = ("--model-path", path or self.model, "--bundle", self.bundle)
        return self.run("verify-model", *signer.verify, *model, *options)

    @property
    def signed(self) -> list[str]:
        statement = FilesStatement.from_bytes(read_bundle(self.bundle.read_bytes()).envelope.payload)
        return list(statement.digests)


@pytest.fixture
def suite(registry: Program, tmp_path: Path) -> Suite:
    return Suite(registry, tmp_path)


ROUND_TRIPS: dict[str, tuple[Files, list[str]]] = {
    "simple": (SIMPLE, ["ignore-me", "signme-1", "signme-2"]),
    "multi-file": (
        {"weights.bin": b"w", "config.json": b"{}", "subdir/adapter.bin": b"a"},
        ["config.json", "subdir/adapter.bin", "weights.bin"],
    ),
    "deeply nested": ({"a/b/c/d/e/f.bin": b"f"}, ["a/b/c/d/e/f.bin"]),
    "binary": ({"x": bytes(range(256)) * 20}, ["x"]),
    "empty file": ({"empty": b"", "x": b"x"}, ["empty", "x"]),
    "dotfiles": ({".config": b"c", ".env.example": b"e", "x": b"x"}, [".config", ".env.example", "x"]),
    "hidden folder": ({".cache/weights.bin": b"w", "x": b"x"}, [".cache/weights.bin", "x"]),
    "git at the top": (
        {".git/HEAD": b"h", ".gitignore": b"i", ".gitattributes": b"a", ".github/x": b"x", "model.bin": b"m"},
        ["model.bin"],
    ),
    "git below": (
        {"subdir/.gitignore": b"i", "subdir/.git/HEAD": b"h", "m": b"m"},
        ["m", "subdir/.git/HEAD", "subdir/.gitignore"],
    ),
    "special characters": ({"a b (1)/c+d & e's.bin": b"x"}, ["a b (1)/c+d & e's.bin"]),
    "unicode": ({"模型.bin": b"x", "größe/ü": b"y"}, ["größe/ü", "模型.bin"]),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
@pytest.mark.parametrize("make", [by_key, by_certificate])
def test_what_was_signed_verifies(suite: Suite, tmp_path: Path, name: str, make: Callable[[Path], Signer]) -> None:
    """By key and by certificate; the files that a folder's signature covers, sorted by name."""
    files, expected = ROUND_TRIPS[name]
    suite.write(files)
    signer = make(tmp_path)
    assert suite.sign(signer).code == 0
    assert suite.signed == expected
    ran = suite.verify(signer)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("algorithm", ["p256", "p384", "p521"])
def test_every_curve_of_the_specification_signs(suite: Suite, tmp_path: Path, algorithm: str) -> None:
    """And signing twice gives the same statement."""
    suite.write(SIMPLE)
    signer = by_key(tmp_path, algorithm)
    payloads = set()
    for _ in range(2):
        assert suite.sign(signer).code == 0
        payloads.add(read_bundle(suite.bundle.read_bytes()).envelope.payload)
    assert len(payloads) == 1
    assert suite.verify(signer).code == 0


def test_paths_that_are_left_out(suite: Suite, tmp_path: Path) -> None:
    """Exactly those, none of the same name elsewhere, and the bundle itself inside the folder."""
    suite.write({**SIMPLE, "subdir/ignore-me": b"deep"})
    signer = by_key(tmp_path)
    ignored = ("--ignore-paths", suite.model / "ignore-me")
    assert suite.sign(signer, *ignored).code == 0
    assert suite.signed == ["signme-1", "signme-2", "subdir/ignore-me"]
    assert suite.verify(signer, *ignored).code == 0
    inside = Suite(suite.registry, suite.folder)
    bundle = inside.model / "model.sig"
    model = ("--model-path", inside.model, "--output-bundle", bundle)
    assert suite.run("sign-model", *signer.sign, *model).code == 0
    assert suite.run("verify-model", *signer.verify, "--model-path", inside.model, "--bundle", bundle).code == 0


def test_one_file_is_a_model(suite: Suite, tmp_path: Path) -> None:
    """Its resource has the name of the file alone."""
    suite.write({"model.bin": b"m"})
    signer, file = by_key(tmp_path), suite.model / "model.bin"
    assert suite.sign(signer, path=file).code == 0
    assert suite.signed == ["model.bin"]
    assert suite.verify(signer, path=file).code == 0


def test_a_certificate_that_signed_itself_is_its_own_root(suite: Suite, tmp_path: Path) -> None:
    """Where it is named as the one to trust."""
    suite.write(SIMPLE)
    own = issue(tmp_path, "own")
    signer = Signer(certificate_options(own, own), ("--method", "certificate", "--cert-chain", own.path))
    assert suite.sign(signer).code == 0
    assert suite.verify(signer).code == 0


def test_authorities_may_have_rsa_keys(suite: Suite, tmp_path: Path) -> None:
    """As those of the reference implementation's older releases do; the signer's own key is on a curve."""
    suite.write(SIMPLE)
    root = issue(tmp_path, "root", use=AUTHORITY, algorithm="rsa")
    middle = issue(tmp_path, "middle", root, use=AUTHORITY, algorithm="rsa")
    leaf = issue(tmp_path, "leaf", middle)
    signer = Signer(certificate_options(leaf, middle), ("--method", "certificate", "--cert-chain", root.path))
    assert suite.sign(signer).code == 0
    assert suite.verify(signer).code == 0


CHAINS: dict[str, tuple[dict[str, Any], str]] = {
    "no code signing": ({"use": Use(purpose=None)}, "is not for signing"),
    "expired": ({"leaf": PAST}, "expired on"),
    "not yet valid": ({"leaf": FUTURE}, "is valid from"),
    "expired intermediate": ({"middle": PAST}, "expired on"),
    "intermediate not yet valid": ({"middle": FUTURE}, "is valid from"),
    "expired root": ({"root": PAST}, "does not lead to a trusted root"),
    "expired intermediate and leaf": ({"middle": PAST, "leaf": PAST}, "expired on"),
    "all expired": ({"root": PAST, "middle": PAST, "leaf": PAST}, "expired on"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_that_are_refused(suite: Suite, tmp_path: Path, name: str) -> None:
    """Whatever certificate of the chain is out of its days."""
    suite.write(SIMPLE)
    days, expected = CHAINS[name]
    signer = by_certificate(tmp_path / "chain", **days)
    assert suite.sign(signer).code == 0
    ran = suite.verify(signer)
    assert (ran.code, ran.out) == (1, "")
    assert expected in ran.err


def test_methods_and_keys_must_match(suite: Suite, tmp_path: Path) -> None:
    """Another key, another root, a key for a certificate and the other way round, keyless."""
    suite.write(SIMPLE)
    key, certificate = by_key(tmp_path), by_certificate(tmp_path / "a")
    for signer, others in (
        (key, [by_key(tmp_path, "p256"), certificate]),
        (certificate, [by_certificate(tmp_path / "b"), key]),
    ):
        assert suite.sign(signer).code == 0
        assert suite.verify(signer).code == 0
        for other in others:
            assert suite.verify(other).code == 1
    keyless = Signer((), ("--method", "sigstore", "--identity", "a@b.c", "--identity-provider", "https://d"))
    assert suite.verify(keyless).code == 2


MODELS: dict[str, Callable[[Path], object]] = {
    "tampered": lambda model: (model / "signme-1").write_bytes(b"other"),
    "missing": lambda model: (model / "signme-2").unlink(),
    "renamed": lambda model: (model / "signme-2").rename(model / "signme-3"),
    "link": lambda model: (model / "link").symlink_to("signme-1"),
    "link outside": lambda model: (model / "link").symlink_to("/tmp/nonexistent-target"),
    "cycle": lambda model: (model / "link").symlink_to("."),
}


@pytest.mark.parametrize("name", [*MODELS, "extra"])
@pytest.mark.parametrize("lenient", [False, True])
def test_models_that_are_refused(suite: Suite, tmp_path: Path, name: str, lenient: bool) -> None:
    """A changed, missing, renamed or linked file is found with --ignore-unsigned-files too; it lets extra ones be."""
    suite.write(SIMPLE)
    signer = by_key(tmp_path)
    assert suite.sign(signer).code == 0
    if name == "extra":
        (suite.model / "injected.bin").write_bytes(b"x")
    else:
        MODELS[name](suite.model)
    ran = suite.verify(signer, *(("--ignore-unsigned-files",) if lenient else ()))
    assert (ran.code == 0) is (name == "extra" and lenient)
    assert len(ran.err.splitlines()) == (0 if ran.code == 0 else 1)


@pytest.mark.parametrize("name", ["link", "link outside", "cycle", "empty"])
def test_models_that_cannot_be_signed(suite: Suite, tmp_path: Path, name: str) -> None:
    """A link of any kind, and a folder without a file."""
    suite.write({} if name == "empty" else SIMPLE)
    if name != "empty":
        MODELS[name](suite.model)
    ran = suite.sign(by_key(tmp_path))
    assert ran.code == 2
    assert not suite.bundle.exists()


def at(*path: Any, value: Any = ...) -> Callable[[Any], None]:
    """A change of one field of a document, in place; without a value it is removed."""

    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        if value is ...:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return change


BUNDLES = {
    "media type": at("mediaType", value="application/x"),
    "payload type": at("dsseEnvelope", "payloadType", value="text/plain"),
    "no signature": at("dsseEnvelope", "signatures", value=[]),
    "no envelope": at("dsseEnvelope"),
    "no material": at("verificationMaterial"),
}
STATEMENTS = {
    "no resources": at("predicate", "resources", value=[]),
    "no serialization": at("predicate", "serialization"),
    "another statement type": at("_type", value="https://in-toto.io/Statement/v0.1"),
    "another predicate": at("predicateType", value="https://example.org/x"),
    "another method": at("predicate", "serialization", "method", value="shards"),
    "an unknown hash": at("predicate", "serialization", "hash_type", value="md5"),
    "a name outside": at("predicate", "resources", 0, "name", value="../ignore-me"),
    "an absolute name": at("predicate", "resources", 0, "name", value="/ignore-me"),
}


def resigned(bundle: Path, pair: KeyPair, change: Callable[[Any], None]) -> bytes:
    """The bundle with another statement, properly signed."""
    from registry_tool.signing.bundle import sign_statement

    statement = json.loads(base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"]))
    change(statement)
    return sign_statement(json.dumps(statement).encode(), pair.key)


@pytest.mark.parametrize("name", [*BUNDLES, *STATEMENTS, "empty", "garbage", "truncated", "list"])
def test_bundles_that_are_refused(suite: Suite, tmp_path: Path, name: str) -> None:
    """Malformed, of another type, or with a statement that says nothing: one line with the reason, exit 1."""
    suite.write(SIMPLE)
    pair = key_pair(tmp_path, "ci")
    options = ("--method", "key", "--private-key", pair.private), ("--method", "key", "--public-key", pair.public)
    signer = Signer(*options)
    assert suite.sign(signer).code == 0
    good = suite.bundle.read_bytes()
    if name in BUNDLES:
        document = json.loads(good)
        BUNDLES[name](document)
        data = json.dumps(document).encode()
    elif name in STATEMENTS:
        data = resigned(suite.bundle, pair, STATEMENTS[name])
    else:
        data = {"empty": b"", "garbage": b"\0{not json", "truncated": good[: len(good) // 2], "list": b"[]"}[name]
    suite.bundle.write_bytes(data)
    ran = suite.verify(signer)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)


def test_the_adapter_is_a_program(suite: Suite, tmp_path: Path) -> None:
    """As the suite runs it: by its exit code."""
    suite.write(SIMPLE)
    signer = by_key(tmp_path)
    adapter = [sys.executable, str(TESTS / "helpers" / "oms_adapter.py")]

    def code(*arguments: object) -> int:
        return subprocess.run([*adapter, *map(str, arguments)], check=False, capture_output=True).returncode

    model = ("--model-path", suite.model)
    assert code("sign-model", *signer.sign, *model, "--output-bundle", suite.bundle) == 0
    assert code("verify-model", *signer.verify, *model, "--bundle", suite.bundle) == 0
    (suite.model / "signme-1").write_bytes(b"other")
    assert code("verify-model", *signer.verify, *model, "--bundle", suite.bundle) == 1
