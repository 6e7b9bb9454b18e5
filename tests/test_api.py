"""The public names: each says what it does in the field's form, with an example that runs; and README's Python."""

import contextlib
import doctest
import inspect
import json
import re
from pathlib import Path

import pytest
from conftest import OBJECTS, SUBJECTS, VERBS, write_corpus

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import HeadConfig, ModelConfig
from bert_jax.convert.origin import Folder
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
        save(Pretrained(model, head, tokenizer, params, Folder("a test")), folder / name)
    with contextlib.chdir(folder):
        check_examples("finetune", bert_jax.finetune)  # It makes runs/reviews, which others load.
    return folder


@pytest.mark.parametrize("name", [*sorted(set(PUBLIC) - {"finetune"}), *METHODS])
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


PREDICTED = {
    "fill-mask": ("runs/base", ["the [MASK]", "a [MASK] [MASK]"], None, {"top": 2}),
    "embed": ("runs/base", ["the dog", "the\u2028king"], None, {"pooling": "cls"}),
    "classify": ("runs/reviews", ["great", "awful"], "dull", {}),
    "tag": ("runs/ner", ["the old king"], None, {}),
    "answer": ("runs/squad", ["who?", "what?"], "the old king", {}),
}


@pytest.mark.parametrize("task", PREDICTED)
def test_predict_gives_what_the_command_prints(folder, task, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    model, texts, second, options = PREDICTED[task]
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--{'context' if task == 'answer' else 'pair'}={second}"] if second else []
    assert main(["predict", task, "--model", model, *flags, *texts]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    bert = bert_jax.load(model)
    assert list(bert_jax.predict(bert, task, iter(texts), second, **options)) == printed
    if second:
        assert list(bert_jax.predict(bert, task, texts, [second] * len(texts))) == printed


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tags", ["a"]), {}, "task: is 'tags'; did you mean 'tag'"),
        (("tag", ["a"]), {"top": 3}, "top: no option of tag; it has none"),
        (("embed", ["a"], ["b"]), {}, "pairs: embed reads one text"),
        (("answer", ["a"]), {}, "pairs: are missing"),
        (("classify", ["a", "b"], ["c"]), {}, "pairs: are 1, and there are more texts"),
        (("classify", ["a"], ["b", "c"]), {}, "pairs: are more than the texts"),
        (("tag", [3]), {}, "text 0: is of type int, must be a string"),
        (("fill-mask", ["the [MASK]"]), {}, "needs a model of kind"),
    ],
)
def test_predict_refuses_what_doesn_t_fit(folder, arguments, options, message):
    model = "runs/ner" if "tag" in arguments else "runs/reviews"
    with pytest.raises(bert_jax.InputError, match=message):
        list(bert_jax.predict(folder / model, *arguments, **options))


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
