"""Puzzles: the data structure, the prompt, answers, and storage."""
