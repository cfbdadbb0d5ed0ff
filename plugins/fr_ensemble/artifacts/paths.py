"""paths.py: where the files of an entry are, relative to its manifest. Opens none."""

from __future__ import annotations

OOF_PATH = "evidence/oof.npz"
INPUTS_PATH = "evidence/inputs.npz"
FINGERPRINTS_PATH = "evidence/fingerprints.npz"


def summary_path(seed: int) -> str:
    """Of a seed's LOSO summary."""
    return f"evidence/loso_seed{seed}.json"
