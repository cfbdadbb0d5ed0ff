"""queries: what is asked of an entry about rows without targets, one question a file: its document and its words."""
