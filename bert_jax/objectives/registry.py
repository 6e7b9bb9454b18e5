"""The objectives by name. To have another, add it to the dict."""

from collections.abc import Callable

from bert_jax.config import InputError
from bert_jax.config.checks import did_you_mean
from bert_jax.models import Model
from bert_jax.objectives.base import Objective
from bert_jax.objectives.head import HeadObjective

OBJECTIVES: dict[str, Callable[[Model], Objective]] = {"head": HeadObjective}
"""Functions that make an objective of the model to train, by the objective's name in a config."""


def check_name(name: str) -> None:
    """Raises `InputError` if there is no objective of that name; the message has the nearest known name."""
    if name not in OBJECTIVES:
        raise InputError(f"objective: is {name!r:.99}; {did_you_mean(name[:99], OBJECTIVES)}")


def make_objective(name: str, model: Model) -> Objective:
    """The objective of that name for a model. Raises `InputError` if there is none."""
    check_name(name)
    return OBJECTIVES[name](model)
