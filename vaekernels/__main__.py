"""The console script ``vaekernels``, and ``python -m vaekernels``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its packages, end with exit code 2 and their names."""
    try:
        from vaekernels import cli
    except ModuleNotFoundError as error:
        sys.exit(_report(error))
    cli.main()


def _report(error: ModuleNotFoundError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
