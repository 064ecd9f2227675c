"""The public ops: one function per file, named as its torch op and its kernels are."""

from vaekernels.ops._filters import empty_cache
from vaekernels.ops._precision import set_conv_precision
from vaekernels.ops.bernoulli_nll import bernoulli_nll
from vaekernels.ops.conv3x3 import NormPrologue, conv3x3
from vaekernels.ops.conv_transpose4x4 import conv_transpose4x4
from vaekernels.ops.downsample_conv3x3 import downsample_conv3x3
from vaekernels.ops.downsample_conv4x4 import downsample_conv4x4
from vaekernels.ops.gaussian_kl import gaussian_kl
from vaekernels.ops.gaussian_nll import gaussian_nll
from vaekernels.ops.group_norm_silu import group_norm_silu
from vaekernels.ops.laplace_nll import laplace_nll
from vaekernels.ops.randn import randn
from vaekernels.ops.rsample_kl import rsample_kl
from vaekernels.ops.upsample_conv3x3 import upsample_conv3x3

__all__ = [
    "NormPrologue",
    "bernoulli_nll",
    "conv3x3",
    "conv_transpose4x4",
    "downsample_conv3x3",
    "downsample_conv4x4",
    "empty_cache",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "randn",
    "rsample_kl",
    "set_conv_precision",
    "upsample_conv3x3",
]
