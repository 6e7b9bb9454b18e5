"""Choosing the right text among several: SWAG, or your own files.

    bert-jax finetune --config finetune_multiple_choice --task swag --init MODEL --workdir runs/swag --task.folder swag

The paper's recipe (arXiv 1810.04805, section 4.4): batch 16, 2e-5, 3 epochs. The files are SWAG's train.csv, val.csv
and test.csv. Expected dev accuracy: BERT-Base 81.6, Large 86.6 (test 86.3).

With `--task multiple_choice`, JSON lines with context, question (optional), choices (a list) and label, or CSV with
choice0, choice1 and so on in place of choices:

    bert-jax finetune --config finetune_multiple_choice --task multiple_choice --init MODEL --workdir runs/own \
        --task.train train.jsonl --task.dev dev.jsonl
"""

from bert_jax.config import FinetuneConfig, InputError, OptimizerConfig, TaskConfig

TASKS = ("swag", "multiple_choice")


def get_config(task: str = "swag") -> FinetuneConfig:
    if task not in TASKS:
        raise InputError(f"task {task!r}: finetune_multiple_choice has {', '.join(TASKS)}")
    return FinetuneConfig(
        task=TaskConfig(name=task),
        sequence_length=128,
        batch_size=16,
        epochs=3.0,
        warmup=0.1,
        optimizer=OptimizerConfig(learning_rate=2e-5, decay="from_warmup"),
    )
