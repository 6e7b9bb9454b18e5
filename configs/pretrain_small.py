"""BERT-Small, 4 layers of 512, a released miniature (arXiv 1908.08962), by BERT's recipe on your own text.

    bert-jax pretrain --config pretrain_small --workdir runs/small --corpus.files 'text/*' --tokenizer.path vocab.txt

The released weights' scores, GLUE test (google-research/bert): score 71.2; MNLI-m 77.6, SST-2 89.7, QNLI 86.4.
"""

import dataclasses

from bert_jax.config import PretrainConfig, model_preset
from bert_jax.config.files import load_config


def get_config() -> PretrainConfig:
    model = model_preset("small", hidden_act="gelu_tanh", dtype="bfloat16")
    return dataclasses.replace(load_config("pretrain_base"), model=model)
