"""An optimizer and a schedule from outside: RAdam (arXiv 1908.03265), and a rate that falls by the root."""

import jax.numpy as jnp
import optax

from bert_jax.config import FinetuneConfig, OptimizerConfig
from bert_jax.training.optimizer import SCHEDULES
from bert_jax.training.optimizers import OPTIMIZERS, decayed


def radam(config):
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    return [optax.scale_by_radam(config.b1, config.b2, config.eps), decay]


def one_minus_sqrt(schedule, step):
    """The share of the peak rate at a step after the warm-up (arXiv 2405.18392)."""
    return 1 - jnp.sqrt((step - schedule.warmup) / (schedule.steps - schedule.warmup))


OPTIMIZERS["radam"] = radam
SCHEDULES["one_minus_sqrt"] = one_minus_sqrt


def get_config():
    optimizer = OptimizerConfig("radam", learning_rate=1e-3, schedule="one_minus_sqrt", eps=1e-8)
    return FinetuneConfig(optimizer=optimizer, sequence_length=16, batch_size=8, epochs=2, warmup=0.25)
