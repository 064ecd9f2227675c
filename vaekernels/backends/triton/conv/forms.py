"""The convolutions of the ops, as the engine sees them: windows of samples, in both directions.

With P phases and stride S, output ``P j + q`` takes the samples from ``S j + start`` on, one after
the other, where ``start`` is that of window q:

    y[P j + q] = sum_t w_qt x[S j + start_q + t]

w_qt is the sum of the filter's taps ``window.taps[t]``: one, or several where nearest-2x upsampling
has the filter meet a sample repeatedly. The same holds in both directions, with products of
the factors. The gradient of a form's input is its adjoint, which is a form too, so a backward is a
forward of another form with the channels exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Window:
    """What an output of one phase reads.

    Attributes:
        start: of the samples, beside ``stride * j``.
        taps: per sample, the filter's taps whose sum is its factor.
    """

    start: int
    taps: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, taps: Mapping[int, tuple[int, ...]]) -> Window:
        """The window with these taps at these samples."""
        start, last = min(taps), max(taps)
        return cls(start, tuple(taps.get(i, ()) for i in range(start, last + 1)))

    @property
    def end(self) -> int:
        """Behind the last sample."""
        return self.start + len(self.taps)


@dataclass(frozen=True)
class Form:
    """A linear map from images to images.

    Attributes:
        kernel: taps of the filter in each direction.
        stride: S.
        windows: one per output phase.
    """

    kernel: int
    stride: int
    windows: tuple[Window, ...]

    @property
    def phases(self) -> int:
        """P."""
        return len(self.windows)

    @property
    def taps(self) -> int:
        """Samples in the longest window."""
        return max(len(window.taps) for window in self.windows)

    def cells(self, outputs: int) -> int:
        """How many j make so many outputs."""
        return -(-outputs // self.phases)

    def pitch(self, samples: int, outputs: int) -> int:
        """Cells of S samples from one image line to the next, so that windows may leave it.

        A window that begins before a line reads the end of the one before; so both borders are the
        same zeros.
        """
        cells = self.cells(outputs)
        before = max(0, *(-window.start for window in self.windows))
        end = self.stride * (cells - 1) + max(window.end for window in self.windows)
        return max(cells, -(-max(samples + before, end) // self.stride))

    @property
    def reach(self) -> tuple[int, int]:
        """The first and the last cell that a window touches, from that of its output."""
        return (
            min(window.start // self.stride for window in self.windows),
            max((window.end - 1) // self.stride for window in self.windows),
        )


def strided(kernel: int, stride: int, padding: int) -> Form:
    """A convolution; ``padding`` is that before the image."""
    return Form(kernel, stride, (Window(-padding, tuple((tap,) for tap in range(kernel))),))


@cache
def adjoint(form: Form) -> Form:
    """The form from outputs to samples."""
    windows = []
    for phase in range(form.stride):
        met = {}
        for q, window in enumerate(form.windows):
            for t, taps in enumerate(window.taps):
                j, rest = divmod(phase - window.start - t, form.stride)
                if rest == 0:
                    met[form.phases * j + q] = taps
        windows.append(Window.of(met))
    return Form(form.kernel, form.phases, tuple(windows))


POINT = strided(1, 1, 0)
SAME = strided(3, 1, 1)
# The 3 taps of an even and of an odd output on the samples before they are repeated.
UPSAMPLE = Form(3, 1, (Window(-1, ((0,), (1, 2))), Window(0, ((0, 1), (2,)))))
DOWN4X4 = strided(4, 2, 1)
UP4X4 = adjoint(DOWN4X4)
DOWN3X3 = {"asymmetric": strided(3, 2, 0), "symmetric": strided(3, 2, 1)}
