"""BERT-Base by the original recipe (arXiv 1810.04805, appendix A.2), on your own text.

    bert-jax pretrain --config pretrain_base --workdir runs/base --corpus.files 'text/*' --tokenizer.path vocab.txt

A million steps of 256 examples, 90 % of them at length 128, the rest at 512: at most 256 * 512 tokens in a batch, about
40 epochs over Wikipedia and BooksCorpus (3.3 billion words). Expected there: held-out masked-LM perplexity 3.99 (loss
1.38 nats); fine-tuned, GLUE test 79.6 on average (MNLI 84.6/83.4), SQuAD 1.1 dev 80.8 EM and 88.5 F1.
"""

from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    MaskingConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    TokenizerConfig,
    model_preset,
)


def get_config() -> PretrainConfig:
    return PretrainConfig(
        corpus=CorpusConfig(source="text", files=("text/*.txt",), held_out=0.001),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=30_522, lowercase=True),
        examples=ExamplesConfig(format="sentence_pairs", short_sequence_probability=0.1),
        masking=MaskingConfig(rate=0.15, random_tokens="all"),
        model=model_preset("base", dtype="bfloat16"),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=1e-4,
            b1=0.9,
            b2=0.999,
            eps=1e-6,
            weight_decay=0.01,
            bias_correction=False,
            warmup_steps=10_000,
            decay="from_zero",
            clip_norm=1.0,
        ),
        phases=(
            Phase(sequence_length=128, batch_size=256, steps=900_000, max_predictions=20),
            Phase(sequence_length=512, batch_size=256, steps=100_000, max_predictions=77),
        ),
        run=RunConfig(log_every=100, evaluate_every=10_000, checkpoint_every=10_000, keep_last=2, keep_best=1),
    )
