"""The settings of every command, defined once: flags, TOML keys, Python arguments, columns and help come from here."""
