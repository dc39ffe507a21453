"""A small model from scratch."""
