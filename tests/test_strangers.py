"""What a stranger's model, or text, can't do: run code, choose what is read or written, act in a terminal or a page."""

import dataclasses
import json
import os
import sys
import typing
import unicodedata
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers

import bert_jax
from bert_jax.cli import evaluate
from bert_jax.cli.main import main
from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    FinetuneConfig,
    HeadConfig,
    InputError,
    MaskingConfig,
    MeshConfig,
    PretrainConfig,
    RunConfig,
    TaskConfig,
)
from bert_jax.config.files import load_config
from bert_jax.convert import pretrained
from bert_jax.convert.origin import FinetuningRun, PretrainingRun
from bert_jax.convert.pretrained import Pretrained
from bert_jax.data import tokenizer_folders
from bert_jax.data.no_tokenizer import NoTokenizer
from bert_jax.data.tokenizers import SPECIAL
from bert_jax.devices import compiling
from bert_jax.files.printable import say
from bert_jax.models import init_params, make_model
from bert_jax.runs.page import write_page

HOSTILE = "</td><script>alert(1)</script>|[x](javascript:alert(1))`\x1b[2J\x9b31m\u202egpj.sh\n# heading"


def segmenter(text: str) -> list[str]:
    """As a checkpoint may name it; workers call it, in processes of their own."""
    Path(os.environ["CALLED"]).touch()
    return text.split()


@pytest.fixture
def hostile(config, corpus, tmp_path):
    """A config that names code, text and folders."""
    return dataclasses.replace(
        config,
        corpus=CorpusConfig(source="text", files=(str(corpus), f"{tmp_path}/{HOSTILE}"), data_dir=str(tmp_path)),
        tokenizer=dataclasses.replace(config.tokenizer, path=str(tmp_path / "vocab.txt")),
        examples=ExamplesConfig(word_segmenter="test_strangers:segmenter"),
        masking=MaskingConfig(whole_word=True),
        run=dataclasses.replace(config.run, compilation_cache=str(tmp_path / "cache")),
    )


@pytest.fixture
def theirs(hostile, examples, tmp_path):
    """A folder with a model that was made so."""
    origin = PretrainingRun(hostile, 1, {}, f"m; touch {tmp_path}/touched #<b>")
    model = dataclasses.replace(hostile.model, vocab_size=examples.tokenizer.vocab_size)
    head = HeadConfig("pretraining")
    params = jax.tree.map(np.asarray, init_params(make_model(model, head), 0))
    pretrained.save(Pretrained(model, head, examples.tokenizer, params, origin), tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture(autouse=True)
def called(tmp_path, monkeypatch):
    """The file that there is once the segmenter was called."""
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    yield tmp_path / "called"
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "touched").exists()


def test_what_a_model_names_is_neither_read_nor_run(theirs, called, corpus, tmp_path, capsys):
    evaluate = ["evaluate", "--model", str(theirs), "--run.workers", "1"]
    assert main(evaluate) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--corpus.files" in error
    assert "--examples.word-segmenter test_strangers:segmenter" in error
    assert main([*evaluate, "--corpus.files", str(corpus)]) == 2
    assert "--corpus.files" not in capsys.readouterr().err
    with pytest.raises(InputError, match="decides neither what is read nor what is run"):
        bert_jax.evaluate(theirs)
    for command in (
        ["predict", "fill-mask", "--model", str(theirs), "The [MASK]."],
        ["import", str(theirs), str(tmp_path / "imported")],
        ["export", str(theirs), str(tmp_path / "exported"), "--format", "hf"],
    ):
        assert main(command) == 0
    assert not called.exists()
    # Said again, it is the person's.
    repeated = ["--corpus.files", str(corpus), "--examples.word-segmenter", "test_strangers:segmenter"]
    assert main([*evaluate, *repeated]) == 0
    assert called.exists()


def test_a_task_may_not_choose_a_folder_to_fetch_into(tmp_path):
    from bert_jax.runs.evaluation import check_repeated, own_config

    config = FinetuneConfig(task=TaskConfig("rte", data_dir=str(tmp_path / "cache")))
    found = Pretrained(None, HeadConfig("pretraining"), None, {}, FinetuningRun(config, 1, {}, None))
    own, places = own_config(found)
    with pytest.raises(InputError, match="--task.data-dir"):
        check_repeated(own, places)
    check_repeated(dataclasses.replace(own, task=TaskConfig("rte", folder="data/RTE")), places)


