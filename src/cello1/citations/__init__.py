"""The cells, types and genes that reasons name, checked against the data."""
