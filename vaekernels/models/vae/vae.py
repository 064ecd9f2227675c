"""``vk.models.VAE``: the plain variational autoencoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.models.image_range import check_range
from vaekernels.models.pretrained import PretrainedModel
from vaekernels.models.vae import interpolation
from vaekernels.models.vae.backbones import build_backbone
from vaekernels.models.vae.config import VAEConfig
from vaekernels.models.vae.likelihoods import build_likelihood
from vaekernels.models.vae.outputs import DecoderOutput, EncoderOutput, VAEOutput
from vaekernels.objectives import Objective, ObjectiveConfig, importance_weighted_bound
from vaekernels.objectives.elbo import NegativeELBO, negative_elbo
from vaekernels.ops import randn
from vaekernels.ops._seed import seed_tensor
from vaekernels.runtime.nonfinite_policy import warn_if_slow
from vaekernels.utils.limits import LARGEST_FLOAT


class VAE(PretrainedModel):
    r"""A variational autoencoder with a standard normal prior and a diagonal posterior.

    .. math::
        p(x, z) = \mathcal N(z;\ 0, I)\, p(x \mid z), \qquad
        q(z \mid x) = \mathcal N(z;\ \mu(x), \mathrm{diag}\, e^{\ell(x)})

    Images are (B, C, H, W) in the dtype and on the device of the parameters, in [0, 1] for the
    Bernoulli likelihood and finite for the others.

    The noise is ``vk.randn``'s: it depends on ``seed``, ``step`` and ``sample_ids`` alone, on
    every device and in any batch order. Without a seed one is drawn from ``generator``, or from
    torch's default generator.

    Args:
        config: the architecture.

    Attributes:
        check_range: whether images are checked where they come in, by one pass over them: those
            in another range and NaN raise; values of the size of 8-bit images warn where the
            likelihood takes any. On a GPU that waits for the images. Set it to False where they
            are known to fit. ``torch.compile`` and the replays of :func:`vk.graph` do not check.

    Raises:
        TypeError: ``config`` is not a :class:`VAEConfig`.

    Paper: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013.

    Example:
        >>> model = VAE(VAEConfig(image_shape=(1, 28, 28), latent_dim=20))
        >>> output = model(images)
        >>> output.loss.backward()
    """

    config: VAEConfig
    config_class = VAEConfig

    def __init__(self, config: VAEConfig) -> None:
        if not isinstance(config, VAEConfig):
            raise TypeError(f"VAE: config must be a VAEConfig; got {type(config).__name__}")
        super().__init__(config)
        self.encoder, self.decoder = build_backbone(config)
        self.likelihood = build_likelihood(config)
        self.check_range = True

    def forward(
        self,
        x: Tensor,
        *,
        beta: float = 1.0,
        free_bits: float = 0.0,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> VAEOutput:
        r"""Encode, sample, decode, and take the loss.

        .. math::
            \mathrm{loss} = \frac1B \sum_b \mathrm{nll}_b + \beta\, \mathrm{kl}_b

        Args:
            x: (B, C, H, W) images.
            beta: weight of the KL, at least 0.
            free_bits: nats per latent dim that cost no more than not using the dim: the batch
                mean of each dim's KL counts as at least this much, in the loss and not in
                ``kl``. In a process group the mean is over this process's batch.
            seed: 64 bits: an integer, or an int64 tensor with one element.
            step: a second key for the noise, in [0, 2**32): the training step.
            sample_ids: (B,) int64, each image's identity in the noise; None is ``arange(B)``.
            generator: where the seed is drawn from when ``seed`` is None.

        Returns:
            A :class:`VAEOutput`.

        Raises:
            TypeError: an argument has the wrong kind or dtype.
            ValueError: a shape, a device, a range, ``beta`` or ``free_bits`` does not fit.

        Paper: beta: I. Higgins et al., "beta-VAE", ICLR 2017; free bits: D. Kingma et al.,
        "Improved variational inference with inverse autoregressive flow", NeurIPS 2016.
        """
        out = self._negative_elbo(
            x, beta, free_bits, seed=seed, step=step, sample_ids=sample_ids, generator=generator
        )
        return VAEOutput(out.cost.mean(), self.likelihood.mean(out.raw), out.nll, out.kl, out.z)

    def encode(self, x: Tensor) -> EncoderOutput:
        """The posterior q(z | x).

        Args:
            x: (B, C, H, W) images.

        Returns:
            An :class:`EncoderOutput`: ``latent_dist`` is a :class:`vk.DiagonalGaussian` with
            mean and log variance (B, L).

        Raises:
            TypeError: ``x`` is not a tensor in the dtype of the parameters.
            ValueError: the shape, the device or the range of ``x`` does not fit.
        """
        self._check("x", x, self.config.image_shape)
        if self.check_range:
            check_range("VAE", "x", x, self.likelihood.support)
        return EncoderOutput(DiagonalGaussian(self.encoder(x)))

    def decode(self, z: Tensor) -> DecoderOutput:
        """The mean image of p(x | z).

        Args:
            z: (B, L) latents.

        Returns:
            A :class:`DecoderOutput`: ``sample`` is (B, C, H, W).

        Raises:
            TypeError: ``z`` is not a tensor in the dtype of the parameters.
            ValueError: the shape or the device of ``z`` does not fit.
        """
        self._check("z", z, (self.config.latent_dim,))
        raw = self.decoder(z)
        return DecoderOutput(self.likelihood.mean(raw), raw)

    def elbo(
        self,
        x: Tensor,
        beta: float = 1.0,
        free_bits: float = 0.0,
        *,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Evidence lower bound of each image, from one sample of its posterior.

        .. math::
            \mathrm{elbo}_b = \log p(x_b \mid z_b) - \beta\, \mathrm{KL}(q(z \mid x_b)\ \|\ p(z))

        The arguments, and what is raised, are those of :meth:`forward`, whose ``loss`` is the
        negative mean of this. With ``beta`` not 1 or ``free_bits`` not 0 it is no bound.

        Returns:
            (B,) in nats, float32 (float64 for a float64 model). Gradients flow to the weights.
        """
        out = self._negative_elbo(
            x, beta, free_bits, seed=seed, step=step, sample_ids=sample_ids, generator=generator
        )
        return -out.cost

    @torch.no_grad()
    def marginal_log_likelihood(
        self,
        x: Tensor,
        samples: int,
        *,
        chunk: int = 16,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Log likelihood of each image by importance sampling from its posterior.

        .. math::
            \log \hat p_K(x) = \log \frac1K \sum_{k=1}^K
            \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

        A lower bound in expectation that tightens as K grows; the ELBO for K = 1. Records no
        gradients.

        Args:
            x: (B, C, H, W) images.
            samples: K, at least 1.
            chunk: samples decoded at once: memory grows with ``chunk * B``, not with K, and
                the result does not depend on it but for rounding.
            seed: 64 bits: an integer, or an int64 tensor with one element.
            step: sample k has the noise of step ``step + k``.
            sample_ids: (B,) int64, each image's identity in the noise; None is ``arange(B)``.
            generator: where the seed is drawn from when ``seed`` is None.

        Returns:
            (B,) in nats, float32 (float64 for a float64 model).

        Raises:
            TypeError: an argument has the wrong kind or dtype.
            ValueError: a shape, a device, ``samples``, ``chunk`` or ``step`` does not fit.

        Paper: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", 2015
        (equation 8).
        """
        _check_count("samples", samples, least=1)
        _check_count("chunk", chunk, least=1)
        return importance_weighted_bound(
            self,
            x,
            samples,
            seed=seed_tensor("VAE", seed, generator, self.device),
            step=step,
            sample_ids=sample_ids,
            chunk=chunk,
        )

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Mean images of latents drawn from the prior.

        .. math::
            z \sim \mathcal N(0, I), \qquad \mathbb E[x \mid z]

        Records no gradients; for those, ``decode(vk.randn(...))``.

        Args:
            n: how many, at least 0.
            seed: 64 bits: an integer, or an int64 tensor with one element.
            step: a second key for the noise, in [0, 2**32).
            sample_ids: (n,) int64, each image's identity in the noise; None is ``arange(n)``.
            generator: where the seed is drawn from when ``seed`` is None.

        Returns:
            (n, C, H, W), on the device of the parameters.

        Raises:
            TypeError: an argument has the wrong kind or dtype.
            ValueError: ``n``, ``seed``, ``step`` or ``sample_ids`` does not fit.
        """
        _check_count("n", n, least=0)
        z = randn(
            (n, self.config.latent_dim),
            seed=seed_tensor("VAE", seed, generator, self.device),
            step=step,
            sample_ids=sample_ids,
            device=self.device,
            dtype=self.dtype,
        )
        return self.decode(z).sample

    @torch.no_grad()
    def interpolate(
        self, a: Tensor, b: Tensor, steps: int, *, path: interpolation.PathName = "linear"
    ) -> Tensor:
        r"""Mean images along a path between the posterior means of two batches of images.

        .. math::
            z_t = (1 - t)\, \mu(a) + t\, \mu(b), \qquad t = 0, \dots, 1

        Records no gradients.

        Args:
            a: (B, C, H, W) images.
            b: as many images as ``a``.
            steps: images along the path, at least 2: the first is the reconstruction of ``a``,
                the last that of ``b``.
            path: ``"linear"``, or ``"spherical"``: along the great circle.

        Returns:
            (B, steps, C, H, W).

        Raises:
            TypeError: an argument has the wrong kind or dtype.
            ValueError: a shape, a device, ``steps`` or ``path`` does not fit.

        Paper: the spherical path: T. White, "Sampling generative networks", 2016.
        """
        _check_count("steps", steps, least=2)
        if path not in ("linear", "spherical"):
            raise ValueError(f"VAE: path must be one of linear, spherical; got {path!r}")
        first, second = (self.encode(image).latent_dist.mode() for image in (a, b))
        if first.shape != second.shape:
            raise ValueError(
                f"VAE: b must have the shape of a, {tuple(a.shape)}; got {tuple(b.shape)}"
            )
        along = interpolation.lerp if path == "linear" else interpolation.slerp
        z = along(first, second, steps)
        return self.decode(z.flatten(0, 1)).sample.unflatten(0, (-1, steps))

    def objective(self, settings: ObjectiveConfig, seed: int, steps_per_epoch: int) -> Objective:
        """The loss that ``vaekernels train`` minimises; see :class:`ObjectiveConfig`."""
        return settings.build(seed, steps_per_epoch)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype

    def _negative_elbo(
        self, x: Tensor, beta: float, free_bits: float, **noise: Any
    ) -> NegativeELBO:
        _check_weight("beta", beta)
        _check_weight("free_bits", free_bits)
        return negative_elbo(self, x, beta=beta, free_bits=free_bits, **noise)

    def _check(self, name: str, tensor: Tensor, event: tuple[int, ...]) -> None:
        """``tensor`` is (B, *event), in the dtype and on the device of the parameters."""
        if not isinstance(tensor, Tensor):
            raise TypeError(f"VAE: {name} must be a tensor; got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(
                f"VAE: {name} must be a floating tensor, {self.dtype} as the parameters; "
                f"got {tensor.dtype} (divide images of 8 bits by 255)"
            )
        if tuple(tensor.shape[1:]) != event or tensor.ndim != len(event) + 1:
            expected = ", ".join(str(size) for size in event)
            raise ValueError(
                f"VAE: {name} must have shape (B, {expected}); got {tuple(tensor.shape)}"
            )
        if tensor.device != self.device:
            raise ValueError(
                f"VAE: {name} must be on the device of the parameters, {self.device}; "
                f"got {tensor.device}"
            )
        if tensor.dtype != self.dtype and not torch.is_autocast_enabled(tensor.device.type):
            raise TypeError(
                f"VAE: {name} must be {self.dtype}, as the parameters; got {tensor.dtype}"
            )
        warn_if_slow("VAE", tensor)


def _check_weight(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"VAE: {name} must be a number; got {type(value).__name__}")
    if not 0 <= value < math.inf:
        raise ValueError(f"VAE: {name} must be at least 0 and finite; got {value}")
    if value > LARGEST_FLOAT:
        raise ValueError(f"VAE: {name} must be at most {LARGEST_FLOAT:.3g}; got {value}")


def _check_count(name: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"VAE: {name} must be an integer; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"VAE: {name} must be at least {least}; got {value}")
