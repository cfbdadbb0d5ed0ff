"""test_hints.py: what a message says to type is typed where the message is printed, and does what it says.

`OLD`, `NEW` and `...` are replaced as a reader would; the commands are typed in the registry's folder.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from migrating import ensemble
from places import ROOT
from policies import MANUAL, rules, set_bound, set_policy
from repository import commit, git, own_git  # noqa: F401 (own_git is a fixture)
from sandbox import to_json
from situations import COMMAND, WORDS, Place
from sources import tree_of, walked
from tiny_models import entry, external, model, sidecar

from registry_tool.plugins.manager import load
from registry_tool.workflows import explain

pytestmark = pytest.mark.usefixtures("own_git")
EVERY = [rule for group in explain.declared(load()) for rule in group.rules]
VALIDATE, BASE = "validate", "gate --base HEAD --registry"


@dataclass(frozen=True, slots=True)
class Given:
    """A finding: how it comes about, the command that prints it, and what its hint asks for besides commands."""

    code: str
    make: Callable[[Place], object]
    command: str = VALIDATE
    by_hand: Callable[[Place], object] = lambda place: None
    variant: str = ""
    again: str = ""  # the command that does not print it any more; left out, the same


def without(id: str) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        place.edit(lambda document: document.update(models=[row for row in document["models"] if row["id"] != id]))

    return change


def fields(id: str, **values: object) -> Callable[[Place], None]:
    return lambda place: place.entry(id).edit_entry(**values)  # type: ignore[arg-type]  # JSON


def forged(**values: object) -> Callable[[Place], None]:
    return lambda place: place.entry("promoted").forge_verdict(**values)  # type: ignore[arg-type]  # JSON


def policy(kind: str, value: dict[str, object] | None) -> Callable[[Place], None]:
    return lambda place: place.edit(set_policy(kind, value))


def bound(value: float) -> Callable[[Place], None]:
    return lambda place: place.edit(set_bound("mean_plcc", value))


def flipped(place: Place) -> None:
    assert place.type("flip demoted").code == 0


def each(*changes: Callable[[Place], object]) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        for one in changes:
            one(place)

    return change


def since_start(change: Callable[[Place], object]) -> Callable[[Place], None]:
    """The change is not committed; what it is compared with is."""
    return each(Place.start, change)


def unused(place: Place) -> None:
    (place.folder / "old" / "0123456789ab").mkdir(parents=True)
    (place.folder / "old" / "0123456789ab" / "manifest.json").write_bytes(b"{}")


def version_1(place: Place, **checksum: str) -> None:
    """A registry of version 1 whose model has its weights in another file."""
    weights = np.arange(6, dtype=np.float32).tobytes()
    place.replace({})
    row = entry(place.folder, external("w.data", **checksum))
    (place.folder / "w.data").write_bytes(weights)
    place.edit(lambda document: document.update(schema_version=1, models=[row]))


def weakly_pinned(place: Place) -> None:
    version_1(place, checksum=hashlib.sha1(np.arange(6, dtype=np.float32).tobytes()).hexdigest())


def unpinned_verdict(place: Place) -> None:
    """A registry of version 1 with an ensemble, and a verdict beside it that names nothing it judged."""
    place.replace({})
    ensemble(place.folder)
    (place.folder / "sub" / "e_PROMOTE.json").write_bytes(to_json({"verdict": "PROMOTE", "corpus": {"sha256": None}}))


def promoted_in_version_1(place: Place) -> None:
    place.replace({"schema_version": 1, "models": []})
    place.start()
    row = entry(place.folder, model(), smoke=False)
    (place.folder / "m.json").write_bytes(to_json(sidecar(row)))
    place.edit(lambda document: document.update(models=[row]))


def smoke(id: str) -> Callable[[Place], None]:
    return fields(id, smoke=True)


def keys(place: Place) -> None:
    from certificates import key_pair

    key_pair(place.folder.parent, "mine")
    key_pair(place.folder.parent, "locked", password="secret")
    (place.folder.parent / "password").write_text("secret\n")


SIGN = "sign --path single.onnx --bundle ../b.json --key"
VERIFY = "verify-signature --path single.onnx --bundle"


def signed(place: Place) -> None:
    """../b.json is signed with a key, ../c.json with a certificate."""
    from certificates import AUTHORITY, issue

    keys(place)
    root = issue(place.folder.parent, "root", use=AUTHORITY)
    issue(place.folder.parent, "signer", root)
    assert place.type(f"{SIGN} ../mine.key").code == 0
    assert place.type(f"{SIGN} ../signer.key --cert ../signer.pem".replace("b.json", "c.json")).code == 0


BY_KEY, BY_CERTIFICATE = f"{VERIFY} ../b.json --public-key ../mine.pub", f"{VERIFY} ../c.json --trust ../root.pem"
FOLDER = "verify-signature --path promoted --bundle ../b.json --public-key ../mine.pub"


def signed_entries(place: Place) -> None:
    """Every production entry is signed."""
    for name in ("promoted", "single"):
        assert place.type(f"sign {name} --key ../mine.key").code == 0


SIGN_M = "sign --path m.onnx --bundle ../b.json --key ../mine.key"


def signed_folder(place: Place) -> None:
    keys(place)
    assert place.type("sign --path promoted --bundle ../b.json --key ../mine.key").code == 0
    (place.folder / "promoted" / "more.txt").write_text("")


def foreign_signature(place: Place) -> None:
    """The bundle that an entry pins is over the files of another one."""
    keys(place)
    assert place.type("sign demoted --key ../mine.key").code == 0
    place.entry("promoted").edit_entry(signatures=place.entry("demoted").entry["signatures"])


def asks_for_signatures(place: Place) -> None:
    keys(place)
    data = (place.folder.parent / "mine.pub").read_bytes()
    (place.folder / "mine.pub").write_bytes(data)
    signer = {"public_key": "mine.pub", "sha256": hashlib.sha256(data).hexdigest()}
    place.edit(lambda document: document["policies"]["fr_ensemble"].update(signers=[signer]))


TRUSTING = "validate --public-key ../mine.pub"
FINDINGS = [
    Given("folder-unused", unused),
    Given("promotion-random-rows", fields("probe", smoke=False)),
    Given("promotion-missing", fields("promoted", promotion=None), by_hand=smoke("promoted")),
    Given("promotion-missing", fields("single", promotion=None), by_hand=smoke("single"), variant="manual"),
    Given(
        "promotion-missing",
        each(fields("single", promotion=None), policy("fr", None)),
        by_hand=each(smoke("single"), policy("fr", MANUAL)),
        variant="no gate",
    ),
    Given("promotion-kind", fields("promoted", promotion={"manual": True, "reason": "seen"})),
    Given("promotion-kind", fields("promoted", promotion={"imported_from": "0" * 64}), variant="imported"),
    Given("promotion-kind", policy("fr", rules("score >= 1")), by_hand=policy("fr", MANUAL), variant="no gate"),
    Given("verdict-holds", forged(verdict="HOLD")),
    Given("verdict-other", forged(entry="other")),
    Given("verdict-other", forged(evidence_sha256="0" * 64), variant="evidence"),
    Given("verdict-disagrees", forged(metrics={"mean_plcc": 1.0})),
    Given("policy-looser", bound(0.5)),
    Given("policy-metric-unknown", policy("fr", rules("rmse_vs_baseline_x <= 0")), by_hand=policy("fr", MANUAL)),
    Given("policy-not-met", bound(0.99999)),
    Given("base-entry-deleted", since_start(without("promoted")), BASE, Place.restore),
    Given(
        "base-demotion-unexplained", since_start(fields("promoted", smoke=True, promotion=None)), BASE, Place.restore
    ),
    Given("base-policy-loosened", since_start(each(bound(0.5), flipped)), BASE),
    Given("signature-unverified", each(keys, signed_entries), again=TRUSTING),
    Given("signature-missing", keys, TRUSTING),
    Given("signature-invalid", foreign_signature),
    Given("promotion-unsigned", asks_for_signatures),
    Given("onnx-external-weak", weakly_pinned),
    Given("onnx-external-unpinned", version_1, variant="version 1"),
    Given("loose-verdict", unpinned_verdict),
    Given("base-promotion-unjudged", promoted_in_version_1, BASE),
    Given("base-import-unknown", since_start(fields("single", promotion={"imported_from": "0" * 64})), BASE),
]


def ids(given: Given) -> str:
    return f"{given.code}--{given.variant}" if given.variant else given.code


@pytest.mark.slow
@pytest.mark.parametrize("given", FINDINGS, ids=ids)
def test_the_commands_of_a_finding_mend_it(given: Given, tmp_path: Path) -> None:
    """Each one is accepted, one after the other, and then the finding is gone."""
    place = Place.at(tmp_path)
    given.make(place)
    hints = [hint for code, hint in place.findings(f"{given.command} .") if code == given.code]
    commands = [command for hint in hints for command in COMMAND.findall(hint)]
    assert commands, hints
    given.by_hand(place)
    for command in commands:
        ran = place.type(command)
        assert ran.code == 0, (command, ran)
    migrated = any(command.startswith("migrate") for command in commands)
    again = f"{VALIDATE} {WORDS['NEW']}" if migrated else f"{given.again or given.command} ."
    assert given.code not in [code for code, _ in place.findings(again)]


# The findings whose hints are typed by other tests.
OTHERS = {
    "plugin-not-loaded": "tests/plugins/test_manager.py",
    "single-evidence": "tests/plugins/test_single_evidence.py",
    "plugin-required": "tests/plugins/test_required.py",
    "plugin-left-out": "tests/plugins/test_left_out.py",
    "bundle-unverified": "tests/signing/test_blobs.py",
    "attestation-invalid": "tests/signing/test_attestations.py",
    "attestation-unverified": "tests/signing/test_attestations.py",
    "reproduction-invalid": "tests/signing/test_attestations.py",
    "reproduction-failed": "tests/signing/test_attestations.py",
}


def test_every_finding_that_names_a_command_is_here() -> None:
    """Or the test is named that types what its hint says."""
    named = {rule.code for rule in EVERY if COMMAND.search(rule.hint)}
    assert named - OTHERS.keys() <= {given.code for given in FINDINGS}


# ---- refusals ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that is refused, and what its message says to type instead.

    then: spelt out where the message names options; empty where it names whole commands, which are typed as they are.
    codes: with which each of those ends, all with 0 where none are given; 1 where it shows what was refused, or judges
    it. code: with which the refused command ends.
    """

    typed: str
    words: str
    then: tuple[str, ...] = ()
    make: Callable[[Place], object] = lambda place: None
    by_hand: Callable[[Place], object] = lambda place: None
    codes: tuple[int, ...] = ()
    code: int = 2


