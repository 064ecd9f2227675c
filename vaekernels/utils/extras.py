"""Optional packages: the error for a missing one names the extra that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# Names on the package index where they differ from those of the modules.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Imports of optional packages are made inside the ``with`` block.

    Args:
        extra: the extra with these packages, as in ``pip install 'vaekernels[cli]'``.
        what: what needs them, the first words of the error.

    Raises:
        ModuleNotFoundError: one of the packages is not installed.

    Example:
        >>> with needs_extra("plot", "a plot"):
        ...     from matplotlib.figure import Figure
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "vaekernels"):
            raise
        package = _DISTRIBUTIONS.get(module, module)
        raise ModuleNotFoundError(
            f"{what} needs the package {package}: pip install 'vaekernels[{extra}]'",
            name=error.name,
        ) from error
