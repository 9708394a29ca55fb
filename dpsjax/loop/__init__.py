"""One training step: select, generate, score, update; and what it is made of."""
