"""verify.py: what is checked of an ensemble, and in which order. Trusts no number it can recompute."""

from __future__ import annotations

from collections.abc import Iterator

from fr_ensemble.artifacts.manifest import is_current
from registry_tool.findings import Finding
from registry_tool.hookspec import EntryView, Level


def verify(view: EntryView, level: Level) -> Iterator[Finding]:
    """The manifest first; at Level.FULL the graphs, the probe and the evidence, each only where the checks before pass.

    A quick check loads no onnx.
    """
    from fr_ensemble.checks.manifest import check_manifest

    manifest = view.manifest
    if manifest is None:
        return
    found = list(check_manifest(view, manifest))
    yield from found
    if level is Level.QUICK or found:
        return
    if not is_current(manifest):
        from fr_ensemble.checks.migrated import check_migrated

        yield from check_migrated(view, manifest)
        return
    from fr_ensemble.checks.evidence import check_evidence
    from fr_ensemble.checks.graphs import check_graphs, check_probe

    found = list(check_graphs(view, manifest))
    yield from found
    if not found:
        yield from check_probe(view, manifest)
    yield from check_evidence(view, manifest)
