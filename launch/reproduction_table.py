"""Prints the table of reproduce_bert_base.sh: mean scores over seeds, at each task's best rate, and the paper's scores.

The best learning rate is the one with the highest value of a task's first score in `ROWS`.
"""

import json
import sys
from pathlib import Path

# Folder, score, and the paper's values for BERT-Base (arXiv 1810.04805): on dev (tables 2, 5 and 7; the single systems
# in tables 2 and 7), and on the hidden test set (table 1; GLUE's server scores it). None: not given.
ROWS = (
    ("cola", "dev_matthews", None, 52.1),
    ("sst-2", "dev_accuracy", 92.7, 93.5),
    ("mrpc", "dev_accuracy", 86.7, None),
    ("mrpc", "dev_f1", None, 88.9),
    ("sts-b", "dev_spearman", None, 85.8),
    ("qqp", "dev_f1", None, 71.2),
    ("mnli", "dev_matched_accuracy", 84.4, 84.6),
    ("mnli", "dev_mismatched_accuracy", None, 83.4),
    ("qnli", "dev_accuracy", 88.4, 90.5),
    ("rte", "dev_accuracy", None, 66.4),
    ("wnli", "dev_accuracy", None, None),
    ("squad", "dev_exact_match", 80.8, None),
    ("squad", "dev_f1", 88.5, None),
    ("ner", "dev_f1", 96.4, None),
)


def main(workdir: Path) -> None:
    print("| task | score | ours | paper, dev | paper, test | difference | learning rate | seeds | hardware |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task, score, dev, test in ROWS:
        file = workdir / task / "summary.json"
        if file.exists():
            print(f"| {' | '.join(row(task, score, dev, test, json.loads(file.read_text())))} |")


def row(task: str, score: str, dev: float | None, test: float | None, summary: dict) -> list[str]:
    best_by = next(first_score for name, first_score, *_ in ROWS if name == task)
    rate, scores = max(summary["rates"].items(), key=lambda item: item[1][best_by]["mean"])
    ours = scores[score]
    paper = dev if dev is not None else test
    difference = "" if paper is None else f"{ours['mean'] - paper:+.1f}{'' if dev is not None else ' to test'}"
    mean = f"{ours['mean']:.1f} ± {ours['deviation']:.1f}"
    papers = ["" if value is None else f"{value:.1f}" for value in (dev, test)]
    return [task, score, mean, *papers, difference, rate, str(len(ours["runs"])), summary["devices"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
