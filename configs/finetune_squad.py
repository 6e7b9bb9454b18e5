"""Questions on paragraphs: SQuAD 1.1 (BERT paper, section 4.2) and 2.0 (section 4.3).

    bert-jax finetune --config finetune_squad --task squad --init MODEL --workdir runs/squad --task.folder squad
    bert-jax finetune --config finetune_squad --task squad2 --init MODEL --workdir runs/squad2 --task.folder squad

The folder holds train-v1.1.json and dev-v1.1.json, or train-v2.0.json and dev-v2.0.json.

1.1 uses the released script's recipe: batch 12, 3e-5, 2 epochs, windows of 384 tokens every 128. Expected exact match
and F1 on dev: Base 81.25 and 88.41 (the script's), 80.8 and 88.5 (the paper's); Large 84.1 and 90.9.
2.0 uses the paper's recipe: batch 48, 5e-5, 2 epochs. Expected: Large 78.7 and 81.9; Base an F1 of 77.8 (MultiBERTs);
both at the threshold that is best on dev, which `best_f1_thresh` gives and `--task.null-threshold` sets.
"""

from bert_jax.config import FinetuneConfig, InputError, OptimizerConfig, TaskConfig

BATCH_SIZE, LEARNING_RATE = {"squad": 12, "squad2": 48}, {"squad": 3e-5, "squad2": 5e-5}


def get_config(task: str = "squad") -> FinetuneConfig:
    if task not in BATCH_SIZE:
        raise InputError(f"task {task!r} is none of {', '.join(BATCH_SIZE)}")
    return FinetuneConfig(
        task=TaskConfig(name="squad", unanswerable=task == "squad2"),
        sequence_length=384,
        batch_size=BATCH_SIZE[task],
        epochs=2.0,
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE[task], decay="from_warmup"),
    )
