"""What the terminal shows: tables and progress bars."""