def moved(place: Place) -> None:
    """The registry is elsewhere; its old folder is there, and empty."""
    place.folder.rename(place.folder.parent / "elsewhere")
    place.folder.mkdir()


def broken(name: str) -> Callable[[Place], None]:
    """The first byte of an entry's manifest is another."""

    def change(place: Place) -> None:
        manifest = place.entry(name).artifacts / "manifest.json"
        manifest.write_bytes(b" " + manifest.read_bytes())

    return change


def twice(place: Place) -> None:
    place.edit(lambda document: document["models"].append(document["models"][0]))


def another(place: Place) -> None:
    """Below it is the folder in which a registry is looked for."""
    (place.folder / "model").mkdir()
    shutil.copy(place.folder / "registry.json", place.folder / "model")


def older(place: Place) -> None:
    (place.folder.parent / "old.json").write_bytes((place.folder / "registry.json").read_bytes())


def half_broken(place: Place) -> None:
    """A registry of version 1 with one entry that can be migrated, and one whose file is gone."""
    place.replace({})
    rows = [entry(place.folder, model(), name) for name in ("m", "n")]
    (place.folder / "n.onnx").unlink()
    place.edit(lambda document: document.update(schema_version=1, models=rows))


def with_summaries(place: Place) -> None:
    folder = place.folder.parent / "loso"
    folder.mkdir()
    for seed in range(3):
        shutil.copy(next(place.entry("promoted").artifacts.glob(f"**/loso_seed{seed}.json")), folder)