def own_of(task: TaskConfig) -> tuple[FinetuneConfig, dict]:
    from bert_jax.runs.evaluation import own_config

    origin = FinetuningRun(FinetuneConfig(task=task), 1, {}, None)
    return own_config(Pretrained(None, HeadConfig("pretraining"), None, {}, origin))


@pytest.mark.parametrize("place", ["/net/evil.example/x", "//proc/kcore", "../../../../../../../../sys/x"])
def test_a_task_names_no_file_where_no_table_lies(place):
    """The name of a host would be asked for, or reading never end. All others are read where the run had them."""
    from bert_jax.runs.evaluation import check_repeated

    own, external = own_of(TaskConfig("ner", dev=place, test="data/network.tsv"))
    assert (own.task.dev, own.task.test, external) == (None, "data/network.tsv", {"task.dev": place})
    check_repeated(own, external)
    own, external = own_of(TaskConfig("ner", folder=place))
    with pytest.raises(InputError, match=f"made with --task.folder {place}, but a model decides neither"):
        check_repeated(own, external)


def test_nothing_is_downloaded_for_a_model(tmp_path, monkeypatch):
    from bert_jax.data import tfds_reading, tfds_task
    from bert_jax.runs.evaluation import check_repeated

    monkeypatch.setattr(tfds_task, "opened", lambda name, _: tfds_reading.opened(name, str(tmp_path)))
    own, external = own_of(TaskConfig("sst-2"))
    with pytest.raises(InputError, match=r"glue/sst2 of TensorFlow Datasets isn't on this machine; .*--task.data-dir"):
        check_repeated(own, external)
    tfds_reading.opened("glue/sst2", str(tmp_path)).data_path.mkdir(parents=True)
    check_repeated(own, external)


def test_a_model_does_not_say_what_is_taken_of_the_machine(config):
    from bert_jax.runs.evaluation import own_config

    run, mesh = RunConfig(workers=500, evaluation_batches=1), MeshConfig(data=1, tensor=64)
    examples = dataclasses.replace(config.examples, dupe_factor=1000)
    for theirs, origin in (
        (dataclasses.replace(config, run=run, mesh=mesh, examples=examples), PretrainingRun),
        (
            FinetuneConfig(task=TaskConfig("ner"), sequence_length=64, evaluation_batch_size=10**6, run=run, mesh=mesh),
            FinetuningRun,
        ),
    ):
        own, _ = own_config(Pretrained(None, HeadConfig("pretraining"), None, {}, origin(theirs, 1, {}, None)))
        usual = type(theirs)()
        assert (own.run, own.mesh) == (usual.run, usual.mesh)
        if isinstance(own, FinetuneConfig):
            assert (own.evaluation_batch_size, own.sequence_length) == (usual.evaluation_batch_size, 64)
        else:
            assert (own.examples.dupe_factor, own.phases) == (1, theirs.phases)


def test_a_vocabulary_is_no_name_of_a_file(tmp_path):
    """The library of tokenizers would read the file."""
    pieces = [*SPECIAL, "secret"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    folder = tmp_path / "theirs"
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    assert list(tokenizer_folders.read(folder).pieces()) == pieces
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["vocab"] = str(tmp_path / "vocab.txt")
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"tokenizer.json: its model.vocab is .*, must be an object; copy it again"):
        tokenizer_folders.read(folder)


def test_a_resumed_workdir_names_no_folder(config, hostile, examples, tmp_path, monkeypatch):
    run = {"run": dataclasses.replace(config.run, checkpoint_every=1)}
    phases = {"phases": (dataclasses.replace(config.phases[0], steps=6),)}
    with monkeypatch.context() as patched:  # As if the stranger's machine had made it.
        patched.setattr(compiling, "set_up", lambda _: compiling.begin())
        theirs = dataclasses.replace(config, run=dataclasses.replace(hostile.run, checkpoint_every=3), **phases)
        bert_jax.pretrain(theirs, tmp_path / "run", examples.folder)
    (tmp_path / "run/checkpoints/6").rename(tmp_path / "gone")
    assert bert_jax.pretrain(dataclasses.replace(config, **run, **phases), tmp_path / "run", examples.folder).step == 6


