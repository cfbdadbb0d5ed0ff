"""recipe.py: the hyper-parameters of a run and its digest. Knows no data and trains nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from registry_tool.values import Json

STOPPING_SHARE = 0.2  # of a fold's training sources, which early stopping takes to look at
TRAINER_VERSION = 2  # raised whenever the same recipe gives other numbers
STANDARDISED, RAW = "standardised", "raw"  # how members take conditions: RAW as they are, numbers from 0 to 1
RELEASES = {1: "0.1.0"}  # the last release with an older trainer, which can train its entries again


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything, next to the corpus, that decides what a run computes.

    Raises ValueError, naming the field, for a value training cannot use.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 1e-5
    decoupled_weight_decay: bool = False  # True: AdamW (Loshchilov & Hutter 2019); False: Adam's L2 term
    dropout: float = 0.1
    input_noise: float = 0.0  # standard deviation, in units of a standardised input column
    hidden: int = 64
    trainer_version: int = TRAINER_VERSION
    # Epochs without gain on sources of its own training rows after which a model stops, at its best; 0: every epoch.
    early_stopping: int = 0
    member_conditions: str = STANDARDISED
    encoder_dropout: float = 0.0  # share of the rows of a step whose encoder counts as `unknown`, drawn anew each epoch

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if len(self.seeds) < 2 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected at least two different ones")
        if any(isinstance(s, bool) or not isinstance(s, int) or not 0 <= s < 2**32 for s in self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected integers from 0 to 2**32 - 1")
        for name, minimum in (("epochs", 1), ("batch_size", 1), ("hidden", 1), ("early_stopping", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected {minimum} or more")
        if self.member_conditions not in (STANDARDISED, RAW):
            raise ValueError(f"member_conditions: found {self.member_conditions!r}, expected {STANDARDISED} or {RAW}")
        for name in ("weight_decay", "input_noise"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: found {getattr(self, name)}, expected a finite number >= 0")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: found {self.learning_rate}, expected a finite number > 0")
        self._check_shares()

    def _check_shares(self) -> None:
        for name in ("dropout", "encoder_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 <= {name} < 1")

    @property
    def raw_conditions(self) -> bool:
        """Whether members take conditions as they are, as the public layout of a codec block does."""
        return self.member_conditions == RAW

    @property
    def stopping_share(self) -> float:
        """Share of a model's training sources that it does not fit, since they tell it when to stop."""
        return STOPPING_SHARE if self.early_stopping else 0.0

    def to_dict(self) -> dict[str, Json]:
        """The recipe as JSON values; `from_dict` reads it back. What came later is left out where it is off."""
        document = asdict(self) | {"seeds": list(self.seeds)}
        if not self.early_stopping:
            del document["early_stopping"]
        if not self.raw_conditions:
            del document["member_conditions"]
        if not self.encoder_dropout:
            del document["encoder_dropout"]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Recipe:
        """Raises ValueError for an unknown field: a recipe that is not understood is not judged."""
        known = {f.name for f in fields(cls)}
        if extra := sorted(set(document) - known):
            raise ValueError(f"recipe: found the unknown field {extra[0]!r}, expected {sorted(known)}")
        return cls(**document)

    @property
    def sha256(self) -> str:
        """sha256 of the recipe as canonical JSON (sorted keys, no spaces)."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
