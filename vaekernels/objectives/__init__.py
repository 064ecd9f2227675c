"""Objectives of training and evaluation: ``(model, batch, step) -> LossTerms``."""

from vaekernels.objectives.base import Batch, LossTerms, Objective
from vaekernels.objectives.config import OBJECTIVES, ObjectiveConfig
from vaekernels.objectives.elbo import ELBO, free_bits_kl, negative_elbo
from vaekernels.objectives.iwae import IWAE, importance_weighted_bound

__all__ = [
    "ELBO",
    "IWAE",
    "OBJECTIVES",
    "Batch",
    "LossTerms",
    "Objective",
    "ObjectiveConfig",
    "free_bits_kl",
    "importance_weighted_bound",
    "negative_elbo",
]
