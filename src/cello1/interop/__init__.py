"""Other people's tools: evaluation harnesses, batch files, repositories on the hub."""