def test_the_card_of_a_model_holds_no_markup_of_others(theirs, hostile, tmp_path):
    bert_jax.export(theirs, tmp_path / "card", "hf")
    card = (tmp_path / "card/README.md").read_text()
    for part in ("<script", "<b>", "\x1b", "\x9b", "\u202e", "\n# heading", "|[x](", "--init m; touch"):
        assert part not in card, part
    config = load_config(str(tmp_path / "card/pretrain_config.py"))
    assert (config.corpus.files, config.examples.word_segmenter, config.run.compilation_cache) == ((), None, None)
    assert "--examples.word-segmenter test_strangers:segmenter" in card  # Seen by whoever types it.


def test_predictions_act_in_no_terminal(theirs, tmp_path, capsys):
    text = f"The [MASK] {HOSTILE}".replace("\n", "\u2028\u0085").replace("\r", "")
    (tmp_path / "input.txt").write_text(text + "\n", encoding="utf-8")
    for task in ("fill-mask", "embed"):
        command = ["predict", task, "--model", str(theirs), "--input", str(tmp_path / "input.txt")]
        assert main(command) == 0
        output = capsys.readouterr().out
        assert json.loads(output)["text"] == text
        assert_harmless(output)


def test_errors_act_in_no_terminal(tmp_path, capsys):
    assert main(["predict", "embed", "--model", str(tmp_path / HOSTILE.replace("/", "")), "text"]) == 2
    error = capsys.readouterr().err
    assert "gpj.sh" in error
    assert_harmless(error)


def all_hostile(config):
    """The config with every text in it hostile, whatever it is for."""
    values = {}
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            values[name] = all_hostile(value)
        elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            values[name] = tuple(map(all_hostile, value))
        elif str in (hint, *typing.get_args(hint)):
            values[name] = (HOSTILE,) if isinstance(value, tuple) else HOSTILE
    return dataclasses.replace(config, **values)


@pytest.mark.parametrize("kind", [PretrainConfig, FinetuneConfig])
@pytest.mark.parametrize("option", ["--help", "--mistyped"])
def test_settings_of_a_model_act_in_no_help(kind, option, monkeypatch, capsys):
    config = all_hostile(kind())
    with pytest.raises(SystemExit):
        evaluate._parse(config, "m", [option])
    output = "".join(capsys.readouterr())
    assert ("gpj.sh" in output) == (option == "--help")
    assert_harmless(output.replace("\n", " ") + "\n")
    assert evaluate._parse(config, "m", []).config == config  # What is used is what it was.


def test_what_is_said_acts_in_no_terminal(capsys):
    say(HOSTILE)
    assert_harmless(capsys.readouterr().out)
    say("a", "b", file=sys.stderr)
    assert capsys.readouterr().err == "a\nb\n"


def test_a_reason_forges_no_line(tmp_path, capsys):
    tokenizer_folders.write(NoTokenizer(HOSTILE), tmp_path, 8)
    assert_harmless(capsys.readouterr().err)


def test_labels_and_texts_act_in_no_page(tmp_path):
    row = {"id": "1", "text": f"a\nb {HOSTILE}", "gold": HOSTILE, "predicted": "b", "right": False, "confidence": 0.5}
    write_page(tmp_path / "page.html", HOSTILE, {f"f1/{HOSTILE}": 1.0}, [row], (HOSTILE, "b"))
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "a b " in page
    assert_harmless(page.replace("\n", " ") + "\n")


def assert_harmless(output: str) -> None:
    """One line, of which each character is seen, and none moves another."""
    assert output.endswith("\n") and len(output.splitlines()) == 1
    assert all(unicodedata.category(letter) != "Cc" for letter in output[:-1])
    assert all(unicodedata.bidirectional(letter) not in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI") for letter in output)
