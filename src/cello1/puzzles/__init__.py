"""The problem: puzzles, their text, their answers, and how they are stored."""
