"""What reasons say: the cells, types and genes they name, checked against the data."""
