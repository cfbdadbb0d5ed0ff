"""vmaf_models.py: the models of VMAF as data: features, parameters, range, bit depth; how names stand for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fr_ensemble.corpus.vocabulary import CANONICAL_6

VMAF_V1 = ("cambi", "speed_chroma_uv", "adm3", "motion3")  # what a model of VMAF v1 computes its score from
FEATURE_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType({"canonical-6": CANONICAL_6, "vmaf-v1": VMAF_V1})
PHONE = "+phone"  # ends the definition of a score that the phone model's curve has transformed
Parameters = frozenset[tuple[str, str]]
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class VmafModel:
    """A model that libvmaf has built in, by the name that `model=version=` takes.

    parameters: of a feature, where they are not the extractor's own; libvmaf adds them to the feature's name.
    """

    name: str
    feature_set: str = "canonical-6"
    parameters: Mapping[str, str] = field(default_factory=lambda: _NONE)
    high: float = 100.0  # the end of its range; every range begins at 0
    bits: int = 8  # of the samples that it should see

    @property
    def features(self) -> tuple[str, ...]:
        return FEATURE_SETS[self.feature_set]

    def spelled(self, feature: str) -> str:
        """The feature as libvmaf logs it, without its prefix."""
        return feature + self.parameters.get(feature, "")


_NEG = MappingProxyType({name: "_egl_1" for name in CANONICAL_6 if name != "motion2"})


def _v1(name: str, view: str, speed: str, high: float = 100.0) -> tuple[VmafModel, VmafModel]:
    """A model of VMAF v1 and the same one for high frame rates. Its doc asks for 10 bits, also where encodes have 8."""
    parameters = {
        "cambi": "_hrs_1080_cmxv_17_vlt_0.06",
        "speed_chroma_uv": f"_mxv_45_nnf_0.1{speed}_snn_0.19_wvm_5",
        "adm3": f"_csf_2_dlmw_0.7_egl_1_min_0.5_nw_0.02{view}",
        "motion3": "_mmxv_18",
    }
    standard = VmafModel(f"vmaf_v1.0.16_{name}", "vmaf-v1", MappingProxyType(parameters), high, 10)
    high_rate = MappingProxyType(parameters | {"motion3": "_mffw_mmxv_18_mma"})
    return standard, VmafModel(f"vmaf_v1.0.16_hfr_{name}", "vmaf-v1", high_rate, high, 10)


# Of libvmaf 3.2: resource/doc/models_v0.md and models_v1.md, and the names in logs that its ffmpeg filter wrote.
VMAF_MODELS: Mapping[str, VmafModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            VmafModel("vmaf_v0.6.1"),
            VmafModel("vmaf_4k_v0.6.1"),
            VmafModel("vmaf_b_v0.6.3"),
            VmafModel("vmaf_v0.6.1neg", parameters=_NEG),
            VmafModel("vmaf_4k_v0.6.1neg", parameters=_NEG),
            *_v1("3d0h", "", ""),
            *_v1("5d0h", "_nvd_5", "_ps_0.6_psm_bilinear"),
            *_v1("1d5h_2160", "_nvd_1.5_rdh_2160", ""),
            *_v1("3d0h_2160", "_rdh_2160", "_ps_0.5_psm_bilinear", 110.0),
        )
    }
)
DEFAULT_MODEL = "vmaf_v0.6.1"
SAME_SCORE = 0.05  # points; features have five decimals or more, and two models are further apart than that
# Words of a score's name in a log -> the models that tools mean by them (easyVmaf: vmaf_hd_neg, vmaf_v1_4k_3h, ...).
_SCORE_WORDS: Mapping[frozenset[str], tuple[str, ...]] = MappingProxyType(
    {
        frozenset(words.split()): tuple(names.split())
        for words, names in {
            "hd": "vmaf_v0.6.1",
            "4k": "vmaf_4k_v0.6.1",
            "neg": "vmaf_v0.6.1neg vmaf_4k_v0.6.1neg",
            "hd neg": "vmaf_v0.6.1neg",
            "4k neg": "vmaf_4k_v0.6.1neg",
            "phone": f"vmaf_v0.6.1{PHONE}",
            "hd phone": f"vmaf_v0.6.1{PHONE}",
            "v1 hd": "vmaf_v1.0.16_3d0h vmaf_v1.0.16_hfr_3d0h",
            "v1 phone": "vmaf_v1.0.16_5d0h vmaf_v1.0.16_hfr_5d0h",
            "v1 4k": "vmaf_v1.0.16_1d5h_2160 vmaf_v1.0.16_hfr_1d5h_2160",
            "v1 4k 3h": "vmaf_v1.0.16_3d0h_2160 vmaf_v1.0.16_hfr_3d0h_2160",
        }.items()
    }
)


def canonical(name: str, phone: bool = False) -> str:
    """The definition that a model's name or file stands for, a built-in one in any letter case; "" for no name.

    `vmaf_float_v0.6.1` is `vmaf_v0.6.1` in floating point: scores differ by less than 0.01, and libvmaf 1 had no other.
    """
    stem = re.sub(r"(\.(pkl|json|model))+$", "", re.split(r"[\\/]", name.strip())[-1], flags=re.IGNORECASE)
    model = re.sub(rf"{re.escape(PHONE)}$", "", stem, flags=re.IGNORECASE)
    phone = phone or model != stem
    model = re.sub(r"^vmaf_float_", "vmaf_", model, flags=re.IGNORECASE)
    model = next((known for known in VMAF_MODELS if known.lower() == model.lower()), model)
    return model + PHONE * phone if model else ""


def model_of(definition: str) -> VmafModel | None:
    """The built-in model behind a definition; None for a model that libvmaf does not ship."""
    return VMAF_MODELS.get(definition.removesuffix(PHONE))


def high_of(definition: str) -> float:
    """The end of a definition's range; 100 where the model is not known."""
    model = model_of(definition)
    return model.high if model is not None else 100.0


