"""One fit: its clock, budget, checkpoints and cost."""
