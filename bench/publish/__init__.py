"""A static site of one or several studies; it reads tables only, and never torch."""
