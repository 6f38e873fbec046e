"""The methods and datasets that can be asked for, by name and parameters."""
