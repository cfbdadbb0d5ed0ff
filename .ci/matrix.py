#!/usr/bin/env python3
"""matrix.py: installs the project from scratch on each Python that is there, and runs it.

    python3 .ci/matrix.py                       every Python of PYTHONS that is found, newest and lowest
    python3 .ci/matrix.py 3.12 --versions newest
    python3 .ci/matrix.py 3.11 --versions lowest --extras train

Newest: what an installer picks today, from the wheel. Lowest: each dependency at the floor that pyproject.toml names,
from the source distribution. In both the program validates and gates the shipped registry, makes an empty one and, with
the extra `train`, trains on the shipped corpus in an empty folder. It needs nothing but a Python with pip; what it
makes is in a temporary folder. --built FOLDER: packages stay there, for the next run. Exit 1: a run failed; a Python
that is not there is said and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
LOWEST_PYTHON = PYTHONS[0]  # which alone has wheels of every floor
SHORT_TRAINING = ("--epochs", 1, "--seeds", "0,1", "--no-baselines")
FLOOR_PATTERN = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<floor>[\w.]+)\Z")


def find_python(version: str) -> Path | None:
    """A Python of this version that has pip: this one, one on the PATH, or one that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = shutil.which(f"python{version}")
    candidates = [
        Path(sys.executable),
        *([Path(found)] if found else []),
        *sorted(pyenv.glob(f"{version}.*/bin/python")),
    ]
    script = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        ran = subprocess.run([candidate, "-c", script], capture_output=True, text=True, check=False)
        if (ran.returncode, ran.stdout.strip()) == (0, version):
            return candidate
    return None


def floors(extras: list[str]) -> list[str]:
    """`name==floor` of each dependency, and of those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in extras for d in project["optional-dependencies"][extra])]
    matches = [FLOOR_PATTERN.match(dependency) for dependency in wanted]
    if None in matches:
        raise SystemExit(f"pyproject.toml: expected dependencies like name>=1.2, found {wanted}")
    return [f"{match['name']}=={match['floor']}" for match in matches if match]


def run(*command: object, folder: Path | None = None) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=folder)


def new_environment(python: Path | str, folder: Path) -> Path:
    """Its interpreter. It has no pip: to unpack one takes longer than to start that of the Python."""
    run(python, "-m", "venv", "--without-pip", folder)
    return folder / "bin" / "python"


def pip(python: Path | str, environment: Path, *arguments: object) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "--python", environment, *arguments)


def build(folder: Path) -> None:
    """The source distribution and the wheel, from a copy of what git knows, so that nothing lies about."""
    source = folder / "source"
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    tools = new_environment(sys.executable, folder / "tools")
    pip(sys.executable, tools, "install", "--quiet", "--no-compile", "setuptools>=77")
    for made in ("sdist", "wheel"):
        script = f"import sys; from setuptools import build_meta as b; b.build_{made}(sys.argv[1])"
        command = [tools, "-c", script, folder / "built"]
        subprocess.run(command, check=True, cwd=source, stdout=subprocess.DEVNULL)
    (folder / "built").rename(folder / "dist")


def check(python: Path, built: Path, versions: str, extras: list[str], folder: Path) -> None:
    """Install the package into an environment of its own, and use it in an empty folder."""
    interpreter = new_environment(python, folder / "environment")
    (package,) = (built / "dist").glob("*.whl" if versions == "newest" else "*.tar.gz")
    named = f"{package}[{','.join(extras)}]" if extras else str(package)
    exact = floors(extras) if versions == "lowest" else []
    pip(python, interpreter, "install", "--quiet", "--no-compile", named, *exact)
    program, empty, trained = folder / "environment" / "bin" / "registry", folder / "empty", folder / "trained"
    empty.mkdir()
    trained.mkdir()
    run(program, "--version", folder=empty)
    run(program, "validate", ROOT / "model", folder=empty)
    run(program, "gate", "fr_vmaf_ensemble_v1", "--registry", ROOT / "model", folder=empty)
    run(program, "init", folder=empty)
    if "train" in extras:
        run(program, "train", "fr_ensemble", "--id", "vmaf", *SHORT_TRAINING, folder=trained)
        run(program, "validate", folder=trained)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=PYTHONS, metavar="PYTHON", help="such as 3.12; default: all")
    parser.add_argument("--versions", choices=["newest", "lowest"], help="of the dependencies; default: both")
    parser.add_argument("--extras", default="", help="extras to install too, such as train,sign")
    parser.add_argument("--built", type=Path, metavar="FOLDER", help="where packages are kept; default: nowhere")
    options = parser.parse_args()
    extras = [extra for extra in options.extras.split(",") if extra]
    failed, absent = [], []
    with tempfile.TemporaryDirectory() as temporary:
        built = options.built.resolve() if options.built else Path(temporary) / "built"
        if not (built / "dist").is_dir():
            build(built)
        for version in options.pythons:
            python = find_python(version)
            if python is None:
                absent.append(version)
                continue
            for versions in [options.versions] if options.versions else ["newest", "lowest"]:
                if versions == "lowest" and version != LOWEST_PYTHON:
                    continue
                folder = Path(temporary) / f"{version}-{versions}"
                folder.mkdir()
                print(f"== Python {version}, {versions} dependencies", flush=True)
                try:
                    check(python, built, versions, extras, folder)
                except subprocess.CalledProcessError as error:
                    print(f"failed: {error}", flush=True)
                    failed.append(f"{version} {versions}")
    print(f"failed: {', '.join(failed) or 'none'}; not here: {', '.join(absent) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
