"""values.py: the frozen values of the domain and their JSON forms. Reads no files and knows no plugin."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from registry_tool.errors import InputError
from registry_tool.figures import Table

# None, bool, int, float, str, a list or tuple, a mapping from str; the mark is for the check of what plugins answer.
Json = Annotated[Any, "JSON"]
ENTRY_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")  # of an entry that this release writes
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}\Z")
MAX_NAMES_SHOWN = 3  # of a list, in a message
EMPTY: Mapping[str, Json] = MappingProxyType({})


def visible(text: str, max_characters: int | None = None) -> str:
    """The text with everything escaped that a terminal would obey or hide: file names are data, not orders."""
    if max_characters is not None and len(text) > max_characters:
        text = f"{text[:max_characters]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def one_line(text: str, max_characters: int = 300) -> str:
    """One line of plain ASCII, for the words of a library: those of a hostile file reach a terminal and a CI log."""
    return visible(" ".join(text.split()).encode("ascii", "backslashreplace").decode())[:max_characters]


def percent(level: float) -> str:
    """A level as people and columns name it: 95 or 99.9; levels that differ by 1e-10 or more differ here."""
    return f"{level * 100:.10g}"


def percentage(share: float) -> str:
    """A share as people read it, in whole percent: `63 %`."""
    return f"{share * 100:.0f} %"


def counted(number: int, noun: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def first_names(names: Collection[str], shown: int = MAX_NAMES_SHOWN) -> str:
    """`a, b, c and 197 more`: names in a message, of which there may be many."""
    text = ", ".join(islice(names, shown))
    return f"{text} and {len(names) - shown} more" if len(names) > shown else text


class Progress(Protocol):
    """Whom long work tells how far it is; called often, must be cheap. `toolkit.progress_bar` is one."""

    def __call__(self, work: str, done: int, total: int, /) -> None:
        """work: its kind, such as `reading`. done, total: in any unit; the last call has them equal."""


def silent(work: str, done: int, total: int, /) -> None:
    """Progress that is shown nowhere."""


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError("it is read-only: what the core passes to a hook stays as it is; change a copy.deepcopy of it")


class ReadOnlyDict(dict[str, Json]):
    """A JSON object that cannot be changed; copies of it, shallow or deep, are ordinary dicts."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, Json]], tuple[dict[str, Json]]]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, object]) -> dict[str, Json]:
        return deepcopy(dict(self), memo)


class ReadOnlyList(list[Json]):
    """A JSON array that cannot be changed; copies of it, shallow or deep, are ordinary lists."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type[list[Json]], tuple[list[Json]]]:
        return list, (list(self),)

    def __deepcopy__(self, memo: dict[int, object]) -> list[Json]:
        return deepcopy(list(self), memo)


SCALARS = frozenset((str, int, float, bool, type(None)))  # of JSON: most values, and nothing in them changes


def read_only(value: Json) -> Json:
    """A JSON value in which nothing can be changed, at any depth."""
    if isinstance(value, dict):
        items = value.items()
        return ReadOnlyDict([(name, item if type(item) in SCALARS else read_only(item)) for name, item in items])
    if isinstance(value, list):
        return ReadOnlyList([item if type(item) in SCALARS else read_only(item) for item in value])
    return value


def checked_text(name: str, text: str, max_characters: int) -> str:
    """A text that a person typed, fit for a registry. Raises InputError, naming the option, for one that is not."""
    if not text.strip() or len(text) > max_characters or not text.isprintable():
        raise InputError(
            f"{name}: found {text[:40]!r}, expected 1 to {max_characters} printable characters: shorten or correct it"
        )
    return text


@dataclass(frozen=True, slots=True)
class Artifact:
    """A pinned file. path: POSIX, relative to the registry's folder; pointer: where `document` pins it."""

    path: str
    sha256: str
    size: int | None = None
    document: str = "registry.json"
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of a registry: the fields the core acts on; every other field is kept in `document`."""

    id: str
    kind: str
    smoke: bool
    sha256: str
    onnx: str | None = None
    manifest: str | None = None
    promotion: Mapping[str, Json] | None = None
    document: Mapping[str, Json] = field(default_factory=lambda: EMPTY)

    @property
    def is_production(self) -> bool:
        return not self.smoke

    @property
    def path(self) -> str:
        """The file that the entry's sha256 pins: its manifest, else its ONNX file."""
        return self.manifest or self.onnx or ""

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Entry:
        """Expects a document that its schema accepted. `smoke` absent means false (version 1)."""
        document = read_only(dict(document))
        return cls(
            id=document["id"],
            kind=document["kind"],
            smoke=document.get("smoke", False),
            sha256=document["sha256"],
            onnx=document.get("onnx"),
            manifest=document.get("manifest"),
            promotion=document.get("promotion"),
            document=document,
        )

    def to_dict(self) -> dict[str, Json]:
        """The document it was made from: what this version does not know survives."""
        return dict(self.document)

    def with_fields(self, **changes: Json) -> Entry:
        """A copy with these fields of the document set; a value of None removes the field."""
        document = {**self.document, **changes}
        return Entry.from_dict({k: v for k, v in document.items() if v is not None})


