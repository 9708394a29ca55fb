"""One training step: select, generate, score, update; and what it is made of."""

import dpsjax.extras.train  # says what is missing
