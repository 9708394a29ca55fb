"""What an installation has: the extras of ``pip install 'dpsjax[NAME]'``, and what lacks them.

``import dpsjax``, the selectors and :class:`dpsjax.Curriculum` need JAX, NumPy and jaxtyping alone.
"""

import importlib.util

TRAIN = ("chex", "flax", "matplotlib", "optax", "orbax", "rich", "safetensors", "scipy", "tyro")


def require_train(wanted_by: str) -> None:
    """Demand the extra ``train``.

    Args:
        wanted_by: for the message.

    Raises:
        ImportError: a package of it is missing; it says what to install.
    """
    missing = [name for name in TRAIN if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{wanted_by} needs {', '.join(missing)}: pip install 'dpsjax[train]'; selectors and "
            "dpsjax.Curriculum do without"
        )
