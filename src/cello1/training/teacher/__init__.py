"""The offline teacher: how an expert reasons, step by step, and in which words."""