def ambiguous(place: Place) -> None:
    place.start()
    git(place.folder, "tag", "main")
    commit(place.folder)


unpromoted = fields("single", smoke=True, promotion=None)


def in_version_1(place: Place) -> None:
    place.replace({})
    row = entry(place.folder, model())
    place.edit(lambda document: document.update(schema_version=1, models=[row]))


def logs(place: Place) -> None:
    """One log of libvmaf, and a table that describes it."""
    names = [f"integer_{name}" for name in ("adm2", "motion2", *(f"vif_scale{scale}" for scale in range(4)))]
    scores = [{"vmaf": 90.0 + number, **dict.fromkeys(names, 0.9 + number / 100)} for number in range(3)]
    frames = [{"frameNum": number, "metrics": score} for number, score in enumerate(scores)]
    (place.folder.parent / "a_libx264.json").write_bytes(to_json({"version": "3.0.0", "frames": frames}))
    (place.folder.parent / "logs.csv").write_text("log,src,encoder\na_libx264.json,a,libx264\n")


def nameless_logs(place: Place) -> None:
    """The table does not say the encoder."""
    logs(place)
    (place.folder.parent / "logs.csv").write_text("log,src,encoder\na_libx264.json,a,\n")


def without_src(place: Place) -> None:
    """The column of sources has another name."""
    rows = place.folder.parent / "rows.csv"
    rows.write_text(rows.read_text().replace("src", "source", 1))


