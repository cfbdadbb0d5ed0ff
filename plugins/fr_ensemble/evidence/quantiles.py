"""quantiles.py: one calibrated interval: its quantiles, the bounds that follow, what to say of it. Calibrates none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fr_ensemble.arrays import Float64
from fr_ensemble.evidence.methods import INTERVAL_METHODS, LOWER_SIDE, RANK_TOLERANCE, TWO_SIDED
from fr_ensemble.evidence.statistics import interval_crps, interval_scores
from registry_tool.errors import InputError
from registry_tool.values import Json, percent

NOMINAL_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
# What is calibrated, on which side.
CALIBRATED_UNITS = (("row", TWO_SIDED), ("row", LOWER_SIDE), ("clip", TWO_SIDED), ("clip", LOWER_SIDE))
CRPS_LEVELS = tuple((part + 0.5) / 40 for part in range(40))  # middles of equal parts of 0..1


@dataclass(frozen=True, slots=True)
class Quantile:
    """How many scales an interval of nominal coverage `level` reaches; infinite: the target's whole range.

    q_conformal: what the conformal rule alone gives; differs from q where the rule is parametric.
    coverage: by source, the share of its units inside where q comes from the other sources (the floor from all);
    empty below 3 sources.
    """

    level: float
    q: float
    q_conformal: float
    rule: str
    guarantee: str
    coverage: Mapping[str, float]

    def to_dict(self) -> dict[str, Json]:
        return asdict(self) | {"q": _finite(self.q), "q_conformal": _finite(self.q_conformal)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Quantile:
        fields = {name: document[name] for name in cls.__slots__}
        return cls(**fields | {name: _number(document[name]) for name in ("level", "q", "q_conformal")})


@dataclass(frozen=True, slots=True)
class Calibration:
    """One calibrated interval: for rows or clip means, two-sided or below; all that inference needs.

    n units of K sources. floor: target units, added to sigma in squares. sha256: of the numbers it was made from.
    """

    method: str
    unit: str  # row or clip
    side: str  # two-sided or lower
    range: tuple[float, float]  # of the target
    floor: float
    levels: tuple[Quantile, ...]
    n: int
    n_per_source: Mapping[str, int]
    sha256: str

    def quantile(self, level: float) -> Quantile:
        """Raises InputError for a level that was not calibrated."""
        for quantile in self.levels:
            if math.isclose(quantile.level, level, abs_tol=RANK_TOLERANCE):
                return quantile
        known = ", ".join(f"{quantile.level:g}" for quantile in self.levels)
        raise InputError(f"level: found {level:g}, expected one of {known}")

    def interval(self, mu: Float64, sigma: Float64, level: float) -> tuple[Float64, Float64]:
        """Lower and upper bounds (n,): low <= lower <= mu <= upper <= high, mu being cut to the target's range.

        mu, sigma (ddof 1 over members) of single rows, or of clips: of the members' clip means. NaN stays NaN. A q
        below 0, of sources whose targets are above mu, is a lower bound of mu itself: no guarantee is lost by it.
        """
        low, high = self.range
        q, mu = max(self.quantile(level).q, 0.0), np.clip(mu, low, high)
        if math.isinf(q):
            return np.where(np.isnan(mu), mu, low), np.where(np.isnan(mu), mu, high)
        half = q * INTERVAL_METHODS[self.method].scale(sigma, self.floor)
        upper = np.where(np.isnan(mu), mu, high) if self.side == LOWER_SIDE else np.clip(mu + half, low, high)
        return np.clip(mu - half, low, high), upper

    def crps(self, y: Float64, mu: Float64, sigma: Float64) -> Float64:
        """CRPS (n,) of the distribution that the intervals at CRPS_LEVELS describe. Raises InputError without them."""
        bounds = ((level, *self.interval(mu, sigma, level)) for level in CRPS_LEVELS)
        return interval_crps([interval_scores(y, lower, upper, level) for level, lower, upper in bounds], CRPS_LEVELS)

    def messages(self, levels: Sequence[float]) -> list[str]:
        """What a person must know of these levels."""
        return [*self.unbounded(levels), *self.unguaranteed(levels)]

    def unbounded(self, levels: Sequence[float]) -> list[str]:
        """Words on each of these levels whose q is infinite."""
        return [
            f"the {percent(level)} % interval of a {self.unit} is the target's whole range: "
            f"no q is finite ({self.quantile(level).rule})"
            for level in levels
            if math.isinf(self.quantile(level).q)
        ]

    def unguaranteed(self, levels: Sequence[float]) -> list[str]:
        """One line on those of the levels whose finite q no theorem stands behind; [] where there are none."""
        known = [self.quantile(level) for level in levels]
        bare = [quantile for quantile in known if quantile.guarantee.startswith("none") and math.isfinite(quantile.q)]
        if not bare:
            return []
        shown = ", ".join(f"{percent(quantile.level)} %" for quantile in bare)
        return [
            f"intervals of a {self.unit} at {shown} have no guarantee from {len(self.n_per_source)} sources "
            f"({bare[0].rule}{bare[0].guarantee.removeprefix('none')})"
        ]

    def to_dict(self) -> dict[str, Json]:
        """As in the manifest, with what the method implies written out."""
        miss = "mu - y" if self.side == LOWER_SIDE else "abs(y - mu)"
        score = INTERVAL_METHODS[self.method].formula(miss)
        implied = {"score": score, "ddof": 1, "group": "src", "n_sources": len(self.n_per_source)}
        levels = {f"{quantile.level:g}": quantile.to_dict() for quantile in self.levels}
        return asdict(self) | implied | {"range": list(self.range), "levels": levels}

    @classmethod
    def from_dict(cls, document: Mapping[str, Json]) -> Calibration:
        """Raises ValueError, KeyError or TypeError for a document that `to_dict` did not write."""
        levels = tuple(map(Quantile.from_dict, document["levels"].values()))
        low, high, floor = map(_number, (*document["range"], document["floor"]))
        method, unit, side = document["method"], document["unit"], document["side"]
        if method not in INTERVAL_METHODS:
            raise ValueError(f"intervals: unknown method {method!r}, expected one of {', '.join(INTERVAL_METHODS)}")
        if (unit, side) not in CALIBRATED_UNITS or document["ddof"] != 1:
            found = f"{unit} {side} with ddof {document['ddof']}"
            raise ValueError(
                f"intervals: found {found}, expected row or clip, {TWO_SIDED} or {LOWER_SIDE}, with ddof 1"
            )
        if not (low < high and 0.0 <= floor < math.inf and all(0.0 < quantile.level < 1.0 for quantile in levels)):
            raise ValueError(
                f"intervals: found range {low:g}..{high:g}, floor {floor:g}, expected an interval's numbers"
            )
        return cls(
            method, unit, side, (low, high), floor, levels, document["n"], document["n_per_source"], document["sha256"]
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    """A stored quantile: null is infinite, 0 is a number."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"intervals: found q {value!r}, expected a number or null")
    return float(value)
