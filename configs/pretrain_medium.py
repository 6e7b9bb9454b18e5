"""BERT-Medium, 8 layers of 512, a released miniature (arXiv 1908.08962), by BERT's recipe on your own text.

    bert-jax pretrain --config pretrain_medium --workdir runs/medium --corpus.files 'text/*' --tokenizer.path vocab.txt

The released weights' scores, GLUE test (google-research/bert): score 73.5; MNLI-m 80.0, SST-2 89.6, QNLI 87.7.
"""

import dataclasses

from bert_jax.config import PretrainConfig, model_preset
from bert_jax.config.files import load_config


def get_config() -> PretrainConfig:
    model = model_preset("medium", hidden_act="gelu_tanh", dtype="bfloat16")
    return dataclasses.replace(load_config("pretrain_base"), model=model)
