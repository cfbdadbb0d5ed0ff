"""environments.py: environments, and the packages that pip finds in them without a network. Asserts nothing."""

from __future__ import annotations

import re
import sys
import sysconfig
import venv
from pathlib import Path

PIP_OR_PROJECT = re.compile(r"pip\b|pip-|registry|__|.*\.pth$")


def site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def link_packages(folder: Path, site: Path | None = None) -> Path:
    """A folder of links to what is installed in `site`, or for the tests, but pip and this project.

    pip finds requirements there, and cannot change them: they are outside of the environment that it installs into.
    """
    folder.mkdir()
    for item in (site or Path(sysconfig.get_path("purelib"))).iterdir():
        if not PIP_OR_PROJECT.match(item.name):
            (folder / item.name).symlink_to(item)
    return folder


def add_packages(environment: Path, packages: Path) -> None:
    """A path to these packages, which `python3 -m venv` keeps where it makes the environment afterwards."""
    site = site_packages(environment)
    site.mkdir(parents=True, exist_ok=True)
    (site / "packages.pth").write_text(f"{packages}\n")


def make_environment(folder: Path, packages: Path) -> Path:
    """An environment with these packages, and a `pip` that is the tests' own: to unpack another takes seconds."""
    venv.create(folder, with_pip=False, symlinks=True)
    add_packages(folder, packages)
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{folder}/bin/python" "$@"\n')
    pip.chmod(0o755)
    return folder
