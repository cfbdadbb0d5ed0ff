"""card.py: a model card in Markdown from an entry, its manifest and its verdict. Invents nothing they do not say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from registry_tool.checks.declared import HTTP_PATTERN
from registry_tool.documents.manifest import CorpusFacts, Manifest
from registry_tool.report.limits import limits, trained_encoders
from registry_tool.report.text import plain, predicted
from registry_tool.toolkit import markdown_table, markdown_text, text_table
from registry_tool.values import Entry, Json, Policy
from registry_tool.workflows.gate import Judgement

NOT_RECORDED = "not recorded"

HUB_LICENSES = ("mit", "apache-2.0", "bsd-3-clause", "bsd-2-clause", "cc-by-nc-4.0", "cc-by-4.0")


def card(
    entry: Entry, manifest: Mapping[str, Json], policy: Policy, judgement: Judgement | None, reason: str = ""
) -> Iterator[str]:
    """The lines of a card; front matter as the Hugging Face hub reads it. reason: why nothing could be judged.

    A manifest's fields are its plugin's own: what has another shape than the card knows is not recorded.
    """
    facts = Manifest.of(manifest)
    corpus = facts.corpus
    yield from ("---", *_license(entry), "library_name: onnx", "tags:", f"- {entry.kind}")
    yield from ("- model-registry", f"model_name: {entry.id}", "---", "", f"# {entry.id}", "")
    state = "smoke: a load-path probe, not for use" if entry.smoke else "production"
    yield from (str(entry.document.get("description", f"An entry of kind `{entry.kind}`.")), "")
    summary = {
        "State": state,
        "Kind": f"`{entry.kind}`",
        "Licence": _license_link(entry),
        "Pinned file": f"`{entry.path}`",
        "sha256": f"`{entry.sha256}`",
        "Target": NOT_RECORDED if facts.target is None else predicted(facts.target, quote="`"),
        "Inputs": _names(facts.inputs),
        "Encoders": _names(facts.encoders),
        "Trained encoders": ", ".join(f"`{name}`" for name in trained_encoders(manifest)) or NOT_RECORDED,
        "Trained on": NOT_RECORDED if corpus is None else _trained_on(corpus),
        **({} if facts.calibration is None else {"Calibrated on": plain(str(facts.calibration))}),
        "Rows digest": f"`{corpus.rows_sha256}`" if corpus and corpus.rows_sha256 else NOT_RECORDED,
    }
    yield from markdown_table([["", ""], *([name, str(value)] for name, value in summary.items())])
    yield from ("", "## What the evidence shows", "")
    if judgement is None:
        yield (
            f"Nothing was measured: {markdown_text(reason)}."
            if reason
            else "The kind has no gate: nothing was measured."
        )
    else:
        verdict = judgement.verdict
        yield f"Judged by the policy in the registry: **{verdict.decision}**."
        yield ""
        rules = {rule.metric: f"{rule.op} {rule.bound:g}" for rule in policy.rules}
        rows = [[name, f"{value:.6g}", rules.get(name, "")] for name, value in sorted(verdict.metrics.items())]
        yield from markdown_table([["metric", "value", "rule"], *rows], right=[1])
        if verdict.reasons:
            yield from ("", "Why it is held:", "", *(f"- {_line(reason)}" for reason in verdict.reasons))
        if verdict.warnings:
            yield from ("", "What to look at:", "", *(f"- {_line(warning)}" for warning in verdict.warnings))
        if judgement.evidence is not None and judgement.evidence.notes:
            yield from ("", "To read it by:", "", *(f"- {markdown_text(note)}" for note in judgement.evidence.notes))
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
    if found := list(limits(entry, manifest, judgement)):
        yield from ("", "## Limits", "", *(f"- {_line(limit)}" for limit in found))
    yield from ("", "## Use", "", "```console", f"$ registry predict {entry.id} --corpus rows.csv", "```")


def _line(sentence: str) -> str:
    """A sentence with names of sources and encoders, which begin no tag and no picture; its commands stay code."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", sentence).replace("![", "!\\[")


def _license(entry: Entry) -> Iterator[str]:
    """The front matter's licence: an identifier that the hub knows, else `other` with its name and link."""
    name = str(entry.document.get("license", ""))
    if name.lower() in HUB_LICENSES:
        yield f"license: {name.lower()}"
        return
    yield "license: other"
    if name:
        yield f"license_name: {json.dumps(name)}"
    if url := _url(entry):
        yield f"license_link: {json.dumps(url)}"


def _license_link(entry: Entry) -> str:
    name, url = str(entry.document.get("license", "")), _url(entry)
    if not name:
        return NOT_RECORDED
    return f"[{markdown_text(name)}](<{url}>)" if url else markdown_text(name)


def _url(entry: Entry) -> str | None:
    """Where the licence's text is; nothing but http(s), and nothing that ends a link in Markdown."""
    url = entry.document.get("license_url")
    return url if isinstance(url, str) and HTTP_PATTERN.match(url) and not set(url) & set("<>\\") else None


def _trained_on(corpus: CorpusFacts) -> str:
    rows = f"{corpus.n_rows} rows, {len(corpus.sources)} sources"
    return rows if corpus.name is None else f"{corpus.name}: {rows}"


def _names(items: Sequence[Json]) -> str:
    return ", ".join(f"`{plain(item)}`" for item in items) or NOT_RECORDED
