"""``ObjectiveConfig``: the settings of the objectives that can be chosen by name."""

from __future__ import annotations

from dataclasses import dataclass, fields

from vaekernels.objectives.base import Objective
from vaekernels.objectives.elbo import ELBO
from vaekernels.objectives.iwae import IWAE
from vaekernels.utils.fields import check_fields, choice, number, size

# The settings that each objective has.
OBJECTIVES = {"elbo": ("beta", "kl_warmup_epochs", "free_bits"), "iwae": ("importance_samples",)}


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        objective: ``"elbo"``, or ``"iwae"``, the importance weighted bound.
        beta: elbo: weight of the KL term; 1 is the ELBO.
        kl_warmup_epochs: elbo: the weight of the KL term grows linearly from 0 over these.
        free_bits: elbo: nats of KL per latent dim that cost nothing.
        importance_samples: iwae: samples of each image's posterior.
    """

    objective: str = choice("elbo", OBJECTIVES)
    beta: float = number(1.0)
    kl_warmup_epochs: float = number(0.0)
    free_bits: float = number(0.0)
    importance_samples: int = size(5)

    def __post_init__(self) -> None:
        check_fields(self)
        for field in fields(ObjectiveConfig)[1:]:
            value = getattr(self, field.name)
            if field.name not in OBJECTIVES[self.objective] and value != field.default:
                raise ValueError(
                    f"{field.name} must be {field.default} for the objective {self.objective}, "
                    f"which does not use it; got {value}"
                )

    def build(self, seed: int, steps_per_epoch: int) -> Objective:
        """The objective for a model with a Gaussian posterior.

        Args:
            seed: of the noise.
            steps_per_epoch: what the epochs of the warm-up are multiplied with.
        """
        if self.objective == "iwae":
            return IWAE(self.importance_samples, seed)
        return ELBO(self.beta, self.free_bits, self.kl_warmup_epochs * steps_per_epoch, seed)
