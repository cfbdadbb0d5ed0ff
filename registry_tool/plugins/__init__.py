"""plugins: who provides which kind, the built-in single-model kinds, and the template of a new plugin."""