OPERATORS = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """`metric op bound`, for instance mean_plcc >= 0.95. Raises ValueError for an unknown operator or bound."""

    metric: str
    op: str
    bound: float

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise ValueError(f"found the operator {self.op!r}, expected one of {', '.join(OPERATORS)}")
        if isinstance(self.bound, bool) or not isinstance(self.bound, int | float) or not math.isfinite(self.bound):
            raise ValueError(f"found the bound {self.bound!r}, expected a finite number")

    def holds(self, value: float) -> bool:
        """False for NaN, whatever the operator."""
        return math.isfinite(value) and bool(OPERATORS[self.op](value, self.bound))

    def is_at_least_as_strict_as(self, other: Rule) -> bool:
        """True where every value this rule lets through passes `other` too."""
        if self.metric != other.metric or self.op[0] != other.op[0]:
            return False
        if self.bound == other.bound:
            return self.op == other.op or "=" not in self.op
        return self.bound > other.bound if self.op[0] == ">" else self.bound < other.bound

    def to_dict(self) -> dict[str, Json]:
        return {"metric": self.metric, "op": self.op, "bound": self.bound}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Rule:
        return cls(document["metric"], document["op"], document["bound"])

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class PolicySigner:
    """Whose signatures a policy counts: the key in this pinned PEM file, or who has a certificate under its root."""

    path: str
    sha256: str
    is_root: bool

    @property
    def field(self) -> str:
        """The name of the document's field that holds the path."""
        return "certificate" if self.is_root else "public_key"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a kind's evidence must show. gate: `evidence` (the rules decide) or `manual` (a person, with a reason).

    Kept in extra: against, the id of the entry whose evidence the kind's plugin compares each candidate with; signers
    and signatures, by whom and by how many of them an entry has to be signed.
    """

    rules: tuple[Rule, ...] = ()
    gate: str = "evidence"
    extra: Mapping[str, Json] = field(default_factory=lambda: EMPTY)

    @property
    def incumbent(self) -> str | None:
        return self.extra.get("against")

    @property
    def signers(self) -> tuple[PolicySigner, ...]:
        """Whose signatures count; what they are worth is said by `signatures_needed`."""
        return tuple(
            PolicySigner(signer.get("certificate") or signer["public_key"], signer["sha256"], "certificate" in signer)
            for signer in self.extra.get("signers", ())
        )

    @property
    def signatures_needed(self) -> int:
        """How many different signers have to have signed an entry; 0 where the policy asks for no signature."""
        asks = "signers" in self.extra or "signatures" in self.extra
        return int(self.extra.get("signatures", 1)) if asks else 0

    @property
    def unsigned(self) -> Policy:
        """What it asks of the evidence alone."""
        return replace(self, extra={k: v for k, v in self.extra.items() if k not in ("signers", "signatures")})

    def is_looser_than(self, other: Policy) -> bool:
        """True where something this policy lets through would not pass `other`; another incumbent is another bar.

        So is a signer that `other` does not know, by the bytes of its file.
        """
        if other.incumbent not in (None, self.incumbent) or self._trusts_more_than(other):
            return True
        if self.gate == "manual":
            return other.gate != "manual"
        return not all(any(own.is_at_least_as_strict_as(rule) for own in self.rules) for rule in other.rules)

    def _trusts_more_than(self, other: Policy) -> bool:
        if other.signatures_needed == 0:
            return False
        known = {(signer.sha256, signer.is_root) for signer in other.signers}
        others = any((signer.sha256, signer.is_root) not in known for signer in self.signers)
        return others or self.signatures_needed < other.signatures_needed

    def to_dict(self) -> dict[str, Json]:
        document: dict[str, Json] = {**self.extra, "rules": [rule.to_dict() for rule in self.rules]}
        return document if self.gate == "evidence" else document | {"gate": self.gate}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Policy:
        extra = {k: v for k, v in document.items() if k not in ("rules", "gate")}
        rules = tuple(Rule.from_dict(rule) for rule in document.get("rules", ()))
        return cls(rules, document.get("gate", "evidence"), MappingProxyType(extra))


@dataclass(frozen=True, slots=True)
class Requirement:
    """A plugin without which a registry is not judged. version: a specifier of PEP 440, such as `>=1.2`; None: any."""

    plugin: str
    version: str | None = None

    def accepts(self, version: str) -> bool:
        """Whether a version is within the specifier. Raises ValueError for a specifier or a version that is none."""
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.version or "").contains(version, prereleases=True)

    def is_at_least_as_strict_as(self, other: Requirement) -> bool:
        """Whether no version gets through that `other` refuses, as far as the specifiers show it."""
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import Version

        try:
            own, others = SpecifierSet(self.version or ""), SpecifierSet(other.version or "")
            floors = [Version(one.version) for one in own if one.operator in (">=", "==", "~=") and "*" not in str(one)]
            return all(
                spec in set(own) or (spec.operator == ">=" and any(floor >= Version(spec.version) for floor in floors))
                for spec in others
            )
        except InvalidSpecifier:
            return self.version == other.version

    def __str__(self) -> str:
        return f"{self.plugin} {self.version}" if self.version else self.plugin


def plain_name(name: str) -> str:
    """The name of a plugin or a distribution as it is compared: `House_Rules` and `house-rules` are one (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def plain_spelling(encoder: str) -> str:
    """The name of an encoder as it is compared, without case and separators: `H.264` and `h264` are one."""
    return re.sub(r"[-_. ]", "", encoder).casefold()


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as a value: entries sorted by id, policies by kind, and whatever else its document holds."""

    schema_version: int
    entries: tuple[Entry, ...]
    policies: Mapping[str, Policy] = field(default_factory=lambda: EMPTY)
    extra: Mapping[str, Json] = field(default_factory=lambda: EMPTY)

    @property
    def requires(self) -> tuple[Requirement, ...]:
        """The plugins that must be there to judge it."""
        return tuple(Requirement(item["plugin"], item.get("version")) for item in self.extra.get("requires", ()))

    @property
    def optional_plugins(self) -> tuple[str, ...]:
        """The plugins that a change may be judged without."""
        return tuple(self.extra.get("optional_plugins", ()))

    def entry(self, entry_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == entry_id), None)

    def with_entry(self, entry: Entry) -> Registry:
        """A copy in which this entry takes the place of the one with its id, or is added."""
        others = [old for old in self.entries if old.id != entry.id]
        return replace(self, entries=tuple(sorted([*others, entry], key=lambda e: e.id)))

    def with_policy(self, kind: str, policy: Policy) -> Registry:
        return replace(self, policies=MappingProxyType({**self.policies, kind: policy}))

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Registry:
        """Expects a document that its schema accepted. Raises ValueError for a policy that means nothing."""
        policies = {kind: Policy.from_dict(policy) for kind, policy in document.get("policies", {}).items()}
        extra = {k: v for k, v in document.items() if k not in ("schema_version", "models", "policies")}
        entries = tuple(Entry.from_dict(model) for model in document["models"])
        return cls(document["schema_version"], entries, MappingProxyType(policies), MappingProxyType(extra))

    def to_dict(self) -> dict[str, Json]:
        document: dict[str, Json] = {**self.extra, "schema_version": self.schema_version}
        if self.policies or self.schema_version >= 2:
            document["policies"] = {kind: policy.to_dict() for kind, policy in self.policies.items()}
        document["models"] = [entry.to_dict() for entry in sorted(self.entries, key=lambda e: e.id)]
        return document


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a plugin measured from stored evidence, recomputed just now.

    metrics: name -> finite number; a policy's rules name these. problems: what makes the evidence unfit to promote
    anything, one line each (a missing fold, a repeated seed, |PLCC| > 1): never a pass, whatever the metrics say.
    warnings: what could not be checked, or what a person should look at, one line each: it holds nothing.
    notes: what a person may want to know of the metrics, such as what the rules can see of them; in no verdict.
    summary_only: no predictions or digests came along; may be judged, never flips. details: JSON for people.
    table: what is printed under the verdict. metrics_version: of the set of metrics that this release measures.
    since: name -> the version that brought a metric; a verdict stores its metrics_version, so that what was measured
    then may not be missing from it, and what a later release measures may. together: an older form of that, for
    verdicts without a version: names of metrics of which a verdict stores all or none.
    """

    metrics: Mapping[str, float]
    problems: tuple[str, ...] = ()
    summary_only: bool = False
    sha256: str | None = None
    details: Mapping[str, Json] = field(default_factory=lambda: EMPTY)
    together: tuple[frozenset[str], ...] = ()
    table: Table | None = None
    metrics_version: int | None = None
    since: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"metric {name}: found {value!r}, expected a number")
        if self.sha256 is not None and not SHA256_PATTERN.match(self.sha256):
            raise ValueError(f"evidence sha256: found {self.sha256!r}, expected 64 lower-case hex digits")
        for name, since in self.since.items():
            if not 1 <= since <= (self.metrics_version or 0):
                expected = f"1 to the metrics_version, {self.metrics_version}"
                raise ValueError(f"metric {name}: found {since} as its since, expected {expected}")


