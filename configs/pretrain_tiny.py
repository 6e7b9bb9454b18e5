"""A small BERT in minutes on two cores: the quick start, on the documentation of the running Python.

bert-jax pretrain --config pretrain_tiny --workdir runs/tiny
"""

from bert_jax.config import (
    CorpusConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    TokenizerConfig,
    model_preset,
)


def get_config() -> PretrainConfig:
    return PretrainConfig(
        corpus=CorpusConfig(source="python-docs", held_out=0.05),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=4096),
        model=model_preset(
            "tiny", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=128
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100),
        phases=(Phase(sequence_length=128, batch_size=64, steps=1000, max_predictions=20),),
        run=RunConfig(log_every=20, evaluate_every=200, checkpoint_every=200),
    )
