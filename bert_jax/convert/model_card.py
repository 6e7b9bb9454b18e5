"""The README.md of an exported model: what it is, how to use it, what it was trained on, how well it does."""

import html
import math
import pprint
import re
import shlex
from pathlib import Path

import jax

from bert_jax.config import GLUE, EmbeddingConfig, FinetuneConfig, HeadConfig, ModelConfig, PretrainConfig
from bert_jax.config.files import flags, without_external
from bert_jax.convert import sentence_transformers
from bert_jax.convert.formats import Format
from bert_jax.convert.origin import FinetuningRun, Folder, Origin, PretrainingRun
from bert_jax.files.printable import harmless
from bert_jax.models import Alone, architecture_of, kind_of, make_model, param_shapes


def write(folder: Path, form: Format, model: ModelConfig, head: HeadConfig, origin: Origin) -> None:
    """Writes README.md and, for a run of bert_jax, the config that repeats it."""
    embedding = origin.embedding
    embeds = form.on_hub and head.kind == Alone.kind and embedding.sentence_transformers and not embedding.unknown
    use = sentence_transformers.use() if embeds else form.use(head)
    parts = [_title(form, model, head, embedding, embeds), *use]
    match origin:
        case Folder():
            source = f"Converted by bert_jax from {_escaped(origin.source)}; its terms and limits hold here too."
            parts.append(f"## Source\n\n{source}")
        case FinetuningRun():
            parts += [_fine_tuning(origin), *_task_scores(origin.scores), _again(folder, origin)]
        case PretrainingRun():
            parts += [_pretraining(origin), *_held_out_scores(origin.scores), _again(folder, origin)]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _title(form: Format, model: ModelConfig, head: HeadConfig, embedding: EmbeddingConfig, embeds: bool) -> str:
    library = "sentence-transformers" if embeds else "transformers"
    pipeline = "sentence-similarity" if embeds else kind_of(head).pipeline
    front = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}", f"tags: [{model.architecture}]", "---", ""]
    shapes = param_shapes(make_model(model, head))
    padding = model.padded_vocab_size - model.known_vocab_size
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - padding * (model.hidden_size + kind_of(head).predicts)
    rows = [
        ("kind", head.kind.replace("_", " ")),
        ("parameters", f"{count:,}"),
        ("layers, width, heads", f"{model.num_hidden_layers}, {model.hidden_size}, {model.num_attention_heads}"),
        ("vocabulary", f"{model.vocab_size:,}"),
        ("longest input", f"{model.max_position_embeddings} tokens"),
        *([("labels", ", ".join(head.labels))] if head.labels else []),
        *([("vector of a text", _vector(embedding))] if embedding.sentence_transformers else []),
    ]
    return "\n".join([*(front if form.on_hub else []), f"# {architecture_of(model).title}", "", _table(rows)])


def _vector(embedding: EmbeddingConfig) -> str:
    """How the vector of a text is made from the hidden states."""
    if embedding.unknown:
        return f"not by this folder alone: the original asks for {embedding.unknown}"
    prompts = ", ".join(f"{name} '{text}'" for name, text in embedding.prompts.items() if text)
    pooled = "[CLS]'s" if embedding.pooling == "cls" else "the mean of its tokens'"
    parts = [
        pooled if embedding.include_prompt else f"{pooled} after the prompt",
        *(["divided by its length"] if embedding.normalize else []),
        *([f"the first {embedding.dimensions} numbers"] if embedding.dimensions else []),
        *([f"of the first {embedding.max_length} tokens"] if embedding.max_length else []),
        *(["in lower case"] if embedding.lowercase else []),
        *([f"after a prompt: {prompts}; if none is chosen, {embedding.default_prompt or 'none'}"] if prompts else []),
    ]
    return ", ".join(parts)


def _is_in_memory(config: FinetuneConfig) -> bool:
    """Whether the training set was data in the program's memory, which no file holds."""
    return config.task.name not in GLUE and not (config.task.train or config.task.folder)


def _objective(config: FinetuneConfig | PretrainConfig) -> list[tuple[str, str]]:
    """The row for the objective, where it isn't the loss of the head."""
    return [("minimised", config.objective)] if config.objective != type(config).objective else []


