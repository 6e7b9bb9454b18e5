"""The peer of `bert-jax bench finetune`, run as a script: transformers' model trained in torch, with dynamic padding.

Reads `task.json` of the folder that it is given, features as `bert_jax.tasks` makes them and the recipe, and
`head.npz`, the fresh head. Leaves `logits.npy` of the dev features, one after the other, and prints a line of JSON:
seconds in all, and of training alone.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

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
    asked = json.loads((folder / "task.json").read_text())
    start = time.perf_counter()
    torch.manual_seed(asked["seed"])
    model = load(asked, np.load(folder / "head.npz"))
    seconds = train(model, asked)
    logits = predict(model, asked)
    np.save(folder / "logits.npy", np.concatenate(logits))
    print(json.dumps({"seconds": time.perf_counter() - start, "training": seconds}))


def load(asked: dict, fresh: Mapping[str, np.ndarray]) -> torch.nn.Module:
    use, labels = asked["use"], asked["labels"]
    options = {} if use == "answer" else {"num_labels": labels, "problem_type": asked["problem_type"]}
    if asked["dropout"] is not None:
        options |= {"hidden_dropout_prob": asked["dropout"], "attention_probs_dropout_prob": asked["dropout"]}
    model = CLASSES[use].from_pretrained(asked["model"], **options)
    head = model.qa_outputs if use == "answer" else model.classifier
    head.load_state_dict({name: torch.tensor(fresh[name]) for name in ("weight", "bias")})
    return model


def train(model: torch.nn.Module, asked: dict) -> float:
    """Seconds of all epochs without their evaluations, whose scores nobody reads before the last."""
    optimizer, schedule = recipe(model, asked)
    seconds = 0.0
    for epoch in range(asked["epochs"]):
        if epoch:
            predict(model, asked)
        start = time.perf_counter()
        model.train()
        for batch in batches(asked, "train", asked["batch_size"], shuffle=True):
            step(model, optimizer, schedule, batch, asked)
        seconds += time.perf_counter() - start
    return seconds


def recipe(model: torch.nn.Module, asked: dict):
    """AdamW and the linear schedule with warm-up."""
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for p in model.parameters() if all(p is not other for other in plain)]
    groups = [{"params": decayed, "weight_decay": asked["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, asked["learning_rate"], (asked["b1"], asked["b2"]), asked["eps"])
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, asked["warmup_steps"], asked["steps"])


def step(model, optimizer, schedule, batch: dict, asked: dict) -> float:
    """One update; returns the loss before it."""
    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), asked["clip_norm"])
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return float(loss)


@torch.inference_mode()
def predict(model: torch.nn.Module, asked: dict) -> list[np.ndarray]:
    """The logits of each dev feature, without padding."""
    model.eval()
    found = []
    for batch in batches(asked, "dev", asked["evaluation_batch_size"], shuffle=False):
        lengths = batch["attention_mask"].sum(1).tolist()
        for name in ("labels", "start_positions", "end_positions"):
            batch.pop(name, None)
        outputs = model(**batch)
        logits = outputs.logits if "logits" in outputs else torch.stack([outputs.start_logits, outputs.end_logits], -1)
        rows = [x[:n] for x, n in zip(logits, lengths, strict=True)] if logits.ndim == 3 else logits[:, None]
        found += [np.asarray(row) for row in rows]
    return found


def batches(asked: dict, split: str, size: int, shuffle: bool) -> DataLoader:
    return DataLoader(asked[split], size, shuffle=shuffle, collate_fn=lambda rows: collate(rows, asked["use"]))


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
