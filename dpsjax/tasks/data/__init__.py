"""Files of problems: their rows, their columns, and tasks made of texts."""
