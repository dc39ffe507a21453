"""How results read: tables in the terminal."""
