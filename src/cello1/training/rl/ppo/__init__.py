"""PPO on one machine."""
