"""The table of reproduce_bert_base.sh: the mean over seeds beside the paper's, of each task's best learning rate.

Which is the best, the first of a task's scores here decides.
"""

import json
import sys
from pathlib import Path

# Folder, score, and the paper's for BERT-Base (arXiv 1810.04805): on dev (tables 2, 5 and 7; of tables 2 and 7 the
# single systems), and on the hidden test set (table 1; GLUE's server scores it). None: not given.
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
    best_by = next(of_task for name, of_task, *_ in ROWS if name == task)
    rate, scores = max(summary["rates"].items(), key=lambda item: item[1][best_by]["mean"])
    found = scores[score]
    paper = dev if dev is not None else test
    difference = "" if paper is None else f"{found['mean'] - paper:+.1f}{'' if dev is not None else ' to test'}"
    ours = f"{found['mean']:.1f} ± {found['deviation']:.1f}"
    papers = ["" if value is None else f"{value:.1f}" for value in (dev, test)]
    return [task, score, ours, *papers, difference, rate, str(len(found["runs"])), summary["devices"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
