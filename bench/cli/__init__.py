"""The command line: commands, and all that is printed."""
