"""Results on disk: records, tables and their schema, files written whole, and locks."""
