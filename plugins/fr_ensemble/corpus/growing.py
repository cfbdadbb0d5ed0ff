"""growing.py: arrays that grow batch by batch to a whole file. Reads none."""

from __future__ import annotations

from typing import Any

import numpy as np


class Growing:
    """A column of a whole file, rows added batch by batch, without a second copy at the end."""

    def __init__(self) -> None:
        self._values: Any = None
        self._n = 0

    def add(self, rows: Any) -> None:
        if self._values is None:
            self._values = np.empty((0, *rows.shape[1:]), rows.dtype)
        end = self._n + len(rows)
        if end > len(self._values):
            self._resize(max(end, end + end // 4))
        self._values[self._n : end] = rows
        self._n = end

    def trimmed(self) -> Any:
        self._resize(self._n)
        return self._values

    def _resize(self, rows: int) -> None:
        self._values.resize((rows, *self._values.shape[1:]), refcheck=False)  # in place, where the allocator can
