"""The peer of `bert-jax bench finetune`, run as a script: transformers' model trained in torch, with dynamic padding.

Its argument is a folder. Reads `task.json`, the features that `bert_jax.tasks` made and the recipe, and `head.npz`, the
new head. Writes `logits.npy`, those of all dev features concatenated, and prints a line of JSON: the total seconds, and
those of training alone.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

CLASSES = {
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "answer": transformers.AutoModelForQuestionAnswering,
}
NO_LABEL = -100


def main(folder: Path) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    job = json.loads((folder / "task.json").read_text())
    start = time.perf_counter()
    torch.manual_seed(job["seed"])
    model = load(job, np.load(folder / "head.npz"))
    seconds = train(model, job)
    logits = predict(model, job)
    np.save(folder / "logits.npy", np.concatenate(logits))
    print(json.dumps({"seconds": time.perf_counter() - start, "training": seconds}))


def load(job: dict, head_weights: Mapping[str, np.ndarray]) -> torch.nn.Module:
    use, labels = job["use"], job["labels"]
    options = {} if use == "answer" else {"num_labels": labels, "problem_type": job["problem_type"]}
    if job["dropout"] is not None:
        options |= {"hidden_dropout_prob": job["dropout"], "attention_probs_dropout_prob": job["dropout"]}
    model = CLASSES[use].from_pretrained(job["model"], config=config_of(job["model"], **options))
    head = model.qa_outputs if use == "answer" else model.classifier
    head.load_state_dict({name: torch.tensor(head_weights[name]) for name in ("weight", "bias")})
    return model


def config_of(folder: str | Path, **options: Any) -> transformers.PreTrainedConfig:
    """A folder's config with transformers' default attention: what the folder names may be somebody's code."""
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    config._attn_implementation = "sdpa"
    return config


def train(model: torch.nn.Module, job: dict) -> float:
    """Trains, and returns the seconds of all epochs without their evaluations, whose scores only count at the end."""
    optimizer, schedule = recipe(model, job)
    seconds = 0.0
    for epoch in range(job["epochs"]):
        if epoch:
            predict(model, job)
        start = time.perf_counter()
        model.train()
        for batch in batches(job, "train", job["batch_size"], shuffle=True):
            step(model, optimizer, schedule, batch, job)
        seconds += time.perf_counter() - start
    return seconds


def recipe(model: torch.nn.Module, job: dict, fused: bool = False):
    """The optimizer AdamW, on request as one kernel, and the linear schedule with warm-up."""
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for p in model.parameters() if all(p is not other for other in plain)]
    groups = [{"params": decayed, "weight_decay": job["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, job["learning_rate"], (job["b1"], job["b2"]), job["eps"], fused=fused)
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, job["warmup_steps"], job["steps"])


def step(model, optimizer, schedule, batch: dict, job: dict) -> float:
    """One update; returns the loss before it."""
    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), job["clip_norm"])
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return float(loss)


@torch.inference_mode()
def predict(model: torch.nn.Module, job: dict) -> list[np.ndarray]:
    """The logits of each dev feature, without padding."""
    model.eval()
    result = []
    for batch in batches(job, "dev", job["evaluation_batch_size"], shuffle=False):
        lengths = batch["attention_mask"].sum(1).tolist()
        for name in ("labels", "start_positions", "end_positions"):
            batch.pop(name, None)
        outputs = model(**batch)
        logits = outputs.logits if "logits" in outputs else torch.stack([outputs.start_logits, outputs.end_logits], -1)
        rows = [x[:n] for x, n in zip(logits, lengths, strict=True)] if logits.ndim == 3 else logits[:, None]
        result += [np.asarray(row) for row in rows]
    return result


def batches(job: dict, split: str, size: int, shuffle: bool) -> DataLoader:
    return DataLoader(job[split], size, shuffle=shuffle, collate_fn=lambda rows: collate(rows, job["use"]))


def collate(rows: list[dict], use: str) -> dict[str, torch.Tensor]:
    """A batch padded to its longest row."""

    def padded(values: list[list[int]], value: int = 0) -> torch.Tensor:
        return pad_sequence([torch.tensor(v) for v in values], batch_first=True, padding_value=value)

    batch = {name: padded([row[name] for row in rows]) for name in ("input_ids", "token_type_ids")}
    batch["attention_mask"] = padded([[1] * len(row["input_ids"]) for row in rows])
    labels = [row["label"] for row in rows]
    if labels[0] is None:
        return batch
    if use == "answer":
        starts, ends = torch.tensor(labels).T
        return batch | {"start_positions": starts, "end_positions": ends}
    return batch | {"labels": padded(labels, NO_LABEL) if use == "tag" else torch.tensor(labels)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
