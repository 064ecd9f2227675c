"""Plain PyTorch: the specification of every op, its fallback and its test oracle."""

from vaekernels.backends.reference.bernoulli_nll import bernoulli_nll
from vaekernels.backends.reference.conv3x3 import conv3x3
from vaekernels.backends.reference.conv_transpose4x4 import conv_transpose4x4
from vaekernels.backends.reference.downsample_conv3x3 import downsample_conv3x3
from vaekernels.backends.reference.downsample_conv4x4 import downsample_conv4x4
from vaekernels.backends.reference.gaussian_kl import gaussian_kl
from vaekernels.backends.reference.gaussian_nll import gaussian_nll
from vaekernels.backends.reference.group_norm_silu import group_norm_silu
from vaekernels.backends.reference.laplace_nll import laplace_nll
from vaekernels.backends.reference.randn import randn
from vaekernels.backends.reference.rsample_kl import rsample_kl
from vaekernels.backends.reference.upsample_conv3x3 import upsample_conv3x3

__all__ = [
    "bernoulli_nll",
    "conv3x3",
    "conv_transpose4x4",
    "downsample_conv3x3",
    "downsample_conv4x4",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "randn",
    "rsample_kl",
    "upsample_conv3x3",
]
