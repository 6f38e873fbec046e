"""Hyperparameters chosen under an equal budget in FLOPs, on validation data of seeds that no comparison uses."""
