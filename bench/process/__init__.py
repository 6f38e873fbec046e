"""How changes that methods and datasets make to the process are undone."""
