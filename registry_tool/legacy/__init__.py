"""legacy: registries of version 0 and 1: read and checked."""
