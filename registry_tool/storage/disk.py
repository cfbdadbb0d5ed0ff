"""disk.py: the system calls that change a disk, in one place, so that tests can make them fail. Decides nothing."""

from __future__ import annotations

import os

open, write, fsync, rename, mkdir = os.open, os.write, os.fsync, os.rename, os.mkdir
