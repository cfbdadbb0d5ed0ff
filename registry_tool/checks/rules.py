"""rules.py: every finding code of the core and of the first-party plugin, explained. Judges nothing, reads nothing.

`registry rule CODE` prints from this table, and `python -m registry_tool.rules > docs/findings.md` writes the document.
A new code takes one entry below; a test fails where a code has none, and where nothing gives an entry's code any more.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from registry_tool.errors import InputError
from registry_tool.values import Severity

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@dataclass(frozen=True, slots=True)
class FindingRule:
    """What a code means. title: what was found. why: what could go wrong. fix: what to do. example: how it looks."""

    code: str
    severity: Severity
    title: str
    why: str
    fix: str
    example: str


R = FindingRule
# fmt: off
GROUPS: Mapping[str, tuple[FindingRule, ...]] = MappingProxyType({
"Documents": (
R("json-syntax", ERROR, "A document is not JSON",
  "A reader stops here, or guesses.", "Correct it at the line and column named.", "a comma after the last element"),
R("json-duplicate-key", ERROR, "A key stands twice in one object",
  "Some readers take the first, some the last: two people see two documents.", "Keep one of them.",
  '{"smoke": true, "smoke": false}'),
R("json-not-finite", ERROR, "A number is NaN, infinite, or too large to be finite",
  "Comparisons with NaN are all false, so that limits stop limiting; JSON has no such number.",
  "Write a finite number, or null where the format takes it.", '"plcc": NaN'),
R("json-huge-number", ERROR, "A number has more digits than any value needs",
  "Readers round it differently, or spend minutes on it.", "Write the number it stands for.", '"bytes": 1000...000'),
R("json-bom", ERROR, "A document starts with a byte order mark",
  "Readers disagree on whether it belongs to the text.", "Save it as UTF-8 without BOM.", "bytes EF BB BF before {"),
R("json-not-utf8", ERROR, "A document is not UTF-8",
  "Readers that guess another encoding see other names.", "Save it as UTF-8.", "an id in Latin-1"),
R("json-control-character", ERROR, "A text holds control, invisible or direction-changing characters",
  "It shows as something that it is not.", "Delete the character named.", '"id": "fr\\u202e_v1"'),
R("json-too-deep", ERROR, "A document is nested too deeply",
  "Reading it could exhaust the stack.", "Flatten it; no format here needs 32 levels.", "100,000 opening brackets"),
R("json-too-large", ERROR, "A document is too large, or holds too many values",
  "Reading it could exhaust memory.", "Move data out of it.", "a manifest of 40 MiB"),
R("schema-required", ERROR, "A field is missing",
  "Readers rely on it.", "Add the field named.", "an entry without sha256"),
R("schema-unknown-field", ERROR, "A field is not known here",
  "A misspelt field is silently ignored by whoever reads it.", "Correct the name, or remove it.", '"smokes": true'),
R("schema-type", ERROR, "A value has the wrong type",
  "A text for a number passes comparisons it should fail.", "Write the type named.", '"smoke": "false"'),
R("schema-value", ERROR, "A value has the wrong form, length or range",
  "It means nothing, or something else to another reader.", "Write a value of the form named.", '"opset": 99'),
R("schema-choice", ERROR, "None, or several, of an either-or are given",
  "It is unclear which one counts.", "Keep exactly one.", "an entry with both onnx and manifest"),
R("registry-version", ERROR, "The registry has an unknown schema_version",
  "Rules of another version would be applied to it.", "Use a registry-tool that knows it, or correct the number.",
  '"schema_version": 3'),
R("id-duplicate", ERROR, "Two entries have one id",
  "Which one loads depends on the reader; ids that differ in case or Unicode form only count as one.",
  "Give one of them another id.", "fr_v1 twice"),
R("kind-unknown", ERROR, "Nobody owns this kind",
  "What nobody knows, nobody checks.", "Install the plugin that owns it, or correct the kind.",
  '"kind": "fr_ensembel"'),
R("kind-form", ERROR, "An entry names an ONNX file where its kind has a manifest, or the other way round",
  "The kind's owner looks at the other one, so nobody would look at this.",
  "Correct the kind, or register the model as its kind asks.", '"kind": "fr" with a manifest'),
R("entry-disagrees", ERROR, "The registry and a manifest or sidecar disagree on id, kind or smoke",
  "A runtime that reads the other one loads something else.", "Correct the one that is wrong.",
  "smoke: true in the manifest, false in the registry"),
R("license-missing", WARNING, "An entry names no license",
  "Nobody can tell whether the model may be shipped.", "Add its SPDX identifier.",
  '"license": "BSD-3-Clause-Plus-Patent"'),
),
"Files": (
R("file-missing", ERROR, "A named file is not there",
  "Whoever loads the entry fails.", "Restore the file, or correct the path.", "model.onnx deleted"),
R("file-escapes", ERROR, "A path leaves the registry's folder, or has a second spelling",
  "It could name any file of the machine.", "Write a plain relative path with /.", "../../etc/passwd"),
R("file-is-symlink", ERROR, "A symbolic link stands in a file's place",
  "It can point elsewhere tomorrow, on this machine or on another.", "Put the file itself there.",
  "model.onnx -> /tmp/m"),
R("file-not-regular", ERROR, "A folder, fifo, socket or device stands in a file's place",
  "Reading it could block for ever.", "Put a regular file there.", "mkfifo model.onnx"),
R("file-too-large", ERROR, "A file is larger than its limit",
  "Reading it could exhaust memory.", "Ship a smaller file, or raise `max_file_bytes` in the kind's policy.",
  "an ONNX file of 2 GiB"),
R("entry-too-large", ERROR, "The files of one entry are larger together than four times the limit of one",
  "They are held in memory while it is checked.", "Split the entry, or raise `max_file_bytes` in the kind's policy.",
  "an ensemble of five members of 45 MiB"),
R("file-too-many", ERROR, "The registry's folder holds too much to look at",
  "Files could hide among the others.", "Keep the registry in a folder of its own.", "a registry beside node_modules"),
R("file-unreadable", ERROR, "A file cannot be read",
  "What cannot be read cannot be checked.", "Check its owner, its mode and the disk.", "permission denied"),
R("file-changed-while-reading", ERROR, "Somebody wrote to a file while it was read",
  "What was checked is not what is there.", "Run it again when nothing writes there.", "two trainings in one folder"),
R("file-lfs-pointer", ERROR, "A Git-LFS pointer stands in a model's place",
  "The model itself was never fetched.", "Run `git lfs pull`.", "version https://git-lfs..."),
R("file-unregistered", WARNING, "A model or artefact lies in the folder and nothing pins it",
  "Somebody may load it by name; no one checks it.", "Register it, or remove it.", "old_model.onnx"),
R("folder-unused", NOTE, "No entry names this run's folder",
  "It only takes room.", "`registry prune` removes it.", "ens_v1/3f9c0a7b21de"),
R("folder-wrong", ERROR, "An entry's artefacts do not stand in the folder of its id and digest",
  "Artefacts are immutable; a folder that does not say its digest was edited by hand.",
  "Train again, or restore the folder.", "ens_v1/latest/manifest.json"),
R("name-collision", ERROR, "Two names are one on other file systems",
  "A checkout on macOS or Windows keeps only one of the files.", "Rename one.", "Model.onnx and model.onnx"),
),
"Pins": (
R("digest-mismatch", ERROR, "A file's sha256 is not the pinned one",
  "The bytes are not those that were reviewed and judged.", "Restore the file, or train or pin it again.",
  "one byte of the ONNX file changed"),
R("size-mismatch", ERROR, "A file's size is not the pinned one",
  "The pin was edited by hand.", "Correct the number.", '"bytes": 0'),
R("pin-missing", ERROR, "A manifest names a file without its sha256",
  "That file can be replaced unseen.", "Add the sha256, or train again.", '{"onnx": "seed0.onnx"}'),
R("pin-conflict", ERROR, "A manifest pins one file twice, differently, or an entry pins one twice",
  "One of the pins is wrong.", "Train again.", "seed0.onnx with two digests"),
R("pin-unread", ERROR, "An entry with a manifest carries a pin that only single models have",
  "Nothing reads it: whoever trusts it is misled.", "Remove it; the manifest pins every file.",
  '"int8_sha256" beside "manifest"'),
R("sidecar-unpinned", ERROR, "A sidecar lies beside a model of version 2 and nothing pins it",
  "A runtime scales its inputs by what stands there; anybody can edit it unseen.",
  "Add `sidecar_sha256` to the entry, or remove the sidecar.", "m.json beside m.onnx"),
R("bundle-missing", WARNING, "A declared signature bundle is not there",
  "The model cannot be verified by its signature; before a release that is expected.", "Sign it at its release.",
  "model.onnx.sigstore.json"),
),
"Promotion": (
R("promotion-missing", ERROR, "An entry is production and nothing says why",
  "Somebody set smoke to false by hand.", "Set it back to true and run `registry flip ID`.", '"smoke": false'),
R("promotion-on-smoke", ERROR, "A smoke entry carries a promotion",
  "Half of a flip, or of a demotion, was done by hand.", "Remove it, or flip the entry.", "smoke: true with a verdict"),
R("promotion-random-rows", ERROR, "A model of random rows is production",
  "It measures nothing.", "Set smoke to true and train on a corpus.", "train --smoke, flipped by hand"),
R("promotion-kind", ERROR, "The entry was promoted in a way that its kind does not allow",
  "It goes round the gate.", "Set smoke to true and run `registry flip ID`.", "manual: true for an ensemble"),
R("verdict-holds", ERROR, "The pinned verdict promotes nothing",
  "HOLD, or summary-only evidence, never makes production.", "Demote the entry.", '"verdict": "HOLD"'),
R("verdict-other", ERROR, "The pinned verdict judges another entry, manifest or evidence",
  "It says nothing about these bytes.", "Demote the entry and flip it again.", "a verdict copied from ens_v1"),
R("verdict-disagrees", ERROR, "The verdict's figures are not those of the evidence",
  "The verdict was edited, or the evidence was.", "Demote the entry and flip it again.",
  "mean_plcc 0.97, recomputed 0.93"),
R("policy-looser", ERROR, "The policy was loosened after the entry was judged",
  "The next entry would pass a lower bar unseen.", "Restore the policy, or flip again under it.",
  ">= 0.95 made >= 0.5"),
R("policy-not-met", ERROR, "The evidence of a production entry does not clear the policy",
  "It ships and should not.", "Demote it, or train again.", "mean_plcc 0.93, >= 0.95 asked"),
),
"ONNX": (
R("onnx-unreadable", ERROR, "A file is no ONNX model, or beyond the limits",
  "What cannot be read cannot be checked.", "Restore the file, or export it again.", "the last bytes are cut off"),
R("onnx-protobuf", ERROR, "Protobuf content that ONNX does not define, or fields given twice",
  "One reader sees it and another does not: data hides there.", "Export the model again.",
  "bytes after the model's end"),
R("onnx-function", ERROR, "Model-local functions",
  "They give known operator names another meaning.", "Export it without functions.", "a function named Relu"),
R("onnx-training", ERROR, "Training information beside the graph",
  "A second graph that nobody looks at.", "Export the model for inference.", "training_info"),
R("onnx-tensor", ERROR, "A tensor's bytes do not fit its type and shape",
  "Readers cut or pad it differently.", "Export the model again.", "24 bytes for float32 [7]"),
R("onnx-not-finite", ERROR, "NaN or infinity among the weights",
  "Scores become NaN, for all inputs or for some.", "Export the model again.", "a weight of inf"),
R("onnx-unused", WARNING, "Tensors that nothing in the graph reads",
  "Dead weight, or something hidden.", "Export the model again.", "an initializer named blob"),
R("onnx-metadata", ERROR, "More text than a model needs",
  "Metadata carries files past review.", "Strip metadata and documentation strings.", "100 kB in metadata_props"),
R("onnx-no-input", ERROR, "The graph takes no input", "It scores nothing.", "Export the model again.", "a constant"),
R("onnx-no-output", ERROR, "The graph gives no output",
  "It scores nothing.", "Export the model again.", "outputs removed"),
R("onnx-domain", ERROR, "Operators of another domain, at any depth",
  "They run code of whoever registered the domain.", "Export it with standard operators.",
  "com.example::Relu in an If"),
R("onnx-domain-unused", WARNING, "The model imports a domain that no node uses",
  "Runtimes without that domain refuse the model.", "Remove the import.", "com.microsoft"),
R("onnx-operator", ERROR, "Operators outside the kind's list, at any depth",
  "Small quality models need plain tensor operators; random numbers and the like make scores that change.",
  "Replace them, or export the model otherwise.", "RandomNormal in a Loop"),
R("onnx-loop", ERROR, "A Loop runs without a constant, small number of rounds",
  "An input could make it run for ever.", "Fix the number of rounds.", "a trip count computed from the input"),
R("onnx-allocation", ERROR, "A constant asks for a huge tensor",
  "Loading a file of a few bytes takes all memory.", "Export the model again.", "ConstantOfShape of 2^40"),
R("onnx-opset", ERROR, "The opset is missing or outside 7 to 21",
  "Operators change meaning between opsets.", "Export the model with an opset of this range.", "opset 6"),
R("onnx-opset-disagrees", ERROR, "The registry or sidecar says another opset or IR version than the model",
  "A runtime that relies on it refuses the model, or is surprised.", "Correct the number.", "16 for 17"),
R("onnx-external-escapes", ERROR, "Weights at a path that leaves the model's folder",
  "The model could read any file of the machine. It was not opened.", "Export it with its weights inside.",
  "../w.data"),
R("onnx-external-unpinned", ERROR, "Nothing pins the file that holds the weights",
  "They can be replaced or zeroed while every digest holds.", "`registry migrate` pins it.", "model.onnx.data"),
R("onnx-external-unreadable", ERROR, "The file that holds the weights cannot be read",
  "The model does not load.", "Restore the file.", "model.onnx.data deleted, or a link"),
R("onnx-external-checksum", ERROR, "The file with the weights is not the one its checksums name",
  "The weights were replaced.", "Restore the file, or export the model again.", "another SHA-1"),
R("onnx-external-weak", WARNING, "Only SHA-1 pins the file with the weights",
  "Two files with one SHA-1 can be made on purpose.", "`registry migrate` pins it by sha256.", "checksum in version 1"),
R("onnx-external-range", ERROR, "A tensor's range leaves the file with the weights, or overlaps others",
  "Readers fail, or read other bytes; one region named often is many copies in memory.", "Export the model again.",
  "offset 999999 in a file of 24 bytes"),
R("onnx-invalid", ERROR, "onnx's own checker refuses the model",
  "Runtimes refuse it, or guess.", "Export the model again.", "a node reads a name that nothing makes"),
R("onnx-shapes", ERROR, "Types or shapes in the graph do not fit together",
  "It fails on the first row.", "Export the model again.", "6 features into a layer of 5"),
R("onnx-int8-ports", ERROR, "The int8 variant has other inputs or outputs than the model it stands in for",
  "A runtime that switches between the two fails, or feeds columns in the wrong place.",
  "Quantise the very model that the entry pins.", "features float32 [?, 5] beside features float32 [?, 6]"),
R("onnx-probe-refused", ERROR, "onnxruntime does not load the model, or does not run it once",
  "Whoever loads it fails.", "Export the model again.", "a Reshape that never fits"),
R("onnx-probe-memory", ERROR, "The model asks for more than 1 GiB beside onnxruntime's own memory",
  "A runtime that loads it is killed, or the machine swaps.", "Export the model again.", "an Expand to 2^40 elements"),
R("onnx-probe-time", ERROR, "The model does not finish within 10 s of processor time",
  "A runtime that runs it stands still.", "Export the model again.", "a Loop within a Loop"),
R("onnx-probe-crashed", ERROR, "The model ends the process that runs it",
  "It ends a runtime too, or does worse.", "Do not load it; report it to onnxruntime.", "signal 11"),
),
"Sidecars": (
R("sidecar-missing", ERROR, "A production model has no sidecar",
  "Nobody knows what to feed it; of a model that `registry migrate` imported it is a warning.",
  "Add `<name>.json`, or set smoke to true.", "fr_v1.onnx without fr_v1.json"),
R("sidecar-disagrees", ERROR, "The registry and the sidecar say different things",
  "One of them describes another model.", "Correct the one that is wrong.", "another sha256"),
R("sidecar-features", ERROR, "The sidecar's features or their statistics are unusable",
  "Inputs would be scaled wrongly: scores look plausible and are not.", "Export the sidecar again.",
  "five means for six features; a deviation of 0"),
R("sidecar-codec", ERROR, "The sidecar's vocabulary and its codec layout disagree",
  "An encoder's slot would be another encoder's.", "Export the sidecar again.", "12 names, 6 one-hot columns"),
R("sidecar-inputs", ERROR, "The sidecar names other inputs than the model",
  "A runtime that follows it fails.", "Correct the sidecar.", '["x"] for ["features"]'),
R("sidecar-outputs", ERROR, "The sidecar names other outputs than the model",
  "A runtime that follows it fails, or reads another tensor.", "Correct the sidecar.", '["mu"] for ["score"]'),
R("sidecar-width", ERROR, "An input of the model is not as wide as its names in the sidecar",
  "The documented query fails in the runtime.", "Write what the model was trained with.", "6 slots for 14 columns"),
),
"Loose manifests (version 1)": (
R("loose-member-unregistered", ERROR, "A manifest's member has no entry",
  "It ships unchecked.", "Register it, or remove it from the manifest.", "seed5 without a row"),
R("loose-member-unlisted", ERROR, "A member's sidecar names an ensemble whose manifest does not list it",
  "The manifest is gone, or a member was taken out of it: the ensemble that was judged is another one.",
  "Restore the manifest, or correct the sidecar.", "e_seed4 with ensemble_id e, which lists four members"),
R("loose-member-disagrees", ERROR, "A manifest and a member's entry or sidecar disagree",
  "One of them describes another file.", "Correct the one that is wrong.", "another sha256, seed or ensemble_id"),
R("loose-sidecar-disagrees", ERROR, "A manifest's features or vocabulary are not those of its members' sidecars",
  "Members would be fed what they were not trained on.", "Write what the members were trained with.",
  "feature_mean of an older run"),
R("loose-codec-width", ERROR, "The vocabulary does not fill the members' codec input",
  "The documented query fails in the runtime.", "Write what the members were trained with.", "6 encoders, 14 columns"),
R("loose-smoke-mismatch", ERROR, "A manifest and its members' entries disagree on smoke",
  "Whoever reads the other one ships, or does not.", "Correct it: the registry decides.", "smoke: true, rows false"),
R("loose-verdict", WARNING, "A verdict that nothing pins, or that names no digest of what it judged",
  "It fits any model: it is summary only, and promotes nothing.", "`registry flip` writes one that can be checked.",
  '"sha256": null'),
),
"Ensembles": (
R("ensemble-size", ERROR, "ensemble_size is not the number of members",
  "The manifest was edited.", "Train again, or restore it.", "5 for 4 members"),
R("ensemble-member-twice", ERROR, "Two members share an id, seed, file, digest or weights",
  "An ensemble of copies has no spread: sigma means nothing.", "Train again with distinct seeds.", "--seeds 0,0,0"),
R("ensemble-width", ERROR, "Features, statistics, codec block and graph inputs differ in number",
  "Rows would be fed into the wrong columns.", "Train again, or restore the files.", "five means for six features"),
R("ensemble-scale", ERROR, "A feature's deviation is not positive",
  "Scaling divides by it.", "Train again.", '"feature_std": [0, ...]'),
R("ensemble-constant", ERROR, "The manifest says of ports, one-hot slots or sigma what no ensemble of this kind has",
  "A reader that believes it binds the wrong tensor, or scales what must stay 0 or 1.", "Train again, or restore it.",
  '"outputs": ["mu"] for a member'),
R("ensemble-vocabulary", ERROR, "The vocabulary is not the one of its version",
  "An encoder's slot would be another encoder's.", "Train again, or restore the manifest.", "version 2 with six names"),
R("ensemble-recipe", ERROR, "The recipe cannot be read, or is not the one its digest names",
  "The evidence was made another way than it says.", "Train again.", "epochs edited after training"),
R("ensemble-seeds", ERROR, "The members' seeds are not those of the recipe",
  "Members were swapped or added.", "Train again.", "seed 7 among 0 to 4"),
R("ensemble-graph", ERROR, "A member is not a graph that this plugin writes",
  "Members are compared byte for byte with the graph of their weights.", "Train again.", "a node added by hand"),
R("ensemble-fused", ERROR, "The fused graph is not made of these members and this scaler",
  "The runtime would run another ensemble than the one judged.", "Train again, or restore it.", "a stale fused.onnx"),
R("ensemble-probe", ERROR, "The graph no longer gives the probe's mu or sigma",
  "The graph, or the runtime, computes something else than at training.", "Train again.", "sigma halved"),
R("intervals-unusable", ERROR, "The intervals cannot be read or calibrated again",
  "Coverage is promised on nothing.", "Train again.", "a quantile as text"),
R("intervals-disagree", ERROR, "The intervals are not those of the out-of-fold predictions",
  "They were narrowed by hand, or belong to another run.", "Train again.", "a smaller q at 95 %"),
),
"Changes": (
R("base-entry-deleted", ERROR, "A change deletes an entry that was production",
  "Whoever loads it fails, and nothing says why it went.",
  "Demote it first, with a reason; remove it in a later change.", "fr_v1 gone from models"),
R("base-demotion-unexplained", ERROR, "A change turns a production entry to smoke without saying why",
  "A demotion tells the next reader what was wrong; by hand it tells nothing.",
  "Restore the entry, then run `registry flip ID --demote --reason ...`.", "smoke: true set by hand"),
R("base-policy-loosened", ERROR, "A change loosens a policy under a production entry, or flips one under it",
  "A bar that is lowered and cleared in one go is no bar.", "Land the policy first, alone, where a reviewer sees it.",
  ">= 0.95 made >= 0.5, with a flip"),
R("base-import-unknown", ERROR, "An import that the registry at the base knows nothing of",
  "Anybody can type a digest: only what was production in the old registry may be imported as such.",
  "Set smoke to true and flip it.", "imported_from on an entry that was smoke"),
),
"Migration": (
R("migration-not-joined", WARNING, "A loose manifest was not joined with its members' entries",
  "The members stay entries of their own; what the manifest says of them is left behind.",
  "Correct what is named, or train the ensemble again.", "a member whose file is gone"),
),
"Evidence": (
R("evidence-unusable", ERROR, "The evidence cannot be read or recomputed",
  "A promotion that cannot be checked again is none.", "Restore the files, or train again.", "oof.npz cut off"),
R("evidence-problem", ERROR, "The evidence is unfit to promote anything",
  "A missing fold or seed, a repeated one, an impossible PLCC: figures over it mean nothing.", "Train again.",
  "a source in its own training fold"),
R("evidence-files", ERROR, "Evidence files and seeds do not match",
  "A seed without evidence, or evidence of no seed.", "Train again.", "loso_seed3.json missing"),
R("evidence-disagrees", ERROR, "Stored figures are not those of the predictions",
  "A summary was edited.", "Train again.", "mean_plcc 0.99, recomputed 0.93"),
),
"Plugins": (
R("plugin-failed", ERROR, "A plugin failed on this entry",
  "What it would have found is unknown, so the entry is not valid.", "Report it to the plugin's author.",
  "KeyError: 'eval'"),
R("plugin-not-loaded", ERROR, "An installed plugin does not load",
  "What it would have found is unknown, so nothing that needs it runs; the exit code is 3.",
  "Repair or uninstall the plugin; `registry plugins` says what is wrong.", "sys.exit(0) in its module"),
),
})
# fmt: on
RULES: Mapping[str, FindingRule] = MappingProxyType({rule.code: rule for rules in GROUPS.values() for rule in rules})


def explain(code: str) -> str:
    """A code in a few lines. Raises InputError, with near misses, for one that is not in the table."""
    rule = RULES.get(code)
    if rule is None:
        near = ", ".join(difflib.get_close_matches(code, RULES, 3, 0.4)) or "`registry rule` lists them"
        raise InputError(f"rule {code!r}: unknown, expected a finding's code: {near}; a plugin documents its own codes")
    return (
        f"{rule.code} ({rule.severity}): {rule.title}.\n\n"
        f"  Why it matters:  {rule.why}\n  What to do:      {rule.fix}\n  For example:     {rule.example}"
    )


def listing() -> str:
    """All codes with their severity and title, group by group."""
    width = max(map(len, RULES))
    blocks = []
    for group, rules in GROUPS.items():
        blocks.append("\n".join([group, *(f"  {r.code:{width}}  {r.severity:7}  {r.title}" for r in rules)]))
    return "\n\n".join(blocks)


def section(rule: FindingRule) -> Iterator[str]:
    """A rule in Markdown, without its heading: in docs/findings.md, and the help that SARIF viewers show."""
    yield from (f"{str(rule.severity).capitalize()}: {rule.title}. {rule.why}", "")
    yield from (f"- What to do: {rule.fix}", f"- For example: `{rule.example}`")


def markdown() -> str:
    """docs/findings.md."""
    return "\n".join(_markdown()) + "\n"


def _markdown() -> Iterator[str]:
    yield from (
        "# Findings", "",
        "Every finding of `registry validate` has a code that stays the same, and says where, what was found, what was",
        "expected and what to do. An error fails the run (exit 1), a warning does so with `--strict`, a note never.",
        "`registry rule CODE` prints one of these. Generated: `python -m registry_tool.rules > docs/findings.md`.",
    )  # fmt: skip
    for group, rules in GROUPS.items():
        yield from ("", f"## {group}")
        for r in rules:
            yield from ("", f"### `{r.code}`", "", *section(r))


if __name__ == "__main__":
    print(markdown(), end="")
