"""storage: containment, digests, atomic writes, lock, staging."""
