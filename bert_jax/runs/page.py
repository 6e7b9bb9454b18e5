"""A page about a task's predictions: scores, confusion (or each label by itself), calibration, and the worst mistakes
with their text."""

import base64
import html
import io
from collections import Counter
from pathlib import Path

import numpy as np

from bert_jax.files import storage
from bert_jax.files.printable import harmless
from bert_jax.tasks.metrics import calibration, expected_calibration_error

# The most mistakes that are shown, and the most labels of a confusion matrix.
SHOWN, MOST_LABELS = 100, 20
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .3em .8em; text-align: left; vertical-align: top }
tr + tr { border-top: 1px solid #ddd } td.number { text-align: right; font-variant-numeric: tabular-nums }
.gold { color: #0a6b2e } .predicted { color: #b3261e } img { max-width: 100% }
"""


def write_page(file: Path, title: str, scores: dict[str, float], rows: list[dict], labels: tuple[str, ...]) -> None:
    """Writes the page as one file that needs no other; `rows` are those of `Task.rows`."""
    known = [row for row in rows if row["gold"] is not None]
    parts = [f"<h1>{_shown(title)}</h1>", f"<p>{len(rows):,} examples, {len(known):,} with a label.</p>"]
    if scores:
        parts.append(_table(["metric", "score"], [[name, f"{value:.4g}"] for name, value in scores.items()]))
    if known and "probabilities" in known[0]:
        parts += ["<h2>Label by label</h2>", _by_label(known, labels)]
    elif known and 1 < len(labels) <= MOST_LABELS and {row["gold"] for row in known} <= set(labels):
        parts += ["<h2>What was taken for what</h2>", _confusion(known, labels)]
    sure = [row for row in known if row["confidence"] is not None and row["right"] is not None]
    if sure:
        parts += ["<h2>Can its confidence be trusted?</h2>", _calibration(sure)]
    if known:
        parts += ["<h2>The worst mistakes</h2>", _mistakes(known)]
    body = "\n".join(parts)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_shown(title)}</title>'
    storage.write_whole(file, f"{page}<style>{STYLE}</style><body>{body}</body></html>\n".encode())


def _table(head: list[str], lines: list[list[str]]) -> str:
    cells = "".join(f"<th>{_shown(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _confusion(rows: list[dict], labels: tuple[str, ...]) -> str:
    counts = Counter((row["gold"], row["predicted"]) for row in rows)
    lines = [[gold, *(f"{counts[gold, predicted]:,}" for predicted in labels)] for gold in labels]
    return "<p>Rows: the label. Columns: the prediction.</p>" + _table(["", *labels], lines)


def _by_label(rows: list[dict], labels: tuple[str, ...]) -> str:
    """A table of each label's scores, for tasks where a text may have any number of labels."""
    right = Counter(label for row in rows for label in row["gold"])
    predicted = Counter(label for row in rows for label in row["predicted"])
    both = Counter(label for row in rows for label in row["predicted"] if label in row["gold"])
    lines = [
        [
            *(label, f"{right[label]:,}", f"{predicted[label]:,}"),
            *(_share(both[label], predicted[label]), _share(both[label], right[label])),
            _share(2 * both[label], right[label] + predicted[label]),
        ]
        for label in labels
    ]
    return _table(["label", "texts with it", "predicted", "precision", "recall", "F1"], lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _calibration(rows: list[dict]) -> str:
    from matplotlib.figure import Figure

    confidence, right = (np.array([row[name] for row in rows], float) for name in ("confidence", "right"))
    bins = [b for b in calibration(confidence, right) if b.count]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], marker="o")
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, dpi=110, format="png")
    image = base64.b64encode(png.getvalue()).decode()
    error = expected_calibration_error(confidence, right)
    return f'<p>Expected calibration error {error:.1%}.</p><img alt="calibration" src="data:image/png;base64,{image}">'


def _mistakes(rows: list[dict]) -> str:
    """The mistakes with the highest confidence; for a regression, those with the largest errors."""
    if rows[0].get("right") is None:
        wrong = sorted((row for row in rows if row.get("error")), key=lambda row: -abs(row["error"]))
    else:
        wrong = sorted((row for row in rows if not row["right"]), key=lambda row: -(row["confidence"] or 0))
    if not wrong:
        return "<p>None.</p>"
    lines = "".join(
        f'<tr><td class="number">{_sureness(row)}</td><td>{_text(row)}<br>'
        f'<span class="gold">{_shown(_named(row, "gold"))}</span>, predicted '
        f'<span class="predicted">{_shown(_named(row, "predicted"))}</span></td></tr>'
        for row in wrong[:SHOWN]
    )
    return f"<p>{min(len(wrong), SHOWN)} of {len(wrong):,}.</p><table>{lines}</table>"


def _named(row: dict, what: str) -> str:
    """The label, or all labels where a text may have several, each with its probability."""
    if "probabilities" not in row:
        return str(row[what])
    return ", ".join(f"{label} {row['probabilities'][label]:.0%}" for label in row[what]) or "none"


def _sureness(row: dict) -> str:
    if row["confidence"] is not None:
        return f"{row['confidence']:.0%}"
    return f"{row['error']:+.2f}" if "error" in row else ""


def _text(row: dict) -> str:
    return "<br>".join(_shown(str(row[name])) for name in ("text", "pair") if row.get(name))


def _shown(text: str) -> str:
    """The text as HTML. White space, a line's end too, is shown as one space, as in any page."""
    return html.escape(harmless(" ".join(text.split())))
