"""The objectives by name. Whoever brings another adds it to these."""

from collections.abc import Callable

from bert_jax.config import InputError
from bert_jax.config.checks import did_you_mean
from bert_jax.models import Model
from bert_jax.objectives.base import Objective
from bert_jax.objectives.head import HeadObjective

OBJECTIVES: dict[str, Callable[[Model], Objective]] = {"head": HeadObjective}
"""By the name that a config has for it, a function from the model that is trained to its objective."""


def check_name(name: str) -> None:
    """Raises `InputError` where there is no objective of that name, with the nearest that there is."""
    if name not in OBJECTIVES:
        raise InputError(f"objective: is {name!r:.99}; {did_you_mean(name[:99], OBJECTIVES)}")


def make_objective(name: str, model: Model) -> Objective:
    """The objective of that name for a model. Raises `InputError` where there is none."""
    check_name(name)
    return OBJECTIVES[name](model)
