"""checks: everything that `registry validate` can find."""
