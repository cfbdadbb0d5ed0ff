"""registries.py: the corpora and ensembles that a run of the tests makes once and only copies. Tests nothing."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from command_line import succeed
from policies import GATE, set_policy
from sandbox import Sandbox

FEATURES = ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "motion2")
ENCODERS = ("libx264", "libx265", "libsvtav1")
TRAINING = (
    *("--seeds", "0,1,2", "--epochs", "30", "--hidden", "16", "--learning-rate", "0.01", "--license", "MIT"),
    "--no-baselines",
)

QUICK = ("--seeds", "0,1", "--epochs", "1", "--hidden", "4", "--license", "MIT", "--no-baselines")


def write_corpus(path: Path, sources: int, rows: int, seed: int) -> Path:
    """A CSV whose vmaf is a smooth function of canonical-6, with `rows` rows a source."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("src", "encoder", *FEATURES, "vmaf"))
        for source in range(sources):
            for row in range(rows):
                quality = rng.uniform(0.2, 1.0)
                features = quality ** np.array([0.2, 1.0, 0.7, 0.5, 0.35]) + rng.normal(0, 0.01, 5)
                motion = rng.uniform(1, 8)
                vmaf = 100 * quality**0.6
                writer.writerow((f"s{seed}{source}", ENCODERS[row % 3], *features.clip(0, 1), motion, vmaf))
    return path


@dataclass(frozen=True, slots=True)
class Made:
    """smoke, production, random: folders of registries of `tiny`: trained, flipped, trained on random rows."""

    corpus: Path
    heldout: Path
    smoke: Path
    production: Path
    random: Path

    @classmethod
    def at(cls, base: Path) -> Made:
        names = ("corpus.csv", "heldout.csv", "smoke", "production", "random")
        return cls(*(base / name for name in names))

    def make(self) -> None:
        """Through the program itself; `production` comes last and at once, so that it means that all is there."""
        write_corpus(self.corpus, 5, 60, seed=1)
        write_corpus(self.heldout, 3, 40, seed=2)
        train = ("train", "fr_ensemble", "--id", "tiny", *TRAINING, "--registry")
        succeed(*train, self.smoke / "registry.json", "--corpus", self.corpus)
        succeed(*train, self.random / "registry.json", "--smoke")
        for folder in (self.smoke, self.random):
            Sandbox(folder / "registry.json").edit(set_policy("fr_ensemble", GATE))
        staged = self.production.with_name("staged")
        shutil.copytree(self.smoke, staged)
        succeed("flip", "tiny", "--registry", staged)
        staged.rename(self.production)
