"""The launchers' arguments pass through Triton's own specialisation and compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_launchers_compile_what_they_launch() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dry_launch.py"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    launched = result.stdout.split()
    assert launched.count("rsample_kl_backward_kernel") == 2
    assert launched.count("laplace_nll_kernel") == 2
    assert "merge_segments_kernel" in launched
    assert launched.count("group_norm_silu_kernel") == 3  # one is before cuDNN
    assert launched.count("merge_moments_kernel") == 5  # three are before convolutions
    assert "group_norm_silu_backward_kernel" in launched
    # Results and gradients of x; each once more with other filters.
    assert launched.count("tap_gemm_kernel") == 9
    assert launched.count("pack_kernel") == 10  # one is of a projection
    assert launched.count("merge_tiles_kernel") == 4
    assert launched.count("finish_kernel") == 1
    assert launched.count("merge_parts_kernel") == 3
    assert launched.count("filter_gradient_kernel") == launched.count("unpack_kernel") == 3
