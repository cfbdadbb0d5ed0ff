"""git: the registry at other revisions, and its history."""
