"""paths.py: what entries of this kind are called, and where their files are, relative to the manifest. Opens none."""

from __future__ import annotations

KIND = "fr_ensemble"  # of its entries
OOF_PATH = "evidence/oof.npz"
INPUTS_PATH = "evidence/inputs.npz"
BASELINES_PATH = "evidence/baselines.npz"
FINGERPRINTS_PATH = "evidence/fingerprints.npz"
LEFT_OUT_PATH = "evidence/encoders_left_out.npz"
# Of an entry with `calibrated_from`, beside its parent's evidence.
CALIBRATION_PATH = "evidence/calibration.npz"
CALIBRATION_PREFIX = "calibration_"  # of names of files that the parent has under the rest of the name
CALIBRATION_INPUTS_PATH = f"evidence/{CALIBRATION_PREFIX}inputs.npz"
CALIBRATION_FINGERPRINTS_PATH = f"evidence/{CALIBRATION_PREFIX}fingerprints.npz"
PARENT_PATH = "evidence/parent.json"
CALIBRATED_PATHS = (CALIBRATION_PATH, CALIBRATION_INPUTS_PATH, CALIBRATION_FINGERPRINTS_PATH, PARENT_PATH)


def summary_path(seed: int) -> str:
    """Of a seed's LOSO summary."""
    return f"evidence/loso_seed{seed}.json"
