"""A study's tables made into a page, figures and LaTeX; it reads tables only, and never torch."""
