"""Will it fit, and how long will a step take: a plan of a run on TPUs, made without any."""

import dpsjax.extras.train  # says what is missing
