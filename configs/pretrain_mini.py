"""BERT-Mini, 4 layers of 256, a released miniature (arXiv 1908.08962), by BERT's recipe on your own text.

    bert-jax pretrain --config pretrain_mini --workdir runs/mini --corpus.files 'text/*' --tokenizer.path vocab.txt

The released weights' scores, GLUE test (google-research/bert): score 65.8; MNLI-m 74.8, SST-2 85.9, QNLI 84.1.
"""

import dataclasses

from bert_jax.config import PretrainConfig, model_preset
from bert_jax.config.files import load_config


def get_config() -> PretrainConfig:
    model = model_preset("mini", hidden_act="gelu_tanh", dtype="bfloat16")
    return dataclasses.replace(load_config("pretrain_base"), model=model)