@dataclass(frozen=True, slots=True)
class OofPredictions:
    """Out-of-fold predictions that the evidence of an entry pins: each row by a model that did not see its source.

    entry: its id. sources, targets, predictions: of n rows, in the order of their corpus; numbers in target units.
    Raises ValueError for no rows, for columns of different lengths and for numbers that are not finite.
    """

    entry: str
    sources: Sequence[str]
    targets: Sequence[float]
    predictions: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.sources) == len(self.targets) == len(self.predictions) > 0:
            found = f"{len(self.sources)} sources, {len(self.targets)} targets and {len(self.predictions)} predictions"
            raise ValueError(f"out-of-fold predictions: found {found}, expected as many of each, and some")
        if not all(map(math.isfinite, (*self.targets, *self.predictions))):
            raise ValueError("out-of-fold predictions: found a number that is not finite")

    def in_order_of(self, other: OofPredictions) -> tuple[float, ...]:
        """These predictions, one for each row of `other`, in its order.

        Two entries predict the same rows where each source has the same targets in the same order, whatever the order
        of the sources. Raises InputError, naming this entry and the first difference, where they do not.
        """
        own, rows = _rows_by_source(self.sources), _rows_by_source(other.sources)
        for source in dict.fromkeys((*rows, *own)):
            found, expected = own.get(source, []), rows.get(source, [])
            if len(found) != len(expected):
                counts = f"{len(found)} rows of source {source!r}, expected {len(expected)}"
                raise InputError(f"{self.entry}: found {counts} as {other.entry} has: train both on one corpus")
            for place, (i, j) in enumerate(zip(found, expected, strict=True), start=1):
                if self.targets[i] != other.targets[j]:
                    values = f"the target {self.targets[i]:g}, expected {other.targets[j]:g}"
                    row = f"row {place} of source {source!r}"
                    raise InputError(
                        f"{self.entry}: {row}: found {values} as {other.entry} has: train both on one corpus"
                    )
        places = {j: i for source, listed in rows.items() for j, i in zip(listed, own[source], strict=True)}
        return tuple(self.predictions[places[j]] for j in range(len(other.sources)))


