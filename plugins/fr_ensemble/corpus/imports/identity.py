"""identity.py: which score of a log is the target, by which model, and what its features are called. Reads no files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from fr_ensemble.corpus.imports.reading import Frames
from fr_ensemble.corpus.vmaf_models import (
    FEATURE_SETS,
    PHONE,
    VMAF_MODELS,
    Parameters,
    VmafModel,
    canonical,
    columns_of,
    model_of,
    of_score,
    spellings,
)
from registry_tool.errors import InputError
from registry_tool.values import Json

# What libvmaf and run_vmaf call a score without a name of its own.
PLAIN_SCORES = ("vmaf", "VMAF_score", "VMAFNEG_score")
# Beside a score: what a bootstrapped model says of its spread, and features under libvmaf's long names.
_NO_SCORE = re.compile(r"feature_|(^|_)(bagging|stddev|ci\d+_(low|high)|ci_p\d+_(lo|hi)|\d{4})$", re.IGNORECASE)
# What libvmaf and ffmpeg measure beside a score, in lists of what may be one.
_METRIC = re.compile(
    r"(VMAF_)?(integer_|float_)?(feature_)?(adm|aim|vif|motion|speed|cambi|a?psnr|(ms_)?ssim|ciede|mse)", re.I
)
MAX_LIST_LENGTH = 300  # characters of a list of names in a message
DEFAULTS = [m.name for m in VMAF_MODELS.values() if m.feature_set == "canonical-6" and not m.parameters]


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What the caller says of every log: the score to take, and the model where a log names none; "" for nothing."""

    score: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a log measured. definition: "" where neither log nor caller names the model; then candidates has them."""

    score: str  # its name in the log
    columns: Mapping[str, str]  # feature -> its name in the log
    definition: str
    candidates: tuple[str, ...] = ()


def identify(log: Frames, wanted: LogChoice) -> Identity:
    """Raises InputError, without the log's path, for a log that lacks what is wanted."""
    return _identity(_names(log.metrics), log.model, wanted)


@lru_cache(maxsize=16)
def _identity(names: tuple[str, ...], model: str, wanted: LogChoice) -> Identity:
    """By the names in a log and the model that it names itself; the logs of a folder have the same."""
    found = spellings(names)
    present = tuple(m.name for m in VMAF_MODELS.values() if None not in columns_of(m, found).values())
    others = [name for name in names if not _METRIC.match(name) and not _NO_SCORE.search(name)]
    scores = [name for name in others if "vmaf" in name.lower()]
    score = _score(scores, others, wanted.score)
    candidates = _candidates(model, score, scores if score in scores else others, present)
    if wanted.model:
        definition = canonical(wanted.model)
        if not _may_be(definition, candidates, certain=bool(model or of_score(score))):
            raise InputError(
                f"its {score} is by {_any_of(candidates)}, --vmaf-model says {definition}: import it apart"
            )
        return Identity(score, _columns(definition, found), definition)
    if len(candidates) == 1:
        return Identity(score, _columns(candidates[0], found), candidates[0])
    return Identity(score, _columns((candidates or DEFAULTS)[0], found), "", candidates)


def _names(metrics: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """Every name in a log; frames of one length have the same names."""
    frames = metrics[:1] if len({*map(len, metrics)}) == 1 else metrics
    return tuple(name for name in dict.fromkeys(chain.from_iterable(frames)) if name)


def _may_be(definition: str, candidates: Sequence[str], certain: bool) -> bool:
    """Whether a score may be by what the caller says. certain: the log names its model, or the score does."""
    if certain or definition in candidates:
        return definition in candidates
    if model_of(definition) is None:  # of another model with libvmaf's usual features, or with features of its own
        return set(candidates) <= {*DEFAULTS}
    return not candidates or definition.removesuffix(PHONE) in candidates


def _score(scores: Sequence[str], others: Sequence[str], wanted: str) -> str:
    """The score that is wanted; else the plain one; else the only one. others: names that may be a score's too."""
    if wanted:
        if wanted not in others:
            raise InputError(f"no score {wanted!r}: found {_listed(scores or others)}: give another --score")
        return wanted
    plain = [name for name in PLAIN_SCORES if name in scores]
    if plain or len(scores) == 1:
        return (plain or scores)[0]
    missing = "no score vmaf" if scores else "lacks vmaf"
    raise InputError(f"{missing}: found {_listed(scores or others)}: choose its score with --score NAME")


def _candidates(model: str, score: str, scores: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    """The definitions that a log leaves open for a score. model: what the log itself names.

    By the model that the log names; else by the score's own name; else by parameters in the names of features, which
    come from a model and not from a list of features, where the names of other scores do not account for them.
    """
    if model:
        return (model,)
    if named := of_score(score):
        return tuple(name for name in named if name.removesuffix(PHONE) in present) or named[:1]
    others = [of_score(name) for name in scores if name != score]
    free = [name for name in present if not any(name in claimed for claimed in others)]
    special = [name for name in free if VMAF_MODELS[name].parameters]
    return tuple(special or free) if all(others) else tuple(free)


def _columns(definition: str, found: Mapping[str, Mapping[Parameters, str]]) -> Mapping[str, str]:
    """The features of a definition by their names in the log. Raises InputError that names those that are missing."""
    model = model_of(definition)
    if model is None:
        return _of_unknown(definition, found)
    columns = columns_of(model, found)
    if missing := [model.spelled(feature) for feature, name in columns.items() if name is None]:
        raise _lacking(missing, found, definition)
    return {feature: name for feature, name in columns.items() if name is not None}


def _of_unknown(definition: str, found: Mapping[str, Mapping[Parameters, str]]) -> Mapping[str, str]:
    """The features of a model that libvmaf does not ship: the canonical six, or a set with one spelling of each."""
    plain = columns_of(VmafModel(definition), found)
    if None not in plain.values():
        return {feature: name for feature, name in plain.items() if name is not None}
    for features in FEATURE_SETS.values():
        if all(len(found.get(feature, ())) == 1 for feature in features):
            return {feature: next(iter(found[feature].values())) for feature in features}
    raise _lacking([feature for feature, name in plain.items() if name is None], found, definition)


def _lacking(missing: Sequence[str], found: Mapping[str, Mapping[Parameters, str]], definition: str) -> InputError:
    names = [name for spelled in found.values() for name in spelled.values()]
    return InputError(
        f"lacks {', '.join(missing)}: found the features {_listed(sorted(names))}, expected those of "
        f"{definition or 'VMAF'}: run libvmaf again with its features"
    )


def _any_of(names: Sequence[str]) -> str:
    return " or ".join(names)


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names) or "none"
    return text if len(text) <= MAX_LIST_LENGTH else f"{text[:MAX_LIST_LENGTH]}..."
