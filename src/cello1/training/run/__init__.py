"""What every training shares: its run folder, checkpoints, held-out puzzles, traces, card."""
