"""signing.py: what signatures cost: signing, verifying, and what they add to a quick validate.

    python benchmarks/signing.py [--rounds 9] [--entries 200]

On the project's own registry, and on one of many signed entries of one file. Everything runs as a process of its own,
in turn, in one run; medians of wall time, and of processor time (user and system), which other programs disturb less.
Where model-signing, the reference implementation, is installed, it verifies the same bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "registry_tool")
ENTRY = "fr_vmaf_ensemble_v1"


def quietly(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def timed(rounds: int, commands: dict[str, tuple[object, ...]]) -> dict[str, tuple[float, float]]:
    """Name -> (median wall s, median processor s); the commands take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            quietly(*command)
            wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds[name].append((wall, used))
    return {name: tuple(map(statistics.median, zip(*all_, strict=True))) for name, all_ in seconds.items()}  # type: ignore[misc]  # two columns


def ask_for_signatures(registry: Path, public: Path, kind: str) -> None:
    """The policy of a kind names this key."""
    data = public.read_bytes()
    (registry.parent / "ci.pem").write_bytes(data)
    document = json.loads(registry.read_bytes())
    signer = {"public_key": "ci.pem", "sha256": hashlib.sha256(data).hexdigest()}
    policy = document["policies"].setdefault(kind, {"rules": [], "gate": "manual"})
    document["policies"][kind] = {**policy, "signers": [signer]}
    registry.write_text(json.dumps(document, indent=2))


def many(folder: Path, entries: int, key: Path) -> Path:
    """A registry of many smoke entries of one file, each signed through the library."""
    from registry_tool.signing.bundle import sign_statement
    from registry_tool.signing.keys import load_private_key
    from registry_tool.signing.statement import FilesStatement

    loaded = load_private_key(key, lambda: None).key
    models = []
    (folder / "many").mkdir()
    for number in range(entries):
        name = f"m{number:05d}"
        data = f"model {number}".encode()
        digest = hashlib.sha256(data).hexdigest()
        (folder / "many" / f"{name}.onnx").write_bytes(data)
        bundle = sign_statement(FilesStatement(name, {f"{name}.onnx": digest}).to_bytes(), loaded)
        path = f"{name}/signatures/s.sig"
        (folder / "many" / path).parent.mkdir(parents=True)
        (folder / "many" / path).write_bytes(bundle)
        pins = [{"bundle": path, "sha256": hashlib.sha256(bundle).hexdigest()}]
        row = {"id": name, "kind": "fr", "onnx": f"{name}.onnx", "sha256": digest, "smoke": True, "license": "MIT"}
        models.append({**row, "signatures": pins})
    registry = folder / "many" / "registry.json"
    registry.write_text(json.dumps({"schema_version": 2, "policies": {}, "models": models}, indent=2))
    return registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--entries", type=int, default=200)
    options = parser.parse_args()
    os.environ["NO_COLOR"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, public = folder / "ci.key", folder / "ci.pub"
        quietly("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        quietly("openssl", "ec", "-in", key, "-pubout", "-out", public)
        key.chmod(0o600)
        plain, signed = folder / "plain" / "registry.json", folder / "signed" / "registry.json"
        again = folder / "again" / "registry.json"
        for registry in (plain, signed, again):
            shutil.copytree(ROOT / "model", registry.parent)
        quietly(*PROGRAM, "sign", ENTRY, "--key", key, "--registry", signed)
        ask_for_signatures(signed, public, "fr_ensemble")
        crowd = many(folder, options.entries, key)
        crowd_plain = folder / "crowd_plain" / "registry.json"
        shutil.copytree(crowd.parent, crowd_plain.parent)
        ask_for_signatures(crowd, public, "fr")
        document = json.loads(crowd_plain.read_text())
        models = [{k: v for k, v in row.items() if k != "signatures"} for row in document["models"]]
        crowd_plain.write_text(json.dumps({**document, "models": models}, indent=2))
        entry = next(row for row in json.loads(signed.read_bytes())["models"] if row["id"] == ENTRY)
        run = signed.parent / Path(entry["manifest"]).parent
        bundle = signed.parent / entry["signatures"][0]["bundle"]
        quick = (*PROGRAM, "validate", "--level", "quick")
        commands: dict[str, tuple[object, ...]] = {
            "quick validate": (*quick, plain),
            "quick validate, signed and asked for": (*quick, signed),
            f"quick validate, {options.entries} entries": (*quick, crowd_plain),
            f"quick validate, {options.entries} entries, signed and asked for": (*quick, crowd),
            "sign ID": (*PROGRAM, "sign", ENTRY, "--key", key, "--registry", again),
            "verify-signature ID": (*PROGRAM, "verify-signature", ENTRY, "--public-key", public, "--registry", signed),
            "verify-signature --path": (
                *(*PROGRAM, "verify-signature", "--path", run, "--bundle", bundle, "--public-key", public),
            ),
        }
        if find_spec("model_signing") is not None:
            reference = (sys.executable, "-m", "model_signing", "verify", "key", run, "--signature", bundle)
            commands["model-signing verify, the same folder"] = (*reference, "--public_key", public)
        figures = timed(options.rounds, commands)
    print("| | wall s | processor s |\n| --- | ---: | ---: |")
    for command, (wall, used) in figures.items():
        print(f"| {command} | {wall:.3f} | {used:.3f} |")
    rows = list(figures.values())
    for what, (without, with_) in {"two entries": rows[:2], f"{options.entries} entries": rows[2:4]}.items():
        added = [1000 * (b - a) for a, b in zip(without, with_, strict=True)]
        print(f"{what}: signatures add {added[0]:.0f} ms of wall time, {added[1]:.0f} ms of processor time")


if __name__ == "__main__":
    main()
