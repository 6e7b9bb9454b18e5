"""What training minimises: functions from parameters, a batch and a key to sums and counts."""

from bert_jax.objectives.base import Objective
from bert_jax.objectives.head import HeadObjective
from bert_jax.objectives.registry import OBJECTIVES, check_name, make_objective

__all__ = ["OBJECTIVES", "HeadObjective", "Objective", "check_name", "make_objective"]