def without_cost(place: Place) -> None:
    """What an encode costs has a name of its own."""
    rows = place.folder.parent / "rows.csv"
    rows.write_text(rows.read_text().replace("bitrate_kbps", "bytes", 1).replace("crf", "other", 1))


IMPORT = "fr-ensemble corpus import ../a_libx264.json --vmaf-model vmaf_v0.6.1 -o ../made.csv"
PATTERN, META = f"{IMPORT} --pattern {{src}}_{{encoder}}.json", f"{IMPORT} --meta ../logs.csv"
SET = f"{IMPORT} --set src=a --set encoder=libx264"
RECOMMEND = "fr-ensemble recommend promoted --corpus ../rows.csv --target 50 --confidence 0.5"
SUMMARIES = "gate --evidence ../loso --seeds 0,1,2"
TRAIN = "train fr_ensemble --smoke --seeds 0,1 --epochs 1 --hidden 4"
OPTION = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")
REFUSALS = [
    # the registry
    Refused("list", "name one with --registry", ("list --registry ../elsewhere",), moved),
    Refused("list", "expected one registry", ("list --registry registry.json",), another),
    Refused("list --registry none.json", "or make one with"),
    Refused("show nothing", ": `registry list`"),
    Refused("show absolute", "duplicate id", make=twice, codes=(1,)),
    Refused("list", "run `registry validate", make=fields("promoted", smoke="no"), codes=(1,)),
    Refused("gate promoted", "run `registry validate", make=broken("promoted"), codes=(1,), code=1),
    Refused("gate promoted --incumbent demoted", "cannot be compared with", make=broken("demoted"), codes=(1,), code=1),
    Refused(
        "ci --known-findings known-findings.json",
        "make it with `registry known-findings write",
    ),
    # documents and plugins
    Refused("schema nothing", "`registry schema` lists"),
    Refused("rule zzz", "`registry rule` lists"),
    Refused("predict single --corpus ../rows.csv", "prints its verified file"),
    Refused("evaluate single --smoke", "`registry plugins` tells"),
    Refused("reproduce single", "`registry plugins` tells"),
    # gate and flip
    Refused(
        "gate",
        "name what to judge",
        ("gate promoted", f"{BASE} .", SUMMARIES),
        each(Place.start, with_summaries),
        codes=(0, 0, 1),
    ),
    Refused("gate promoted --base HEAD", "name no ID and no other option", (f"{BASE} .",), Place.start),
    Refused("gate --incumbent demoted", "name its ID, without", ("gate promoted --incumbent demoted",)),
    Refused(f"{BASE} .", "--base-file FILE", ("gate --base-file ../old.json",), older),
    Refused("gate --base main", "the name is ambiguous", ("gate --base refs/heads/main",), ambiguous),
    Refused("gate --base ../old.json", "with --base-file", ("gate --base-file ../old.json",), each(Place.start, older)),
    Refused("gate --evidence ../loso", "with --seeds", (SUMMARIES,), with_summaries, codes=(1,)),
    Refused("flip promoted", "it is production already", code=1),
    Refused("flip held --demote --reason x", "it is smoke already", code=1),
    Refused("flip promoted --demote", "needs --reason TEXT", ("flip promoted --demote --reason seen",)),
    Refused("flip single", "expected --reason TEXT", ("flip single --reason seen",), unpromoted),
    Refused("flip demoted --reason x", "leave --reason out", ("flip demoted",)),
    Refused(
        "flip single",
        "flip with --reason",
        ("flip single --reason seen",),
        each(unpromoted, policy("fr", None)),
        policy("fr", MANUAL),
    ),
    Refused("flip m", "make one of version 2", make=in_version_1),
    Refused(
        "train fr_ensemble --id m --smoke", "--registry PATH", (f"{TRAIN} --id m --registry ../new",), in_version_1
    ),
    Refused("train fr_ensemble --id promoted --smoke", "take a new --id", (f"{TRAIN} --id other",), code=1),
    Refused("train fr_ensemble --id single --smoke", "take another --id", (f"{TRAIN} --id other",), smoke("single")),
    Refused(
        "evaluate promoted", "name the rows", ("evaluate promoted --smoke", "evaluate promoted --corpus ../rows.csv")
    ),
    Refused(
        "migrate registry.json -o ../new",
        "--skip-broken",
        ("migrate registry.json -o ../new --skip-broken",),
        half_broken,
        code=1,
    ),
    Refused("history", "name an ID, or a day", ("history promoted", "history --as-of 2030-01-01"), Place.start),
    # signatures
    Refused("sign --key ../mine.key", "name what to", (f"{SIGN} ../mine.key", "sign promoted --key ../mine.key"), keys),
    Refused(
        "sign m --key ../mine.key",
        "of version 2; a file alone is signed with --path",
        (SIGN_M,),
        each(in_version_1, keys),
    ),
    Refused(
        "verify-signature promoted",
        "name whom to trust",
        ("verify-signature promoted --public-key ../mine.pub", f"{VERIFY} ../c.json --trust ../root.pem"),
        each(signed, signed_entries),
    ),
    Refused(f"{VERIFY} ../b.json", "nothing to trust", (BY_KEY, BY_CERTIFICATE), signed),
    Refused(f"{VERIFY} ../b.json --trust ../root.pem", "name the key to trust", (BY_KEY,), signed, code=1),
    Refused(
        f"{VERIFY} ../c.json --public-key ../mine.pub", "name the root to trust", (BY_CERTIFICATE,), signed, code=1
    ),
    Refused(f"{SIGN} ../locked.key", "by a password", (f"{SIGN} ../locked.key --password-file ../password",), keys),
    Refused(FOLDER, "the file is not signed", (f"{FOLDER} --ignore-unsigned-files",), signed_folder, code=1),
    Refused(
        f"{SIGN} ../signer.key --chain ../root.pem",
        "--chain: found no --cert",
        (f"{SIGN} ../signer.key --chain ../root.pem --cert ../signer.pem",),
        signed,
    ),
    Refused("attest demoted --key ../mine.key", "it is smoke, expected a production entry", make=keys, code=1),
    # rows and corpora
    Refused(
        "evaluate promoted --smoke --incumbent demoted",
        "name a --corpus",
        ("evaluate promoted --corpus ../rows.csv --incumbent demoted",),
    ),
    Refused(IMPORT, "source and encoder of the logs: expected", (PATTERN, META, SET), logs),
    Refused(f"{IMPORT} --pattern {{src}}_{{crf}}_{{encoder}}.json", "rename it, or use --meta", (META,), logs),
    Refused(f"{IMPORT} --pattern {{src}}.json", "encoder of the logs: found", (PATTERN, META, SET), logs),
    Refused(f"{META} --set src=b", "it in --pattern, --meta or --set", (PATTERN, SET), nameless_logs),
    Refused(
        "evaluate promoted --corpus ../rows.csv",
        "or name it with --source-column",
        ("evaluate promoted --corpus ../rows.csv --source-column source",),
        without_src,
    ),
    Refused(RECOMMEND, "name the cost's column with --cost", (f"{RECOMMEND} --cost bytes",), without_cost),
    Refused(
        f"{RECOMMEND} --by source --cost crf",
        "a column such as the bitrate with --cost",
        (f"{RECOMMEND} --by source --cost bitrate_kbps", f"{RECOMMEND} --by encoder --cost crf"),
    ),
    Refused(
        "predict promoted --corpus ../rows.csv --format parquet",
        "say -o FILE",
        ("predict promoted --corpus ../rows.csv --format parquet -o ../out.parquet",),
    ),
    Refused(
        f"{TRAIN} --id other --corpus ../noisy.csv --target crf".replace(" --smoke", ""),
        "give --target-range",
        (f"{TRAIN} --id other --corpus ../noisy.csv --target crf --target-range 0,63".replace(" --smoke", ""),),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("refused", REFUSALS, ids=lambda refused: f"{refused.typed[:30]}: {refused.words[:30]}")
def test_what_a_refusal_says_to_type_is_accepted(refused: Refused, tmp_path: Path) -> None:
    """Whole commands as they are printed; options as the table spells them, all that the message names."""
    place = Place.at(tmp_path)
    refused.make(place)
    ran = place.type(refused.typed)
    [line] = [line for line in (ran.out + ran.err).splitlines() if refused.words in line]
    assert ran.code == refused.code, ran
    commands = refused.then or COMMAND.findall(line)
    assert commands, line
    hint = re.sub("without .*|no other option .*", "", line.rpartition(": ")[2])  # what shall not be typed
    assert set(OPTION.findall(hint)) <= set(OPTION.findall(" ".join((refused.typed, *commands))))
    refused.by_hand(place)
    for command, code in zip(commands, refused.codes or (0,) * len(commands), strict=True):
        ran = place.type(command)
        assert ran.code == code, (command, ran)


# ---- none is left out -------------------------------------------------------------------------------------------

SOURCES = [path for folder in ("registry_tool", "plugins/fr_ensemble") for path in (ROOT / folder).rglob("*.py")]
NAMES_A_COMMAND = re.compile(rf"`registry [^`]+`|{OPTION.pattern}")
# What is not typed above: words of the text, and the test that types it, or why none does.
ELSEWHERE = {
    "say --update to give it other bytes": "tests/workflows/test_add.py",
    "its evidence has no inputs, expected some": "tests/fr_ensemble/queries/test_exchangeable.py",
    "intervals from sources like these": "tests/project/test_howto.py",
    "--by-encoder`, of sources like these": "tests/fr_ensemble/hooks/test_by_encoder.py",
    "export one calibrated without --offset": "tests/fr_ensemble/hooks/test_calibrate.py",
    "name what {} was calibrated on": "tests/fr_ensemble/hooks/test_calibrate.py",
    "expected two encoders or more: drop --by-encoder": "tests/fr_ensemble/hooks/test_by_encoder.py",
    "expected one ({} is in {}): drop --by-encoder": "tests/fr_ensemble/hooks/test_by_encoder.py",
    "expected every plugin here": "tests/plugins/test_left_out.py",
    "`registry plugins` lists them": "tests/plugins/test_left_out.py",
    "install it, `registry plugins` lists them": "tests/plugins/test_required.py",
    "fetch full history": "tests/git/test_revisions.py",
    "or make a clone without --filter": "it needs a remote that is gone; tests/git/test_history.py",
    "found no condition, expected one or more": "tests/fr_ensemble/hooks/test_raw_conditions.py",
    "name what to": "typed above, as `sign`",
    "promote it in a registry of version 2": "FINDINGS",
    "run `registry flip {} --reason ...`": "FINDINGS",
    "gate its ensemble: add --evidence DIR": "tests/legacy/test_verdicts.py",
    "pins no evidence, expected": "tests/legacy/test_verdicts.py",
    "--evidence DIR` judges its ensemble": "tests/legacy/test_verdicts.py",
    "it cannot be trained here": "tests/workflows/test_train.py; `registry plugins` is typed above",
    "expected one of the two: name it with --registry": "tests/git/test_revisions.py",
    "name another with --feature": "the template; tests/plugins/test_scaffold.py",
    "found kind {}, expected {}: `registry list`": "the template; tests/plugins/test_scaffold.py",
    "or give --ffmpeg FILE": "it needs another ffmpeg; tests/fr_ensemble/test_commands.py",
    "an ffmpeg that runs: give --ffmpeg FILE": "it needs another ffmpeg; tests/fr_ensemble/test_commands.py",
    "learned from: --corpus FILE": "tests/fr_ensemble/hooks/test_reproduce.py",
    "name the file: --corpus FILE": "tests/fr_ensemble/hooks/test_reproduce.py",
    "other devices need --trainer": "it needs such a device; tests/fr_ensemble/hooks/test_train.py",
    "add --resume or remove it": "tests/fr_ensemble/training/test_checkpoints.py",
    "or train with --no-baselines": "tests/fr_ensemble/evidence/test_baselines.py",
    "found no --meta, expected a table with such columns": "tests/fr_ensemble/corpus/imports/test_logs.py",
    "choose its score with --score NAME": "tests/fr_ensemble/corpus/imports/test_identity.py",
    "give another --score": "tests/fr_ensemble/corpus/imports/test_identity.py",
    "give its --size": "tests/fr_ensemble/corpus/build/test_models.py",
    "or score with another --vmaf-model": "tests/fr_ensemble/corpus/build/test_models.py",
    "--vmaf-model NAME": "tests/fr_ensemble/corpus/imports/test_identity.py",
    "name the base with --base REF": "tests/workflows/test_ci.py",
    "sign it with `registry sign": "tests/signing/test_entries.py",
    "expected it pinned: `registry migrate` does that": "tests/workflows/test_export.py",
    "train it with --member-conditions raw": "tests/project/test_integrate.py",
    "to update: leave --update out": "tests/workflows/test_add.py",
    "is about a quantised variant: name its file with --int8": "tests/workflows/test_add.py",
    "expected one of {}: name it with --kind": "tests/workflows/test_add.py",
    "expected one: `registry migrate` makes it": "tests/fr_ensemble/hooks/test_migrate.py",
    "--data FILE` makes it": "tests/plugins/test_single_evidence.py",
    "what it was judged on does not change: take a new --id": "tests/plugins/test_single_evidence.py",
    "say --corpus - without -o": "tests/fr_ensemble/hooks/test_predict.py",
    "expected both of a raw source": "tests/fr_ensemble/corpus/build/test_models.py",
    "write the list anew with": "tests/workflows/test_ci.py; the command is typed above",
    "say --license SPDX": "a warning; tests/helpers/registries.py",
    "--target {} --confidence {}": "what was found",
    "--format=%x01": "for git",
    "# Findings": "a page",
}


def hints(tree: ast.AST) -> Iterator[str]:
    """The texts of a module's refusals whose last part names a command or an option; `{}` is what is filled in."""
    for node in walked(tree):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Assign) and written(node.value)):
            for text in texts(node):
                if " " in text and NAMES_A_COMMAND.search(text.rpartition(": ")[2]):
                    yield text


def texts(node: ast.AST) -> Iterator[str]:
    if text := written(node):
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def written(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "".join(written(value) or "{}" for value in node.values) if isinstance(node, ast.JoinedStr) else ""


def test_every_hint_is_typed() -> None:
    """A refusal that says what to type is in the table above, or the test that types it is named."""
    known = [refused.words for refused in REFUSALS] + list(ELSEWHERE)
    declared = {rule.hint for rule in EVERY}
    found = {text: path for path in SOURCES for text in hints(tree_of(path)) if text not in declared}
    assert {text: path for text, path in found.items() if not any(words in text for words in known)} == {}


def test_the_other_test_is_there() -> None:
    """Where another test is named, there is such a file."""
    named = {where for where in (*ELSEWHERE.values(), *OTHERS.values()) if "tests/" in where}
    files = {where[where.index("tests/") :].partition(";")[0] for where in named}
    assert sorted(name for name in files if not (ROOT / name).is_file()) == []
