"""The application: global options, and errors as one line."""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class CleanErrors(TyperGroup):
    """Known errors of any command end as one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo(str(interrupt) or "interrupted", err=True)
            raise typer.Exit(130) from interrupt
        except Exception as error:
            if ctx.params.get("traceback") or not isinstance(error, _known_errors()):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe went away: nothing to report
            typer.echo(f"error: {_one_line(error)}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="vaekernels",
    cls=CleanErrors,
    help="Fast, exact kernels for variational autoencoders: train, look, encode, measure.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from.")
    ] = False,
) -> None:
    """Fast, exact kernels for variational autoencoders: train, look, encode, measure."""
    from vaekernels import registry

    registry.requested()  # a mistake in the environment, before any work


def _known_errors() -> tuple[type[Exception], ...]:
    import torch

    from vaekernels._extension import ExtensionError
    from vaekernels.registry import BackendError

    return (
        ValueError,
        TypeError,
        OSError,
        FloatingPointError,
        ModuleNotFoundError,
        BackendError,
        ExtensionError,
        torch.OutOfMemoryError,
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        message = (
            error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        )
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split())
