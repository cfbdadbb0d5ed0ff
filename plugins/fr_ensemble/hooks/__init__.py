"""hooks: one file a hook."""
