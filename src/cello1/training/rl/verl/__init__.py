"""Reinforcement learning on a cluster, by verl."""
