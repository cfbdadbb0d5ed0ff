"""disks.py: a disk on which an operation of the project fails. Tests nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

from registry_tool.storage import disk


@contextmanager
def failing(operation: str, number: int, after: int) -> Iterator[None]:
    """All but the first `after` calls of one of the functions of storage/disk.py fail, with this errno."""
    calls, real = count(), getattr(disk, operation)

    def fail(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= after:
            raise OSError(number, "injected")
        return real(*arguments, **options)

    with patch.object(disk, operation, fail):
        yield
