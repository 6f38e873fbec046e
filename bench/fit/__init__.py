"""One fit: its clock, budget and checkpoints, and what it costs."""
