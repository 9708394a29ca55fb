"""A whole run: settings, checkpoints, several processes, faults."""

import dpsjax.extras.train  # says what is missing
