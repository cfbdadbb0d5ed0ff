"""logs.py: tiny logs as each tool writes them: of any frames, under any names; and what one of them is read as."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fr_ensemble.corpus.imports.identity import LogChoice
from fr_ensemble.corpus.imports.logs import Log, log_of
from fr_ensemble.corpus.imports.reading import Frames, load, parse
from fr_ensemble.corpus.vmaf_models import VMAF_MODELS

Metrics = Mapping[str, Any]
ANY_SCORE = LogChoice()


def read_frames(path: Path) -> Frames:
    return parse(path, *load(path))


def read_log(path: Path, wanted: LogChoice = ANY_SCORE) -> Log:
    return log_of(path, read_frames(path), wanted)


def frames_of(model: str, n: int = 3, score: str = "vmaf", shift: float = 0.0) -> list[dict[str, Any]]:
    """The metrics of n frames under the names that libvmaf gives the features of a model; shift moves the score."""
    known = VMAF_MODELS[model]
    prefix = {"adm2", "adm3", "motion2", "motion3", *(f"vif_scale{scale}" for scale in range(4))}
    names = [("integer_" if name in prefix else "") + known.spelled(name) for name in known.features]
    return [
        {name: round(0.3 + 0.07 * place + 0.11 * number, 6) for place, name in enumerate(names)}
        | {score: round(60.0 + 7.0 * number + shift, 6)}
        for number in range(n)
    ]


def libvmaf_json(path: Path, frames: Sequence[Metrics], **about: Any) -> Path:
    listed = [{"frameNum": number, "metrics": dict(frame)} for number, frame in enumerate(frames)]
    path.write_text(json.dumps({"version": "3.2.0", **about, "frames": listed, "pooled_metrics": {}}))
    return path


def libvmaf_xml(path: Path, frames: Sequence[Metrics]) -> Path:
    path.write_text(f'<VMAF version="3.2.0">{_xml(frames)}</VMAF>')
    return path


def libvmaf_csv(path: Path, frames: Sequence[Metrics]) -> Path:
    lines = [["Frame", *frames[0]], *([str(number), *map(str, frame.values())] for number, frame in enumerate(frames))]
    path.write_text("".join(",".join(line) + ",\n" for line in lines))  # libvmaf ends each line with a comma
    return path


def run_vmaf_json(path: Path, frames: Sequence[Metrics], executor: str = "VMAF_V0.6.1") -> Path:
    listed = [{"frameNum": number, **frame} for number, frame in enumerate(frames)]
    path.write_text(json.dumps({"executorId": executor, "asset": {}, "frames": listed, "aggregate": {}}))
    return path


def run_vmaf_xml(path: Path, frames: Sequence[Metrics], executor: str = "VMAF_V0.6.1") -> Path:
    path.write_text(f'<result executorId="{executor}"><asset identifier="x"/>{_xml(frames)}</result>')
    return path


def quality_metrics_json(path: Path, frames: Sequence[Metrics]) -> Path:
    listed = [{**frame, "n": number} for number, frame in enumerate(frames, 1)]
    path.write_text(json.dumps({"vmaf": listed, "psnr": [], "global": {}, "input_file_dist": "d"}))
    return path


def quality_metrics_csv(path: Path, frames: Sequence[Metrics]) -> Path:
    head = ["n", *frames[0], "input_file_dist"]
    lines = [head, *([str(number), *map(str, frame.values()), "d.mkv"] for number, frame in enumerate(frames, 1))]
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    return path


def _xml(frames: Sequence[Metrics]) -> str:
    rows = (
        f'<frame frameNum="{number}" ' + " ".join(f'{name}="{value}"' for name, value in frame.items()) + " />"
        for number, frame in enumerate(frames)
    )
    return f"<frames>{''.join(rows)}</frames>"
