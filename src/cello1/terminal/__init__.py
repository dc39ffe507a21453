"""Tables and progress bars for the terminal."""
