"""How good an answer is: one scorer, two rewards, honest intervals."""
