"""Every way to get a model leads to everything that is done with one, or to one line that says why it can't.

The way of a model is what was done for it, one after the other, as "finetune ner > export hf > import".
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import write_corpus
from heads import torch_model
from safetensors.torch import load_file
from test_flax_folders import in_flax
from test_flax_folders import write as write_flax

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import (
    CorpusConfig,
    ExamplesConfig,
    FinetuneConfig,
    HeadConfig,
    InputError,
    ModelConfig,
    OptimizerConfig,
    Phase,
    PretrainConfig,
    RunConfig,
    TaskConfig,
    TokenizerConfig,
)
from bert_jax.convert import pretrained
from bert_jax.data.prepare import prepare
from bert_jax.data.tokenizers import SPECIAL

TEXT = "the a dog bird king hill clock garden watches follows paints every teacher who ? . document of"
WORDS = TEXT.split()
MODEL = ModelConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32
)
HEADS = {
    "encoder": (HeadConfig("encoder"), "BertModel"),
    "masked_lm": (HeadConfig("masked_lm"), "BertForMaskedLM"),
    "pretraining": (HeadConfig("pretraining"), "BertForPreTraining"),
    "sequence_classification": (
        HeadConfig("sequence_classification", ("king", "dog")),
        "BertForSequenceClassification",
    ),
    "token_classification": (
        HeadConfig("token_classification", ("O", "B-PER", "I-PER")),
        "BertForTokenClassification",
    ),
    "question_answering": (HeadConfig("question_answering"), "BertForQuestionAnswering"),
    "multiple_choice": (HeadConfig("multiple_choice"), "BertForMultipleChoice"),
}
# The task that a kind of head is fine-tuned on; of sequence classification there are two.
TASK_OF = {
    "sequence_classification": "classification",
    "token_classification": "ner",
    "question_answering": "squad",
    "multiple_choice": "multiple_choice",
}
TASKS = (*TASK_OF.values(), "regression")
FORMATS = ("hf", "tf1", "onnx", "stablehlo")

STARTS = ["pretrain sentence_pairs", "pretrain full_sentences", *(f"finetune {task}" for task in TASKS)]
# As transformers writes them today; as its Flax models were saved; with the files of sentence-transformers.
FOLDERS = [f"folder {kind}" for kind in HEADS]
OTHER_FOLDERS = ["flax pretraining", "flax sequence_classification", "sentence_transformers encoder"]
WAYS = [
    *STARTS,
    *FOLDERS,
    *OTHER_FOLDERS,
    "pretrain sentence_pairs > export tf1",
    "finetune classification > export tf1",
    *(
        pytest.param(f"finetune {task} > import > export hf > import", marks=[pytest.mark.long] * (task != "ner"))
        for task in TASKS
    ),
    *(
        pytest.param(f"{start} > {action}", marks=pytest.mark.long)
        for start in (*STARTS, *FOLDERS, *OTHER_FOLDERS)
        for action in ("import", "export hf", "export tf1")
        if f"{start} > {action}" not in ("pretrain sentence_pairs > export tf1", "finetune classification > export tf1")
    ),
]
THINGS = ("predict", "evaluate", "finetune", "pretrain", *(f"export {form}" for form in FORMATS))


class World:
    """A folder with text, tables and models, each made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        write_corpus(folder / "corpus.txt", documents=10)
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in [*SPECIAL, *WORDS]))
        rows = [("the king watches", "king", "1.5"), ("the dog follows", "dog", "0.5")] * 4
        columns = ["text,label,score", *(",".join(row) for row in rows)]
        (folder / "table.csv").write_text("\n".join(columns) + "\n")
        (folder / "train.conll").write_text("the O\nking B-PER\nwatches O\n\n" * 4)
        questions = [{"id": str(i), "question": "who ?", "answers": [self.answer]} for i in range(4)]
        paragraphs = [{"context": "the dog watches the king .", "qas": questions}]
        squad = {"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}
        (folder / "squad.json").write_text(json.dumps(squad))
        choices = {"context": "the king", "choices": ["watches the hill", "paints a dog"], "label": 1}
        (folder / "choices.jsonl").write_text(f"{json.dumps(choices)}\n" * 4)

    answer = {"text": "the dog", "answer_start": 0}

    def pretraining(self, form: str) -> PretrainConfig:
        return PretrainConfig(
            corpus=CorpusConfig(source="text", files=(str(self.folder / "corpus.txt"),), held_out=0.1),
            tokenizer=TokenizerConfig(path=str(self.folder / "vocab.txt")),
            examples=ExamplesConfig(form),
            model=MODEL,
            optimizer=OptimizerConfig(warmup_steps=0),
            phases=(Phase(sequence_length=32, batch_size=8, steps=1, max_predictions=5),),
            run=RunConfig(evaluation_batches=1, workers=1),
        )

    def examples(self, form: str) -> Path:
        folder = self.folder / form
        if not folder.exists():
            prepare(self.pretraining(form), folder)
        return folder

    def task(self, name: str) -> FinetuneConfig:
        file = {"ner": "train.conll", "squad": "squad.json", "multiple_choice": "choices.jsonl"}.get(name, "table.csv")
        files = dict(train=str(self.folder / file), dev=str(self.folder / file))
        label = {"label_column": "score"} if name == "regression" else {}
        task = TaskConfig(name=name, **files, **label, query_length=8, stride=8)
        return FinetuneConfig(task=task, sequence_length=32, batch_size=8, evaluation_batch_size=8, epochs=1)

    def model(self, way: str) -> Path:
        """Where the model of a way lies."""
        folder = self.folder / way.replace(" ", "_").replace(">", "-")
        if not folder.exists():
            before, _, last = way.rpartition(" > ")
            action, _, what = last.partition(" ")
            match action:
                case "pretrain":
                    bert_jax.pretrain(self.pretraining(what), folder, self.examples(what))
                case "finetune":
                    bert_jax.finetune(self.task(what), self.model("pretrain sentence_pairs"), folder)
                case "folder":
                    self.of_transformers(what, folder)
                case "flax":
                    self.of_transformers(what, folder)
                    write_flax(folder, in_flax(load_file(folder / "model.safetensors")))
                    (folder / "model.safetensors").unlink()
                case "sentence_transformers":
                    self.of_transformers(what, folder)
                    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
                    modules = [
                        {"path": at, "type": f"sentence_transformers.models.{kind}"} for at, kind in kinds.items()
                    ]
                    (folder / "modules.json").write_text(json.dumps(modules))
                    (folder / "1_Pooling").mkdir()
                    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
                case "import":
                    assert main(["import", str(self.model(before)), str(folder)]) == 0
                case "export":
                    bert_jax.export(self.model(before), folder, what)
        return folder

    def of_transformers(self, kind: str, folder: Path) -> None:
        head, name = HEADS[kind]
        bert = torch_model(dataclasses.replace(MODEL, vocab_size=len(SPECIAL) + len(WORDS)), head, name)
        if head.labels:
            bert.config.id2label = dict(enumerate(head.labels))
        bert.save_pretrained(folder)
        (folder / "vocab.txt").write_bytes((self.folder / "vocab.txt").read_bytes())


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def task_of(way: str, head: HeadConfig) -> str:
    return "regression" if way.startswith("finetune regression") else TASK_OF[head.kind]


def check_predict(world: World, way: str, model: Path, _) -> None:
    bert = bert_jax.load(model)
    assert bert.encode("the king watches .").shape == (1, 32)
    match bert.head.kind:
        case "masked_lm" | "pretraining":
            assert len(bert.fill_mask("the [MASK] watches .")[0]) == 5
        case "sequence_classification" if "regression" in way:
            assert isinstance(bert.classify("the king").label, float)
        case "sequence_classification":
            assert bert.classify("the king").label in ("king", "dog")
        case "token_classification":
            assert {span.type for span in bert.tag("the king watches")} <= {"PER"}
        case "question_answering":
            assert bert.answer("who ?", "the dog watches").text in "the dog watches"
        case "multiple_choice":
            assert bert.apply(np.full((1, 2, 8), 5)).shape == (1, 2)


def check_evaluate(world: World, way: str, model: Path, output: Path) -> None:
    saved = pretrained.read(model)
    kind = saved.head.kind
    if kind == "encoder":
        with pytest.raises(InputError, match="encoder model.*masked-LM loss needs"):
            bert_jax.evaluate(model, world.pretraining("sentence_pairs"))
        return
    if kind in TASK_OF:
        config = world.task(task_of(way, saved.head))
    else:
        config = world.pretraining("sentence_pairs" if kind == "pretraining" else "full_sentences")
    if saved.origin.config is None:
        with pytest.raises(InputError, match="the model: doesn't say what it was trained on; give a config"):
            bert_jax.evaluate(model)
    ours = way.startswith("finetune") and saved.origin.config  # Which text a model read, it doesn't choose again.
    scores = bert_jax.evaluate(model, None if ours else config, output)
    assert scores and json.loads((output / "scores.json").read_text()) == pytest.approx(scores)


def check_finetune(world: World, way: str, model: Path, output: Path) -> None:
    result = bert_jax.finetune(world.task("classification"), model, output)
    assert result.step == 1 and "dev_accuracy" in result.scores


def check_pretrain(world: World, way: str, model: Path, output: Path) -> None:
    kind = pretrained.read(model).head.kind
    form = "sentence_pairs" if kind == "pretraining" else "full_sentences"
    config = dataclasses.replace(world.pretraining(form), tokenizer=TokenizerConfig())
    if kind not in ("masked_lm", "pretraining"):
        lacks = rf"a model of the kind {kind} lacks cls/.*bert-jax import --head masked_lm --allow-missing"
        with pytest.raises(InputError, match=lacks):
            bert_jax.pretrain(config, output, world.examples(form), init=model)
        assert not output.exists()
        arguments = [str(model), str(output.with_name("headed")), "--head", "masked_lm", "--allow-missing"]
        assert main(["import", *arguments]) == 0
        model = output.with_name("headed")
    assert bert_jax.pretrain(config, output, world.examples(form), init=model).step == 1


def check_export(world: World, way: str, model: Path, output: Path, form: str) -> None:
    saved = pretrained.read(model)
    bert_jax.export(model, output, form)
    card = (output / "README.md").read_text()
    assert ("## Training" in card) == (saved.origin.config is not None)
    for config in output.glob("*_config.py"):
        assert re.search(r"bert-jax (pretrain|finetune) --config", card)[1] == config.name.removesuffix("_config.py")
    if form in ("hf", "tf1"):
        again = pretrained.read(output)
        # How its products are computed isn't of the model.
        computed = {name: getattr(again.model, name) for name in ("dtype", "scan_unroll", "remat")}
        assert (again.model, again.head) == (dataclasses.replace(saved.model, **computed), saved.head)
        assert again.tokenizer.to_dict() == saved.tokenizer.to_dict()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("thing", THINGS)
def test_every_way_leads_everywhere(way, thing, world, tmp_path):
    model, (action, _, form) = world.model(way), thing.partition(" ")
    check = {
        "predict": check_predict,
        "evaluate": check_evaluate,
        "finetune": check_finetune,
        "pretrain": check_pretrain,
        "export": check_export,
    }[action]
    check(world, way, model, tmp_path / "output", *filter(None, [form]))