def features_of(definition: str) -> tuple[str, ...]:
    """The features that a definition's model computes its score from; the canonical six where it is not known."""
    model = model_of(definition)
    return model.features if model is not None else CANONICAL_6


def features_among(columns: Collection[str]) -> tuple[str, ...]:
    """The set of features that columns have the most of; the canonical six where two have as many."""
    return max(FEATURE_SETS.values(), key=lambda features: len({*features} & {*columns}) / len(features))


def same_features(one: str, other: str) -> bool:
    """Whether two definitions' models take the same features with the same parameters; unknown models may."""
    first, second = model_of(one), model_of(other)
    if first is None or second is None:
        return True
    return [first.spelled(name) for name in first.features] == [second.spelled(name) for name in second.features]


def of_score(name: str) -> tuple[str, ...]:
    """The definitions that a score's own name in a log may stand for; none for a name that tells nothing, as `vmaf`.

    A name without the word `vmaf` is its author's own, and `hd` may mean anything.
    """
    if canonical(name) in VMAF_MODELS:
        return (canonical(name),)
    words = frozenset(re.split(r"[^a-z0-9]+", name.lower()))
    return _SCORE_WORDS.get(words - {"vmaf", "score", ""}, ()) if "vmaf" in words else ()


# ---- names of features ------------------------------------------------------------------------------------------

_ENCODE_SIDE = frozenset({"encw", "ench", "encbd"})  # of cambi: the encode's own size and depth, told by the caller
_BASES = tuple(sorted({*CANONICAL_6, *VMAF_V1}, key=len, reverse=True))
_PREFIX = r"(?:VMAF_integer_feature_|VMAF_feature_|Cambi_feature_|Speed_chroma_feature_|integer_)?"
_FEATURE = re.compile(rf"{_PREFIX}(?P<base>{'|'.join(_BASES)})(?P<end>(?:_(?!score\b).+?)?)(?:_score)?")
_PARAMETER = re.compile(r"_([a-z]+)(?:_(-?[0-9.]+|bilinear|bicubic|nearest|lanczos4))?")


def parameters_of(end: str) -> Parameters:
    return frozenset((name, value) for name, value in _PARAMETER.findall(end))


def spellings(names: Iterable[str]) -> dict[str, dict[Parameters, str]]:
    """Every column of a log that is one of the models' features -> by parameters -> its name there, the first one."""
    found: dict[str, dict[Parameters, str]] = {}
    for name in names:
        if match := _FEATURE.fullmatch(name):
            found.setdefault(match["base"], {}).setdefault(parameters_of(match["end"]), name)
    return found


def columns_of(model: VmafModel, found: Mapping[str, Mapping[Parameters, str]]) -> dict[str, str | None]:
    """The model's features -> what the log calls them with the model's parameters; None for one that it lacks."""
    columns: dict[str, str | None] = {}
    for feature in model.features:
        wanted = parameters_of(model.parameters.get(feature, ""))
        columns[feature] = next(
            (
                name
                for parameters, name in found.get(feature, {}).items()
                if {p for p in parameters if p[0] not in _ENCODE_SIDE} == wanted
            ),
            None,
        )
    return columns
