"""card.py: a model card in Markdown from an entry, its manifest and its verdict. Invents nothing they do not say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from registry_tool.documents.manifest import CorpusFacts, Manifest
from registry_tool.report.text import plain, predicted
from registry_tool.toolkit import markdown_table, text_table
from registry_tool.values import Entry, Json, Policy
from registry_tool.workflows.gate import Judgement

NOT_RECORDED = "not recorded"


def card(entry: Entry, manifest: Mapping[str, Json], policy: Policy, judgement: Judgement | None) -> Iterator[str]:
    """The lines of a card; front matter as the Hugging Face hub reads it.

    A manifest's fields are its plugin's own: what has another shape than the card knows is not recorded.
    """
    facts = Manifest.of(manifest)
    corpus = facts.corpus
    yield from ("---", f"license: {_license(entry)}", "library_name: onnx", "tags:", f"- {entry.kind}")
    yield from ("- model-registry", f"model_name: {entry.id}", "---", "", f"# {entry.id}", "")
    state = "smoke: a load-path probe, not for use" if entry.smoke else "production"
    yield from (str(entry.document.get("description", f"An entry of kind `{entry.kind}`.")), "")
    summary = {
        "State": state,
        "Kind": f"`{entry.kind}`",
        "Licence": entry.document.get("license", NOT_RECORDED),
        "Pinned file": f"`{entry.path}`",
        "sha256": f"`{entry.sha256}`",
        "Target": NOT_RECORDED if facts.target is None else predicted(facts.target, quote="`"),
        "Inputs": _names(facts.inputs),
        "Encoders": _names(facts.encoders),
        "Trained on": NOT_RECORDED if corpus is None else _trained_on(corpus),
        "Rows digest": f"`{corpus.rows_sha256}`" if corpus and corpus.rows_sha256 else NOT_RECORDED,
    }
    yield from markdown_table([["", ""], *([name, str(value)] for name, value in summary.items())])
    yield from ("", "## What the evidence shows", "")
    if judgement is None:
        yield "The kind has no gate: nothing was measured."
    else:
        verdict = judgement.verdict
        yield f"Judged by the policy in the registry: **{verdict.decision}**."
        yield ""
        rules = {rule.metric: f"{rule.op} {rule.bound:g}" for rule in policy.rules}
        rows = [[name, f"{value:.6g}", rules.get(name, "")] for name, value in sorted(verdict.metrics.items())]
        yield from markdown_table([["metric", "value", "rule"], *rows], right=[1])
        if verdict.reasons:
            yield from ("", "Why it is held:", "", *(f"- {reason}" for reason in verdict.reasons))
        if verdict.warnings:
            yield from ("", "What to look at:", "", *(f"- {warning}" for warning in verdict.warnings))
        if judgement.evidence is not None and (table := judgement.evidence.table):
            yield from (
                "",
                "Each source predicted by models that never saw it:",
                "",
                "```",
                *text_table(table.rows),
                "```",
            )
    if facts.recipe is not None:
        yield from ("", "## How it was made", "")
        yield from markdown_table([["", ""], *([name, str(value)] for name, value in sorted(facts.recipe.items()))])
        made = ", ".join(f"{name} {version}" for name, version in facts.environment.items())
        yield from ("", f"Environment: {made or NOT_RECORDED}.")
    yield from ("", "## Use", "", "```console", f"$ registry predict {entry.id} --corpus rows.csv", "```")


def _license(entry: Entry) -> str:
    """An SPDX identifier the hub knows, else `other`."""
    name = str(entry.document.get("license", "")).lower()
    return (
        name if name in ("mit", "apache-2.0", "bsd-3-clause", "bsd-2-clause", "cc-by-nc-4.0", "cc-by-4.0") else "other"
    )


def _trained_on(corpus: CorpusFacts) -> str:
    rows = f"{corpus.n_rows} rows, {len(corpus.sources)} sources"
    return rows if corpus.name is None else f"{corpus.name}: {rows}"


def _names(items: Sequence[Json]) -> str:
    return ", ".join(f"`{plain(item)}`" for item in items) or NOT_RECORDED
