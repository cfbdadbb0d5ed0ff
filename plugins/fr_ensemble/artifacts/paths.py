"""paths.py: what entries of this kind are called, and where their files are, relative to the manifest. Opens none."""

from __future__ import annotations

KIND = "fr_ensemble"  # of its entries
OOF_PATH = "evidence/oof.npz"
INPUTS_PATH = "evidence/inputs.npz"
BASELINES_PATH = "evidence/baselines.npz"
FINGERPRINTS_PATH = "evidence/fingerprints.npz"


def summary_path(seed: int) -> str:
    """Of a seed's LOSO summary."""
    return f"evidence/loso_seed{seed}.json"
