"""The application: global options, and errors as one line."""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# The class is Click's, or a copy of it in Typer, depending on the version of Typer.
UsageError: Any = typer.BadParameter.__mro__[1]


class CleanErrors(TyperGroup):
    """Print known errors of any command as one line on stderr and exit with 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo(str(interrupt) or "interrupted", err=True)
            raise typer.Exit(130) from interrupt
        except UsageError as error:
            typer.echo(f"error: {_one_line(error.format_message())}", err=True)
            raise typer.Exit(2) from error
        except Exception as error:
            if ctx.params.get("traceback") or not _is_known(error):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of the pipe has exited
            typer.echo(f"error: {_one_line(_message(error))}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="vaekernels",
    cls=CleanErrors,
    help="Fast, exact kernels for variational autoencoders: train, inspect, encode, measure.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Fast, exact kernels for variational autoencoders: train, inspect, encode, measure."""
    from vaekernels.backends import registry

    registry.requested()  # raises for an invalid VAEKERNELS_BACKEND before any work


def _is_known(error: Exception) -> bool:
    """Whether the message is sufficient: errors of bad input, and out-of-memory errors."""
    import torch

    from vaekernels.backends.extension import ExtensionError
    from vaekernels.backends.registry import BackendError

    known = (
        ValueError,
        TypeError,
        OSError,
        FloatingPointError,
        ModuleNotFoundError,
        MemoryError,
        BackendError,
        ExtensionError,
        torch.OutOfMemoryError,
    )
    # PyTorch has no error class for out of memory on the CPU.
    return isinstance(error, known) or "DefaultCPUAllocator" in str(error)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            return error.strerror
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _one_line(message: str) -> str:
    return " ".join(message.split())
