"""vocabulary.py: names of encoders and their slots in the one-hot block, and the canonical features. Reads no rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from registry_tool.errors import InputError
from registry_tool.values import MAX_NAMES_SHOWN, first_names, plain_spelling

if TYPE_CHECKING:
    from fr_ensemble.arrays import Int64

CANONICAL_6 = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")  # libvmaf's order
SCORES = (*CANONICAL_6, "vmaf")  # what libvmaf says of a frame
# What libvmaf 3 can say of a frame, as its logs name it; with a prefix `integer_` or `float_`, too. A column of another
# name that follows the target is not a feature of the pictures.
LIBVMAF_FEATURES = frozenset(
    {
        *SCORES,
        *("adm", "adm_scale0", "adm_scale1", "adm_scale2", "adm_scale3", "vif", "motion", "motion3", "motion_sad"),
        *("psnr", "psnr_y", "psnr_cb", "psnr_cr", "psnr_hvs", "psnr_hvs_y", "psnr_hvs_cb", "psnr_hvs_cr"),
        *("ssim", "ms_ssim", "ciede2000", "cambi", "ansnr", "anpsnr"),
    }
)
# Those that libvmaf computes of the reference alone, whatever encodes it.
REFERENCE_FEATURES = frozenset({"motion", "motion2", "motion3", "motion_sad"})
UNKNOWN = "unknown"  # the last slot of versions 1 and 2; version 3 has none
DEFAULT_VERSION = 2

# The order is the column order of `codec_onehot`: it never changes within a version.
VOCABULARIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", UNKNOWN),
        2: (
            *("libx264", "libx265", "libsvtav1", "libvvenc", "libvpx-vp9"),
            *("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv", "av1_qsv", UNKNOWN),
        ),
        3: (  # the sixteen slots of the public trainer's ENCODER_VOCAB_V3, in its order
            *("libx264", "libaom-av1", "libx265", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_amf", "hevc_amf"),
            *("av1_amf", "h264_qsv", "hevc_qsv", "av1_qsv", "libvvenc", "libsvtav1"),
            *("h264_videotoolbox", "hevc_videotoolbox"),
        ),
    }
)

# As people write them, without case and separators -> ffmpeg's name of the encoder. A codec's name means its usual
# software encoder; an encoder that has no slot is known all the same, so that no other takes its place. Manifests carry
# those that have one: another spelling of it is another version of the vocabulary.
SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("libx264", "x264", "h264", "avc", "avc1", "mpeg4avc"), "libx264"),
        **dict.fromkeys(("libx265", "x265", "h265", "hevc", "hvc1", "hev1"), "libx265"),
        **dict.fromkeys(("libsvtav1", "svtav1", "svt", "av1", "av01"), "libsvtav1"),
        **dict.fromkeys(("libvvenc", "vvenc", "vvc", "h266", "vvc1"), "libvvenc"),
        **dict.fromkeys(("libvpxvp9", "libvpx", "vpxvp9", "vp9", "vp09"), "libvpx-vp9"),
        **dict.fromkeys(("libaomav1", "libaom", "aomav1", "aom", "aomenc"), "libaom-av1"),
        **dict.fromkeys(("librav1e", "rav1e"), "librav1e"),
        **{
            spelling: f"{codec}_{engine}"
            for engine in ("nvenc", "qsv", "amf", "vaapi", "videotoolbox")
            for codec, spellings in (("h264", ("h264", "avc")), ("hevc", ("hevc", "h265")), ("av1", ("av1",)))
            for name in spellings
            for spelling in (name + engine, engine + name)
        },
        UNKNOWN: UNKNOWN,
    }
)


def vocabulary(version: int = DEFAULT_VERSION) -> tuple[str, ...]:
    """The slots of a version, in column order. Raises InputError for no such version."""
    if version not in VOCABULARIES:
        known = ", ".join(map(str, sorted(VOCABULARIES)))
        raise InputError(f"encoder vocabulary: found version {version!r}, expected one of {known}")
    return VOCABULARIES[version]


def encode(names: Iterable[str], version: int = DEFAULT_VERSION) -> tuple[Int64, Counter[str]]:
    """Slots of encoder names, int64 of shape (n,), and how often each name that has no slot occurred.

    A name without a slot goes to `unknown`, and the word `unknown` itself is not counted. Version 3 has no such slot:
    there it goes to the first one, libx264, as in the public trainer, and is always counted.
    """
    import numpy as np

    slots = _slots(version)
    missing: Counter[str] = Counter()

    def counted(name: str) -> int:
        if plain_spelling(name) not in slots:
            missing[name] += 1
        return _slot(name, slots)

    return np.fromiter((counted(name) for name in names), np.int64), missing


def slot_of(name: str, version: int) -> int:
    """The slot of one encoder's name, as `encode` gives it."""
    return _slot(name, _slots(version))


def is_libvmaf_feature(column: str) -> bool:
    """Whether a column is named as one of libvmaf's features."""
    return _plain(column) in LIBVMAF_FEATURES


def is_reference_feature(column: str) -> bool:
    """Whether a column is named as one of libvmaf's features of the reference alone."""
    return _plain(column) in REFERENCE_FEATURES


def _plain(column: str) -> str:
    return re.sub(r"^(integer|float)_", "", column.casefold())


def spellings(version: int) -> dict[str, list[str]]:
    """Each slot of a version, in column order -> the spellings that it takes, in the form of `plain_spelling`."""
    names = {slot: SPELLINGS[plain_spelling(slot)] for slot in vocabulary(version)}
    return {
        slot: sorted(spelling for spelling, encoder in SPELLINGS.items() if encoder == name)
        for slot, name in names.items()
    }


def _slots(version: int) -> Mapping[str, int]:
    """The slots of a version by the spellings that they take."""
    return {spelling: slot for slot, taken in enumerate(spellings(version).values()) for spelling in taken}


def _slot(name: str, slots: Mapping[str, int]) -> int:
    return slots.get(plain_spelling(name), slots.get(UNKNOWN, 0))


def stand_in(version: int) -> str:
    """The slot that takes the names without one."""
    names = vocabulary(version)
    return UNKNOWN if UNKNOWN in names else names[0]


def ffmpeg_name(name: str) -> str | None:
    """The encoder that a spelling stands for, by ffmpeg's name; None for a spelling that is not known."""
    found = SPELLINGS.get(plain_spelling(name))
    return None if found == UNKNOWN else found


def encoder_name(name: str) -> str:
    """What an encoder is called, however it is spelled: ffmpeg's name; for one not known, its plain spelling."""
    return ffmpeg_name(name) or plain_spelling(name) or UNKNOWN


def encoder_lines(counts: Mapping[str, int], one: str, many: str) -> dict[str, int]:
    """Words on encoders -> rows, by each one's rows: a line each; of many, one that names the first few.

    one, many: what is said behind the name or names.
    """
    if len(counts) <= MAX_NAMES_SHOWN:
        return {f"encoder {name}{one}": count for name, count in counts.items()}
    return {f"encoders {first_names(counts)}{many}": sum(counts.values())}


def spellings_of(encoder: str) -> tuple[str, ...]:
    """The spellings of an encoder, named as `encoder_name` does, in the form of `plain_spelling`, in order."""
    return tuple(sorted({plain_spelling(encoder), *(one for one, name in SPELLINGS.items() if name == encoder)}))
