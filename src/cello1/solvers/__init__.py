"""Who answers: anything that turns puzzles into responses."""
