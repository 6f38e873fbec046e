"""log p(x) of a model that was trained anywhere."""
