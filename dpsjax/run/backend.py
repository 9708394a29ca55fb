"""Whether JAX can run here at all, told in a sentence and not in its traceback."""

import os
from collections.abc import Mapping

import jax


def require_backend(environment: Mapping[str, str] = os.environ) -> None:
    """Initialise the devices; call it once the processes of a run are joined.

    Args:
        environment: variables of the process, for the message.

    Raises:
        ValueError: the platform that ``JAX_PLATFORMS`` names is not there, or transfers between
            host and device are forbidden.
    """
    guard = str(getattr(jax.config, "jax_transfer_guard", None) or "allow")
    if guard.startswith("disallow"):
        raise ValueError(
            f"JAX_TRANSFER_GUARD={guard} forbids what every step does, prompts to the device and "
            "rewards back: unset it, or set it to log"
        )
    try:
        jax.devices()
    except RuntimeError as error:
        named, reason = environment.get("JAX_PLATFORMS", ""), str(error).splitlines()[0]
        raise ValueError(
            f"no device can be used with JAX_PLATFORMS={named!r}: {reason}; name a platform that "
            "is here, such as JAX_PLATFORMS=cpu, or unset it"
        ) from None