def _fine_tuning(run: FinetuningRun) -> str:
    config, task = run.config, run.config.task
    elsewhere = "in the memory of the program that trained it" if _is_in_memory(config) else "TensorFlow Datasets"
    rows = [
        ("task", task.name),
        ("data", task.train or task.folder or elsewhere),
        *([("started from", run.init)] if run.init else []),
        ("steps", f"{run.step:,}, of {config.epochs:g} epochs"),
        ("batch", f"{config.batch_size:,} examples, up to {config.sequence_length} tokens each"),
        *_objective(config),
        ("optimizer", f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}"),
        ("seed", str(config.seed)),
    ]
    return f"## Training\n\n{_table(rows)}"


def _pretraining(run: PretrainingRun) -> str:
    config, corpus, masking = run.config, run.config.corpus, run.config.masking
    text = {"text": f"files {', '.join(corpus.files)}", "tfds": f"TensorFlow Datasets {corpus.dataset}, {corpus.split}"}
    objective = f"masked words ({masking.rate:.0%}{', whole words' if masking.whole_word else ''})"
    objective += " and next sentence" if config.examples.sentence_pairs else ""
    rows = [
        ("text", text.get(corpus.source, "the documentation of Python")),
        ("objective", f"{objective}, {config.examples.format.replace('_', ' ')}"),
        ("steps", f"{run.step:,} of {config.total_steps:,}"),
        *(
            (f"phase {i}", f"{p.steps:,} steps of {p.batch_size:,} examples at length {p.sequence_length}")
            for i, p in enumerate(config.phases, 1)
        ),
        *_objective(config),
        ("optimizer", f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}"),
        ("seed", str(config.seed)),
    ]
    return f"## Training\n\n{_table(rows)}"


def _task_scores(metrics: dict[str, float | None]) -> list[str]:
    """The scores on the dev splits, at the step of the weights."""
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in metrics.items() if value is not None]
    return [f"## Scores\n\n{_table(rows)}"] if rows else []


def _held_out_scores(metrics: dict[str, float | None]) -> list[str]:
    """Losses and accuracies of the held-out text, at the step of the weights, where they were measured."""
    loss = metrics.get("held_out_mlm_loss")
    if loss is None:
        return []
    perplexity = f"{math.exp(loss):.2f}" if loss < 100 else f"e^{loss:g}"  # A float ends at e^709.
    rows = [("masked-LM loss", f"{loss:.4f} nats"), ("perplexity of masked tokens", perplexity)]
    named = [
        ("masked-LM accuracy", "held_out_mlm_accuracy", ".1%"),
        ("unigram's loss on the same", "held_out_unigram_loss", ".4f"),
        ("next-sentence accuracy", "held_out_nsp_accuracy", ".1%"),
    ]
    rows += [(what, format(metrics[name], form)) for what, name, form in named if metrics.get(name) is not None]
    return [f"## On held-out text\n\n{_table(rows)}"]


def _again(folder: Path, run: PretrainingRun | FinetuningRun) -> str:
    """Writes the run's config. The command, not the config, names what is read and run: whoever types it sees that."""
    command = run.command
    config, external = without_external(run.config)
    if isinstance(run, FinetuningRun) and _is_in_memory(run.config):
        external |= {"task.train": "..."}
    value = pprint.pformat(config).replace("\n", "\n    ")
    source = f"from bert_jax.config import *\n\n\ndef get_config():\n    return {value}\n"
    (folder / f"{command}_config.py").write_text(source, encoding="utf-8")
    options = [f"--init {shlex.quote(run.init)}"] if run.init else []
    options += [flags({path: value}) for path, value in external.items() if path != "run.compilation_cache"]
    # A code block can't escape anything: what could be taken for markup there is left to the table above.
    options = [option if option == harmless(option) and not set(option) & set("<>") else "..." for option in options]
    return f"""## Again

With [{command}_config.py]({command}_config.py), the run's own config:

    {" ".join([f"bert-jax {command} --config {command}_config.py --workdir runs/again", *options])}"""


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_escaped(name)} | {_escaped(value)} |" for name, value in rows)])


def _escaped(text: str) -> str:
    """Names of files, labels and prompts as plain text in Markdown, not as HTML, links, code or columns."""
    return re.sub(r"([\\`|\[\]])", r"\\\1", html.escape(harmless(text), quote=False))
