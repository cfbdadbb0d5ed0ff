"""archive.py: the .npz files of evidence, which the core reads and writes. Declares nothing of its own."""

from __future__ import annotations

from registry_tool.archive import MAX_BYTES as MAX_BYTES
from registry_tool.archive import ArchiveFormat as ArchiveFormat
from registry_tool.archive import Array as Array
from registry_tool.archive import EvidenceProblem as EvidenceProblem
from registry_tool.archive import read_arrays as read_arrays
from registry_tool.archive import same_content as same_content
from registry_tool.archive import write_arrays as write_arrays
