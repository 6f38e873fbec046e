"""A study: its settings, its plan, its folder, and how it is run, resumed, merged and swept."""
