"""Language models on this machine, run by `transformers` or vLLM."""
