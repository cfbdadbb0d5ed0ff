"""registry-tool: governance for model registries kept in git."""

__version__ = "0.2.0"
