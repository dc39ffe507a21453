"""A person as a solver."""
