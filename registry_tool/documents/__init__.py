"""documents: bytes <-> documents: registry.json, entries, JSON Schema."""
