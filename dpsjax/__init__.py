"""dpsjax: vectorized Bayesian curricula for RL finetuning in JAX.

The curriculum is part of the train state: what is believed about every prompt is a pytree of
arrays that lives beside the parameters.
"""

from dpsjax import selectors
from dpsjax.belief import hmm
from dpsjax.checks import checkify
from dpsjax.curriculum import Curriculum
from dpsjax.host.fingerprint import fingerprint
from dpsjax.selectors import (
    Batch,
    Feedback,
    Outlook,
    Selector,
    advance,
    chain,
    inspect,
    observe,
    select,
)

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Curriculum",
    "Feedback",
    "Outlook",
    "Selector",
    "advance",
    "chain",
    "checkify",
    "fingerprint",
    "hmm",
    "inspect",
    "observe",
    "select",
    "selectors",
]
