"""A GLUE task by the original recipe (arXiv 1810.04805, section 4.1 and appendix A.3).

    bert-jax finetune --config finetune_glue --task rte --init bert-base-uncased --workdir runs/rte
    bert-jax evaluate --config finetune_glue --task rte --model runs/rte

Batches of 32, 3 epochs, texts cut at 128 tokens, the model's own dropout. The paper takes the best of the learning
rates 5e-5, 4e-5, 3e-5 and 2e-5 on the dev set (--optimizer.learning-rate); on small sets, seeds differ by points.
Unlike in the original, Adam corrects its bias, with which runs on small sets fail less often (arXiv 2006.05987), and
the learning rate decays from the end of the warm-up.

Expected on the test sets, from the paper's table 1 (F1 for QQP and MRPC, Spearman for STS-B, Matthews for CoLA, else
accuracy), and on dev for BERT-Base cased, the means of five runs of transformers' Flax example at 2e-5:

    |       | MNLI m/mm | QQP  | QNLI | SST-2 | CoLA | STS-B | MRPC | RTE  |
    |-------|-----------|------|------|-------|------|-------|------|------|
    | Base  | 84.6/83.4 | 71.2 | 90.5 | 93.5  | 52.1 | 85.8  | 88.9 | 66.4 |
    | Large | 86.7/85.9 | 72.1 | 92.7 | 94.9  | 60.5 | 86.5  | 89.3 | 70.1 |
    | dev   | 83.8      | 87.5 | 90.8 | 92.2  | 59.0 | 88.6  | 89.0 | 64.8 |

WNLI's dev set has training sentences with the opposite label: 56.3, the share of the larger class, is the best to
expect. ax has no training set: a model of mnli is evaluated on it.
"""

from bert_jax.config import GLUE, FinetuneConfig, InputError, OptimizerConfig, TaskConfig


def get_config(task: str = "rte") -> FinetuneConfig:
    if task not in GLUE:
        raise InputError(f"task {task!r} is none of GLUE's: {', '.join(GLUE)}")
    return FinetuneConfig(
        task=TaskConfig(name=task),
        sequence_length=128,
        batch_size=32,
        epochs=3.0,
        warmup=0.1,
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=2e-5,
            b1=0.9,
            b2=0.999,
            eps=1e-6,
            weight_decay=0.01,
            bias_correction=True,
            decay="from_warmup",
            clip_norm=1.0,
        ),
    )
