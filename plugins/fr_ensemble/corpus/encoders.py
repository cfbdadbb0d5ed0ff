"""encoders.py: the encoders a corpus can be made with, as data: quality scale, presets, options. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from fr_ensemble.corpus.vocabulary import ffmpeg_name

QUALITY_NUMBERS = ("quality", "cq", "crf", "qp")  # columns that hold the number, whichever option took it


@dataclass(frozen=True, slots=True)
class Encoder:
    """How ffmpeg is asked for one encode of constant quality. `name` is both ffmpeg's and the vocabulary's."""

    name: str
    quality: str  # the option that takes the quality number; a higher number is a worse picture
    scale: tuple[int, int]  # its range, both ends allowed
    preset_option: str
    presets: tuple[str, ...]  # from the fastest to the slowest
    preset: str  # what a plan without a preset uses
    extra: tuple[str, ...] = ()  # constant quality without a bitrate target, one thread: same bytes on every machine
    pixels: str = "yuv420p"  # what the encoder takes; its encode is scored in the same depth
    hardware: bool = False
    device: tuple[str, ...] = ()  # what opens it, before the input
    upload: str = ""  # filters that bring frames to it
    fractional: bool = False  # whether quality numbers may have decimals
    beyond: tuple[str, ...] = ()  # presets slower than the slowest of the scale, which count as it

    def options(self, quality: float, preset: str) -> tuple[str, ...]:
        """The output options of one encode."""
        chosen = (self.preset_option, preset, *self.extra, self.quality, f"{quality:g}")
        return ("-c:v", self.name, "-threads", "1", *chosen)

    def knows(self, preset: str) -> bool:
        return preset in self.presets or preset in self.beyond

    def preset_norm(self, preset: str) -> float:
        """0.0 for the fastest preset, 1.0 for the slowest and what is beyond it, in equal steps between."""
        if preset in self.beyond:
            return 1.0
        return self.presets.index(preset) / (len(self.presets) - 1)

    def quality_norm(self, quality: float) -> float:
        """0.0 for the best picture of the scale, 1.0 for the worst."""
        low, high = self.scale
        return (quality - low) / (high - low)


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_QSV = ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_NVENC = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")


def _numbers(fastest: int, slowest: int) -> tuple[str, ...]:
    return tuple(str(n) for n in range(fastest, slowest - 1, -1))


_SOFTWARE = (
    Encoder("libx264", "-crf", (0, 51), "-preset", _X26X, "medium", fractional=True, beyond=("placebo",)),
    Encoder(
        "libx265",
        "-crf",
        (0, 51),
        "-preset",
        _X26X,
        "fast",
        ("-x265-params", "pools=none:frame-threads=1:log-level=1"),
        fractional=True,
        beyond=("placebo",),
    ),
    Encoder("libsvtav1", "-crf", (1, 63), "-preset", _numbers(13, 0), "8", ("-svtav1-params", "lp=1")),
    Encoder(
        "libvvenc",
        "-qp",
        (0, 63),
        "-preset",
        ("faster", "fast", "medium", "slow", "slower"),
        "faster",
        ("-vvenc-params", "threads=0"),  # with a worker thread, ffmpeg may end before the last frames come out
        pixels="yuv420p10le",
    ),
    Encoder(
        "libvpx-vp9",
        "-crf",
        (0, 63),
        "-cpu-used",
        _numbers(8, 0),
        "4",
        ("-deadline", "good", "-b:v", "0", "-row-mt", "0"),
    ),
    Encoder(
        "libaom-av1",
        "-crf",
        (0, 63),
        "-cpu-used",
        _numbers(8, 0),
        "6",
        ("-usage", "good", "-b:v", "0", "-row-mt", "0"),
    ),
    Encoder("librav1e", "-qp", (0, 255), "-speed", _numbers(10, 0), "8"),
)


def _nvenc(name: str, worst: int) -> Encoder:
    return Encoder(name, "-cq", (1, worst), "-preset", _NVENC, "p5", ("-rc", "vbr", "-b:v", "0"), hardware=True)


def _qsv(name: str) -> Encoder:  # without a bitrate this is its ICQ mode
    return Encoder(name, "-global_quality", (1, 51), "-preset", _QSV, "medium", hardware=True)


def _vaapi(name: str, quality: str, worst: int) -> Encoder:
    presets, device, upload = _numbers(7, 1), ("-vaapi_device", "/dev/dri/renderD128"), ",format=nv12,hwupload"
    encoder = Encoder(name, quality, (1, worst), "-compression_level", presets, "4", ("-rc_mode", "CQP"), hardware=True)
    return replace(encoder, device=device, upload=upload)


def _amf(name: str) -> Encoder:
    presets = ("speed", "balanced", "quality")
    return Encoder(
        name, "-qvbr_quality_level", (1, 51), "-quality", presets, "balanced", ("-rc", "qvbr"), hardware=True
    )


_HARDWARE = (
    _nvenc("h264_nvenc", 51),
    _nvenc("hevc_nvenc", 51),
    _nvenc("av1_nvenc", 63),
    _qsv("h264_qsv"),
    _qsv("hevc_qsv"),
    _qsv("av1_qsv"),
    _vaapi("h264_vaapi", "-qp", 51),
    _vaapi("hevc_vaapi", "-qp", 51),
    _vaapi("av1_vaapi", "-global_quality", 255),
    _amf("h264_amf"),
    _amf("hevc_amf"),
    _amf("av1_amf"),
)

ENCODERS = MappingProxyType({encoder.name: encoder for encoder in (*_SOFTWARE, *_HARDWARE)})


def preset_norm_of(encoder: str, preset: str) -> float | str:
    """`preset_norm` of an encoder in any spelling; or why there is none."""
    known = ENCODERS.get(ffmpeg_name(encoder) or "")
    if known is None:
        return f"the presets of encoder {encoder!r} are not known"
    if not preset:
        return "it has no preset"
    name = preset.casefold().removesuffix(".0")  # `8.0`: a table's column of numbers
    return known.preset_norm(name) if known.knows(name) else f"preset {preset!r} is none of {known.name}'s"


def crf_norm_of(encoder: str, quality: str) -> float | str:
    """`quality_norm` of an encoder in any spelling, of a number as text; or why there is none."""
    known = ENCODERS.get(ffmpeg_name(encoder) or "")
    if known is None:
        return f"the quality scale of encoder {encoder!r} is not known"
    try:
        number = float(quality)
    except ValueError:
        return (
            f"it has no {', '.join(QUALITY_NUMBERS[:-1])} or {QUALITY_NUMBERS[-1]}"
            if not quality
            else (f"quality {quality!r} is no number")
        )
    low, high = known.scale
    if not low <= number <= high:
        return f"quality {number:g} is outside {known.name}'s {low} to {high}"
    return known.quality_norm(number)
