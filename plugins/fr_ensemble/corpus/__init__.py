"""corpus: rows to learn from."""
