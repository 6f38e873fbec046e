"""What code of others may do to the process that it runs in, and how that is undone."""
