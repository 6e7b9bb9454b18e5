"""BERT-Large by the original recipe (arXiv 1810.04805, appendix A.2), on your own text.

    bert-jax pretrain --config pretrain_large --workdir runs/large --corpus.files 'text/*' --tokenizer.path vocab.txt

On eight chips of TPU v5e the second phase needs --mesh.data 1 --mesh.fsdp -1 (docs/scaling.md).

The recipe is BERT-Base's. Expected on Wikipedia and BooksCorpus: held-out masked-LM perplexity 3.23 (loss 1.17 nats);
fine-tuned, GLUE test 82.1 on average (MNLI 86.7/85.9), SQuAD 1.1 dev 84.1 EM and 90.9 F1.
"""

import dataclasses

from bert_jax.config import PretrainConfig, model_preset
from bert_jax.config.files import load_config


def get_config() -> PretrainConfig:
    return dataclasses.replace(load_config("pretrain_base"), model=model_preset("large", dtype="bfloat16"))
