"""vocabulary.py: names of encoders and their slots in the one-hot block, and the canonical features. Reads no rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from registry_tool.errors import InputError

if TYPE_CHECKING:
    from fr_ensemble.arrays import Int64

CANONICAL_6 = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")  # libvmaf's order
SCORES = (*CANONICAL_6, "vmaf")  # what libvmaf says of a frame
UNKNOWN = "unknown"  # the last slot of every version
DEFAULT_VERSION = 2

# The order is the column order of `codec_onehot`: it never changes within a version.
VOCABULARIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", UNKNOWN),
        2: (
            *("libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"),
            *("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv", "av1_qsv", UNKNOWN),
        ),
    }
)

# As people write them, without case and separators. A codec's name means its usual software encoder; another encoder
# of the same codec (libaom-av1, rav1e, amf, videotoolbox) is another encoder and stays unknown.
_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("libx264", "x264", "h264", "avc", "avc1", "mpeg4avc"), "libx264"),
        **dict.fromkeys(("libx265", "x265", "h265", "hevc", "hvc1", "hev1"), "libx265"),
        **dict.fromkeys(("libsvtav1", "svtav1", "svt", "av1", "av01"), "libsvtav1"),
        **dict.fromkeys(("libvvenc", "vvenc", "vvc", "h266", "vvc1"), "libvvenc"),
        **dict.fromkeys(("libvpxvp9", "libvpx", "vpxvp9", "vp9", "vp09"), "libvpx-vp9"),
        **{
            spelling: f"{codec}_{engine}"
            for engine in ("nvenc", "qsv")
            for codec, spellings in (("h264", ("h264", "avc")), ("hevc", ("hevc", "h265")), ("av1", ("av1",)))
            for name in spellings
            for spelling in (name + engine, engine + name)
        },
        UNKNOWN: UNKNOWN,
    }
)


def vocabulary(version: int = DEFAULT_VERSION) -> tuple[str, ...]:
    """The slots of a version, in column order; the last one is `unknown`. Raises InputError for no such version."""
    if version not in VOCABULARIES:
        known = ", ".join(map(str, sorted(VOCABULARIES)))
        raise InputError(f"encoder vocabulary: found version {version!r}, expected one of {known}")
    return VOCABULARIES[version]


def encode(names: Iterable[str], version: int = DEFAULT_VERSION) -> tuple[Int64, Counter[str]]:
    """Slots of encoder names, int64 of shape (n,), and how often each name that has no slot occurred.

    A name without a slot goes to `unknown`; the word `unknown` itself is not counted.
    """
    import numpy as np

    slots = {_ALIASES[_normal(name)]: slot for slot, name in enumerate(vocabulary(version))}
    missing: Counter[str] = Counter()

    def slot_of(name: str) -> int:
        slot = slots.get(_ALIASES.get(_normal(name), ""))
        if slot is None:
            missing[name] += 1
            return slots[UNKNOWN]
        return slot

    return np.fromiter((slot_of(name) for name in names), np.int64), missing


def _normal(name: str) -> str:
    return re.sub(r"[-_. ]", "", name).casefold()
