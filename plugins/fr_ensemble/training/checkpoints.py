"""checkpoints.py: the folder that keeps a long run's state: `run.json`, and a file a model. Trains nothing.

Files are written whole or not at all, and hold numpy arrays alone, no pickles. A finished model's file holds its end.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.compiling import has_fma
from fr_ensemble.training.model import ModelState
from fr_ensemble.training.table import FINAL_FOLD, TrainingTable
from registry_tool.errors import InputError, WorldError
from registry_tool.toolkit import clean_staging, write_atomic

STATE_ARRAYS = ("p", "m", "v", "powers", "streams", "best")  # of a model, copied in place
STATE_NUMBERS = ("epoch", "best_loss", "best_epoch")


def run_digest(table: TrainingTable, recipe: Recipe) -> str:
    """What a run computes: its data, its recipe, and how this machine, with these releases, multiplies and adds."""
    releases = [metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    sha = hashlib.sha256(f"{recipe.sha256} {has_fma()} {table.n_features} {table.n_slots} {releases}".encode())
    scaler = table.scales[FINAL_FOLD].scaler
    for array in (table.rows, table.source, scaler.mean, scaler.std):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with the state of one run's models. run: its digest, which is in every file."""

    folder: Path
    seconds: float  # the least time between two saves of a model that is not finished
    run: str = ""

    def begin(self, resume: bool) -> None:
        """Say what run the folder is of, or with `resume` check that it is of this one.

        Raises InputError for a file, or where the folder holds a run and `resume` is off, or another run; WorldError
        for a bad disk.
        """
        path = self.folder / "run.json"
        try:
            if self._holds_a_run():
                if not resume:
                    raise InputError(
                        f"{self.folder}: found a run's checkpoint, expected none: add --resume or remove it"
                    )
                if not path.exists() or json.loads(path.read_text("utf-8"))["run"] != self.run:
                    raise InputError(
                        f"{self.folder}: found the checkpoint of other data, another recipe or another trainer, "
                        "expected this run's: choose another folder"
                    )
                clean_staging(self.folder)
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"run": self.run}).encode())
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"--checkpoint: {self.folder}: found a file there or above it, expected a folder: name another"
            ) from error
        except OSError as error:
            raise WorldError(f"{self.folder}: {error.strerror}, expected a folder that can be written to") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: found no description of a run, expected one: remove the folder") from error

    def _holds_a_run(self) -> bool:
        """Or what is left of one. plan.json: of release 0.1.0."""
        described = any((self.folder / name).exists() for name in ("run.json", "plan.json"))
        return described or any(self.folder.glob("*.npz"))

    def _name(self, model: ModelState) -> str:
        return f"{self.run} {model.key.fold} {model.key.seed}"

    def path(self, model: ModelState) -> Path:
        fold = "final" if model.key.fold == FINAL_FOLD else f"fold{model.key.fold}"
        return self.folder / f"{fold}-seed{model.key.seed}.npz"

    def save(self, model: ModelState) -> None:
        """Write a model's state. Raises WorldError for a bad disk."""
        arrays: dict[str, Any] = {name: getattr(model, name) for name in (*STATE_ARRAYS, *STATE_NUMBERS)}
        stream = io.BytesIO()
        np.savez(stream, model=np.array(self._name(model)), **arrays)
        write_atomic(self.path(model), stream.getvalue())

    def load(self, model: ModelState) -> None:
        """Bring a fresh model to its saved state, where there is one. Raises InputError for a file that is not one."""
        path = self.path(model)
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if str(arrays["model"]) != self._name(model):
                    raise ValueError("of another run, or another of its models")
                for name in STATE_ARRAYS:
                    target, source = getattr(model, name), arrays[name]
                    if source.shape != target.shape or source.dtype != target.dtype:
                        raise ValueError(f"{name}: another shape")
                    target[...] = source
                for name in STATE_NUMBERS:
                    setattr(model, name, arrays[name].item())
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:  # TypeError: an .npy
            raise InputError(f"{path}: found no state of this model, expected one: remove the file") from error
