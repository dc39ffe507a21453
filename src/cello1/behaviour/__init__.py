"""How a solver reasons: what its texts claim, and where they go wrong."""
