"""checks: how an ensemble's files contradict each other: one subject a file, its findings declared beside it."""
