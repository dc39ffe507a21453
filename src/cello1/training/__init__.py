"""How a model learns: a base model, traces of a teacher, fine-tuning, reinforcement."""
