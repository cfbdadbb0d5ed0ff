"""blocks.py: the state of a stack of models between two epochs, and the folder that keeps it. Trains nothing.

A checkpoint folder holds `plan.json` (what the run is, which models stand in which block) and one `block-N.npz` a
block: atomic, numpy arrays alone, no pickles. A finished block's file holds its last epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fr_ensemble.artifacts.recipe import Recipe
from fr_ensemble.training.folds import FINAL, ModelKey, Role, Table
from fr_ensemble.training.network import Parameters, initial_weights
from registry_tool.errors import InputError, WorldError

STREAMS = (Role.ORDER, Role.DROPOUT, Role.NOISE)


@dataclass(slots=True)
class Stopping:
    """Each model at its best so far on the sources that tell it when to stop. Its neighbours move none of it."""

    best: Parameters
    loss: Tensor  # float64 (M,), infinite before the first epoch
    epoch: Tensor  # float64 (M,), of the best


@dataclass(slots=True)
class Block:
    """A stack of models between two epochs."""

    keys: tuple[ModelKey, ...]  # by number of training rows, the most first
    epoch: int  # epochs done
    weights: Parameters
    moment1: Parameters
    moment2: Parameters
    steps: Tensor  # float32 (M,), Adam's step count
    streams: dict[Role, list[np.random.Generator]]
    stopping: Stopping | None = None

    def tensors(self) -> list[Tensor]:
        """Every tensor of the state."""
        kept = [*self.stopping.best.tensors(), self.stopping.loss, self.stopping.epoch] if self.stopping else []
        return [*self.weights.tensors(), *self.moment1.tensors(), *self.moment2.tensors(), self.steps, *kept]

    def is_done(self, recipe: Recipe) -> bool:
        """Whether the last epoch is over, or every model has stopped."""
        stopped = self.stopping is not None and bool((self.epoch - self.stopping.epoch >= recipe.early_stopping).all())
        return stopped or self.epoch == recipe.epochs

    def generators(self) -> list[np.random.Generator]:
        """Every random stream of the state."""
        return [rng for role in STREAMS for rng in self.streams[role]]


def start(table: Table, recipe: Recipe, keys: Sequence[ModelKey], device: str = "cpu") -> Block:
    """A block before its first epoch."""
    weights = Parameters.zeros(len(keys), table.inputs + 1, recipe.hidden, device)
    for j, key in enumerate(keys):
        weights.put(j, initial_weights(key.stream(Role.INIT), table.inputs, recipe.hidden))
    streams = {role: [key.stream(role) for key in keys] for role in STREAMS}
    steps = torch.zeros(len(keys), device=device)
    block = Block(tuple(keys), 0, weights, weights.zeros_like(), weights.zeros_like(), steps, streams)
    if recipe.early_stopping:
        none = torch.zeros(len(keys), dtype=torch.float64)
        block.stopping = Stopping(weights.zeros_like(), none + torch.inf, none.clone())
    return block


def run_digest(table: Table, recipe: Recipe, device: str) -> str:
    """What a run computes: its data, its recipe, and the torch and device whose bits it has."""
    sha = hashlib.sha256(f"{recipe.sha256} {torch.__version__} {device} {table.inputs}".encode())
    scaler = table.scales[FINAL].scaler
    for array in (table.rows, table.source, scaler.mean, scaler.std):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with the state of one run."""

    folder: Path
    seconds: float  # the least time between two saves of a block that is not finished

    def begin(self, digest: str, blocks: list[list[ModelKey]], resume: bool) -> list[list[ModelKey]]:
        """Write the plan, or with `resume` read the one in the folder; returns the plan's blocks.

        Raises InputError where the folder holds a run and `resume` is off, or another run, WorldError for a bad disk.
        """
        path = self.folder / "plan.json"
        try:
            if path.exists():
                if not resume:
                    raise InputError(f"{path}: found a run's checkpoint, expected none: add --resume or remove it")
                plan = json.loads(path.read_text("utf-8"))
                if plan["run"] != digest:
                    raise InputError(
                        f"{path}: found the checkpoint of other data, another recipe or another torch, expected this "
                        "run's: choose another folder"
                    )
                return [[ModelKey(fold, seed) for fold, seed in block] for block in plan["blocks"]]
            self.folder.mkdir(parents=True, exist_ok=True)
            plan = {"run": digest, "blocks": [[[k.fold, k.seed] for k in block] for block in blocks]}
            write_atomic(path, lambda file: file.write(json.dumps(plan).encode()))
        except OSError as error:
            raise WorldError(f"{path}: {error.strerror}, expected a folder that can be written to") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: found no plan of a run, expected one: remove the folder") from error
        return blocks

    def save(self, number: int, block: Block) -> None:
        """Write a block's state. Raises WorldError for a bad disk."""
        path = self.folder / f"block-{number}.npz"
        states = [rng.bit_generator.state for rng in block.generators()]
        arrays: dict[str, Any] = {f"tensor_{i}": t.cpu().numpy() for i, t in enumerate(block.tensors())}
        arrays["streams"] = np.array([s["state"]["state"] for s in states], np.uint64)
        arrays["buffered"] = np.array([[s["has_uint32"], s["uinteger"]] for s in states], np.int64)
        try:
            write_atomic(path, lambda file: np.savez(file, epoch=np.int64(block.epoch), **arrays))
        except OSError as error:
            raise WorldError(f"{path}: {error.strerror}, expected room for a checkpoint") from error

    def load(self, number: int, block: Block) -> None:
        """Bring a fresh block to its saved state, where there is one. Raises InputError for a file that is not one."""
        path = self.folder / f"block-{number}.npz"
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for i, tensor in enumerate(block.tensors()):
                    tensor.copy_(torch.from_numpy(arrays[f"tensor_{i}"]))
                for rng, state, (has, value) in zip(
                    block.generators(), arrays["streams"], arrays["buffered"].tolist(), strict=True
                ):
                    rng.bit_generator.state = dict(rng.bit_generator.state) | {
                        "state": {"state": state},
                        "has_uint32": has,
                        "uinteger": value,
                    }
                block.epoch = int(arrays["epoch"])
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: found no state of this block, expected one: remove the file") from error


def write_atomic(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