def _rows_by_source(sources: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of each source's rows, in their order."""
    rows: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        rows.setdefault(source, []).append(number)
    return rows


@dataclass(frozen=True, slots=True)
class Verdict:
    """PROMOTE or HOLD with reasons; stored as JSON, without a timestamp (git has them)."""

    entry: str
    decision: str  # PROMOTE or HOLD
    policy: Policy
    metrics: Mapping[str, float]
    reasons: tuple[str, ...]
    manifest_sha256: str | None = None
    evidence_sha256: str | None = None
    summary_only: bool = False
    plugins: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    metrics_version: int | None = None  # of the metrics that were measured; None in verdicts of older releases
    warnings: tuple[str, ...] = ()  # what the evidence could not show, or a person should look at

    @property
    def promotes(self) -> bool:
        return self.decision == "PROMOTE"

    def to_dict(self) -> dict[str, Json]:
        added = {"metrics_version": self.metrics_version, "warnings": list(self.warnings) or None}
        return {
            "schema_version": 2,
            "entry": self.entry,
            "verdict": self.decision,
            "manifest_sha256": self.manifest_sha256,
            "evidence_sha256": self.evidence_sha256,
            "summary_only": self.summary_only,
            "policy": self.policy.to_dict(),
            "metrics": dict(self.metrics),
            "reasons": list(self.reasons),
            "plugins": dict(self.plugins),
        } | {name: value for name, value in added.items() if value is not None}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Verdict:
        """Expects a document that the verdict schema accepted."""
        return cls(
            entry=document["entry"],
            decision=document["verdict"],
            policy=Policy.from_dict(document["policy"]),
            metrics=MappingProxyType(dict(document["metrics"])),
            reasons=tuple(document["reasons"]),
            manifest_sha256=document["manifest_sha256"],
            evidence_sha256=document["evidence_sha256"],
            summary_only=document["summary_only"],
            plugins=MappingProxyType(dict(document["plugins"])),
            metrics_version=document.get("metrics_version"),
            warnings=tuple(document.get("warnings", ())),
        )
