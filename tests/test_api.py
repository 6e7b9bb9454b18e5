"""The public names: each says what it does in the field's form, with an example that runs; and README's Python."""

import contextlib
import doctest
import inspect
import re
from pathlib import Path

import pytest
from conftest import OBJECTS, SUBJECTS, VERBS, write_corpus

import bert_jax
from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert.pretrained import Pretrained, save
from bert_jax.data.tokenizers import SPECIAL, WordPiece
from bert_jax.models import init_params, make_model

PUBLIC = {name: getattr(bert_jax, name) for name in bert_jax.__all__}
METHODS = {name: method for name, method in vars(bert_jax.Bert).items() if inspect.isfunction(method)}
METHODS = {name: method for name, method in METHODS.items() if not name.startswith("_") or name == "__call__"}
REVIEWS = ["great", "awful", "lovely", "dull"]
# Heads of the models that examples load.
MODELS = {
    "bert-base-uncased": HeadConfig("pretraining"),
    "runs/base": HeadConfig("pretraining"),
    "runs/ner": HeadConfig("token_classification", ("O", "B-PER", "I-PER")),
    "runs/squad": HeadConfig("question_answering"),
}


class LastLines(doctest.OutputChecker):
    """What a run says of itself, before the value that an example shows, isn't part of the example."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output("...\n" + want, "\n" + got, optionflags | doctest.ELLIPSIS)


def check_examples(name: str, thing) -> None:
    runner = doctest.DocTestRunner(LastLines())
    said: list[str] = []
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={"bert_jax": bert_jax}):
        assert test.examples, name
        runner.run(test, out=said.append)
    assert not runner.failures and runner.tries, "".join(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the examples are run: with a text, and a tiny model under each name that they load."""
    folder = tmp_path_factory.mktemp("examples")
    write_corpus(folder / "text.txt", documents=20)
    words = sorted({word for text in (*SUBJECTS, *VERBS, *OBJECTS, *REVIEWS) for word in text.split()})
    tokenizer = WordPiece([*SPECIAL, *words, ".", "?"], True)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = ModelConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=128, **sizes)
    for name, head in MODELS.items():
        params = init_params(make_model(model, head), 0)
        about = {"source": "a test"}
        save(Pretrained(model, head, tokenizer, params, about), folder / name)
    with contextlib.chdir(folder):
        check_examples("finetune", bert_jax.finetune)  # It makes runs/reviews, which others load.
    return folder


@pytest.mark.parametrize("name", [*(set(PUBLIC) - {"finetune"}), *METHODS])
def test_the_example_of_each_public_name_runs(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    check_examples(name, PUBLIC.get(name) or METHODS[name])


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_each_public_name_says_what_it_takes_gives_and_refuses(name):
    thing = PUBLIC.get(name) or METHODS[name]
    sections = re.findall(r"^(\w+):$", inspect.getdoc(thing), re.MULTILINE)
    if inspect.isclass(thing):
        assert sections[-1] == "Example"
        return
    parameters = inspect.signature(thing).parameters.keys() - {"self"}
    returns = inspect.signature(thing).return_annotation is not None
    assert sections == [*(["Args"] if parameters else []), *(["Returns"] if returns else []), "Raises", "Example"]
    (args,) = re.findall(r"^Args:\n((?:  .*\n)+)", inspect.getdoc(thing), re.MULTILINE)
    assert set(re.findall(r"^  \**(\w+):", args, re.MULTILINE)) == parameters


def test_dir_shows_the_public_names_alone():
    assert dir(bert_jax) == sorted(bert_jax.__all__)


def test_the_readme_fine_tunes_from_a_frame(folder, monkeypatch):
    """As it stands there, with small data under the names that it reads."""
    monkeypatch.chdir(folder)
    rows = "".join(f"{text},{label}\n" for text, label in zip(REVIEWS * 10, ["good", "bad"] * 20, strict=True))
    Path("reviews.csv").write_text("review,sentiment\n" + rows)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "import pandas" in block)
    names: dict = {}
    exec(block, names)
    assert names["result"].scores["dev_accuracy"] >= 0 and names["result"].load().head.labels == ("bad", "good")
