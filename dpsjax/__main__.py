"""``dpsjax`` and ``python -m dpsjax``: the command line, or what it lacks."""

import sys

from dpsjax.extras import require_train


def main() -> int:
    """Run what was typed.

    Returns:
        the exit code; 2 where the extra ``train`` is not installed.
    """
    try:
        require_train("the command line")
    except ImportError as error:
        print(f"dpsjax: {error}", file=sys.stderr)
        return 2
    from dpsjax.cli import main as command  # only now: it imports all of the extra

    return command()


if __name__ == "__main__":
    sys.exit(main())
