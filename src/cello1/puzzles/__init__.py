"""The problem: what a puzzle is, how it reads, how an answer is read, how puzzles are stored."""
