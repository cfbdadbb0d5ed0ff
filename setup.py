"""setup.py: which packages the distribution holds: those that are found, and the schemas. Else: pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["registry_tool*"]), *find_packages("plugins"), "registry_tool.schemas"],
    package_dir={"fr_ensemble": "plugins/fr_ensemble", "registry_tool.schemas": "schemas"},
)
