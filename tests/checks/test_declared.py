"""What an entry only declares: a signature bundle over its own bytes, a licence's URL, an id like no other."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import codes, entry, findings, model, write

from registry_tool.findings import Severity

BUNDLE = "m.onnx.sigstore.json"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"


def message(digest: str) -> dict[str, Any]:
    """A bundle over a file's digest, as `cosign sign-blob` writes one; its signature is none."""
    signed = {"algorithm": "SHA2_256", "digest": base64.b64encode(bytes.fromhex(digest)).decode()}
    return {
        "mediaType": MEDIA,
        "verificationMaterial": {"certificate": {"rawBytes": "AAAA"}},
        "messageSignature": {"messageDigest": signed, "signature": "AAAA"},
    }


def statement(digest: str) -> dict[str, Any]:
    """A bundle over an in-toto statement."""
    payload = json.dumps({"subject": [{"name": "m.onnx", "digest": {"sha256": digest}}]}).encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "AAAA"}],
    }
    return {"mediaType": MEDIA, "verificationMaterial": {}, "dsseEnvelope": envelope}


@pytest.mark.parametrize("make", [message, statement])
def test_a_bundle_signs_the_entrys_own_bytes(tmp_path: Path, make: Any) -> None:
    """Over these bytes it is noted as not verified; over others, or with a part missing, it is an error."""
    row = entry(tmp_path, model(), sigstore_bundle=BUNDLE)
    good = make(row["sha256"])
    write(tmp_path, BUNDLE, good)
    (found,) = findings(tmp_path, row)
    assert (found.code, found.severity) == ("bundle-unverified", Severity.NOTE)
    write(tmp_path, BUNDLE, make("0" * 64))
    (found,) = findings(tmp_path, row)
    assert (found.code, found.severity, "another file" in found.message) == ("bundle-invalid", Severity.ERROR, True)
    for field in good:
        write(tmp_path, BUNDLE, {key: value for key, value in good.items() if key != field})
        assert codes(findings(tmp_path, row)) == {"bundle-invalid"}


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"null", b"{}", b"-----BEGIN SIGNATURE-----"])
def test_what_is_no_bundle_is_an_error(tmp_path: Path, data: bytes) -> None:
    """Anything but a bundle in its place."""
    row = entry(tmp_path, model(), sigstore_bundle=BUNDLE)
    write(tmp_path, BUNDLE, data)
    assert codes(findings(tmp_path, row)) == {"bundle-invalid"}


URLS = [
    *((url, True) for url in ("https://example.org/LICENSE", "http://example.org", "HTTPS://EXAMPLE.ORG/a?b#c")),
    *((url, False) for url in ("javascript:alert(1)", "file:///etc/passwd", "LICENSE", "https://", "data:text/html,x")),
]


@pytest.mark.parametrize(("url", "good"), URLS)
def test_a_license_url_is_http(tmp_path: Path, url: str, good: bool) -> None:
    """A warning on the field for anything else."""
    found = findings(tmp_path, entry(tmp_path, model(), license_url=url))
    assert [(f.code, f.severity) for f in found] == ([] if good else [("license-url", Severity.WARNING)])


ALIKE = [
    ("fr-v1", "fr_v1", True),
    ("a-_b", "a_-b", True),
    ("a__b", "a_b", True),
    ("fr-v1", "fr-v2", False),
    ("ab", "a-b", False),
]


@pytest.mark.parametrize(("first", "second", "alike"), ALIKE)
def test_ids_that_differ_by_signs_alone_are_alike(tmp_path: Path, first: str, second: str, alike: bool) -> None:
    """A warning on the second of them."""
    rows = [entry(tmp_path, model(seed=n), f"m{n}", id=name) for n, name in enumerate((first, second))]
    found = [(f.code, f.entry, f.severity) for f in findings(tmp_path, *rows)]
    assert found == ([("id-alike", second, Severity.WARNING)] if alike else [])
