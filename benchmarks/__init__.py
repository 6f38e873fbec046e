"""How fast the harness itself is, over its commits; run by asv."""
