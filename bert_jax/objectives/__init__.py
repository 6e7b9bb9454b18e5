"""What a training minimises: functions of parameters, a batch and a key, to sums and counts."""

from bert_jax.objectives.base import Objective
from bert_jax.objectives.head import HeadObjective

__all__ = ["HeadObjective", "Objective"]
