"""scales.py: where values lie on an axis and which it names; the same for pages and pictures. Draws nothing."""

from __future__ import annotations

import math

from registry_tool.hookspec import Axis


def share(axis: Axis, value: float) -> float:
    """Where a value lies on its axis, 0 to 1; beyond the ends, at the end. The first of some names lies on top."""
    value = min(max(value, axis.low), axis.high)
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    part = (value - axis.low) / (axis.high - axis.low)
    return 1.0 - part if axis.names else part


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Round values on the axis and their labels: three to seven, what a logarithm's decades give, or the names.

    A logarithmic axis of less than a decade has those of a linear one.
    """
    if axis.names:
        return list(enumerate(axis.names))
    if axis.log and axis.high >= 10.0 * axis.low:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        steps = (1, 2, 5) if math.log10(axis.high / axis.low) < 2.5 else (1,)
        values = [step * 10.0**decade for decade in decades for step in steps]
        return [(v, f"{v:g}") for v in values if axis.low * (1 - 1e-9) <= v <= axis.high * (1 + 1e-9)]
    rough = (axis.high - axis.low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    digits = max(0, 1 - math.floor(math.log10(step)) if step / unit == 2.5 else -math.floor(math.log10(step)))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]
