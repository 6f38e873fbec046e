"""The noise floor of time comparisons: fits of several methods in random order, each method also against itself."""
