"""version.py: the release, in one place. Knows nothing else."""

__version__ = "0.2.0"
