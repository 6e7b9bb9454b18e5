"""What is told of prepared examples, and warned about: next sentences, and documents that are none."""

import dataclasses
import random
import re

import numpy as np
import pytest
from conftest import small_config, write_corpus

from bert_jax.config import ExamplesConfig, TokenizerConfig
from bert_jax.data.dry_run import dry_run
from bert_jax.data.prepare import prepare

HINDI = ["यह", "वह", "एक", "पुस्तक", "घर", "नदी", "शहर", "लोग", "काम", "समय"]


def documents(mark: str, sentences: int, lines: int) -> str:
    """Sixty documents of so many lines, each of so many sentences of nine words that end in `mark`."""
    rng = random.Random(0)

    def line():
        return " ".join(" ".join(rng.choices(HINDI, k=9)) + mark for _ in range(sentences))

    return "\n\n".join("\n".join(line() for _ in range(lines)) for _ in range(60))


@pytest.mark.parametrize(
    ("text", "least", "most", "warning"),
    [
        (documents("।", 16, 6), 0.4, 0.7, None),
        (documents("", 16, 6), 0.9, 1, "sentences are 1[0-9]{2} tokens long on average.*write each on its own line"),
        (documents("।", 1, 1), 1, 1, "most documents are one sentence.*blank lines between documents only"),
    ],
    ids=["marks", "no marks", "one sentence"],
)
def test_the_share_of_random_next_sentences_is_told(tmp_path, capsys, text, least, most, warning):
    (tmp_path / "hi.txt").write_text(text, encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "।", *HINDI]), encoding="utf-8"
    )
    tokenizer = TokenizerConfig(path=str(tmp_path / "vocab.txt"), lowercase=False)
    config = small_config(tmp_path / "hi.txt", tokenizer=tokenizer)
    examples = prepare(config, tmp_path / "examples")
    printed = [capsys.readouterr().out]
    dry_run(config)
    printed.append(capsys.readouterr().out)
    reader = examples.split("train", 32)
    labels = reader.read(np.arange(len(reader)))[:, 0]
    assert examples.manifest["random_next"] == {"32": pytest.approx(labels.mean())}
    assert least <= labels.mean() <= most
    assert f"random next sentences: {labels.mean():.1%} of length 32" in printed[0]
    for text in printed:
        found = re.search("warning: half of the next sentences.*full_sentences", text, re.DOTALL)
        assert re.search(warning, found[0], re.DOTALL) if warning else not found


def test_no_next_sentences_no_share(config, tmp_path, capsys):
    examples = prepare(dataclasses.replace(config, examples=ExamplesConfig("packed")), tmp_path / "examples")
    assert examples.manifest["random_next"] is None and "next sentences" not in capsys.readouterr().out


@pytest.mark.parametrize(("separator", "warned"), [("\n", True), ("\n\n", False)])
def test_a_separator_of_documents_that_never_comes_is_warned_about(tmp_path, capsys, separator, warned):
    corpus = write_corpus(tmp_path / "a.txt", documents=600)
    corpus.write_text(corpus.read_text().replace("\n\n", separator))
    dry_run(small_config(corpus))
    assert ("warning: documents are 6" in capsys.readouterr().out) == warned
