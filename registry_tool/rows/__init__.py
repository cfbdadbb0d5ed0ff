"""rows: tables of rows in files: parquet, JSON lines and CSV. Plugins use it through `toolkit`."""
