"""Reinforcement learning on puzzles."""
