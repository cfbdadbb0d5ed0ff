"""execution.py: how and where models are trained, which changes no model beyond rounding. Trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COMPILED, REFERENCE = "compiled", "reference"
TRAINERS = (COMPILED, REFERENCE)  # both train the same models from the same recipe


@dataclass(frozen=True, slots=True)
class Execution:
    """trainer: the compiled one, or the reference in torch on any `device`, which has neither engines nor checkpoints.

    engine: "local" (threads) or "ray". jobs: workers; None is the cores that this process, or the Ray cluster, has.
    checkpoint: a folder for the state of a long run, saved every `checkpoint_seconds`; with `resume` the run goes on
    from there. Of the compiled trainer, nothing of this changes a byte of the result.
    """

    trainer: str = COMPILED
    device: str = "cpu"
    engine: str = "local"
    jobs: int | None = None
    checkpoint: Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 30.0


DEFAULT_EXECUTION = Execution()
