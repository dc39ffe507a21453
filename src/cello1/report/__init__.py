"""The report: one page with the figures, the training and every puzzle of some runs."""
