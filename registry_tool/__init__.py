"""registry-tool: governance for model registries kept in git."""

__version__ = "0.1.0"
