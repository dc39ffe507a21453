"""Supervised fine-tuning on traces."""
