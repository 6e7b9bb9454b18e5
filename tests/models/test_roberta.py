"""RoBERTa: loaded, fine-tuned and exported, equal to transformers with random weights of odd sizes."""

import json

import numpy as np
import onnxruntime
import pytest
import tokenizers
import torch
import transformers
from test_finetune import write_table

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import InputError

SIZES = dict(
    **dict(vocab_size=301, hidden_size=30, num_hidden_layers=3, num_attention_heads=5, intermediate_size=52),
    **dict(max_position_embeddings=44, type_vocab_size=1, layer_norm_eps=1e-5, initializer_range=0.3),
)
CLASSES = {
    "encoder": "RobertaModel",
    "masked_lm": "RobertaForMaskedLM",
    "sequence_classification": "RobertaForSequenceClassification",
    "token_classification": "RobertaForTokenClassification",
    "question_answering": "RobertaForQuestionAnswering",
    "multiple_choice": "RobertaForMultipleChoice",
}
TEXTS = ["The quick brown fox jumps over a lazy dog.", "Foxes!", "a dog, a fox and 3 birds over there"]


def write_tokenizer(folder) -> None:
    """Byte-level BPE with RoBERTa's special tokens, as transformers saves it."""
    names = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>")
    names |= dict(cls_token="<s>", sep_token="</s>")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=301, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(TEXTS * 4, trainer)
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    transformers.RobertaTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def make(kind: str, folder):
    torch.manual_seed(0)
    labels = {0: "bad", 1: "so-so", 2: "good"}
    fields = {} if kind == "question_answering" else dict(id2label=labels, classifier_dropout=0.2)
    config = transformers.RobertaConfig(**SIZES, **fields)
    model = getattr(transformers, CLASSES[kind])(config).eval()
    for name, parameter in model.named_parameters():  # Biases, too, aren't zero.
        torch.nn.init.normal_(parameter, std=0.3) if name.endswith("bias") else None
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


@pytest.fixture(scope="module", params=CLASSES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta") / request.param
    return request.param, folder, make(request.param, folder)


def inputs(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (3, 4, 42) if kind == "multiple_choice" else (3, 42)
    mask = (np.arange(42) < rng.integers(2, 43, shape[:-1])[..., None]).astype(np.int32)
    ids = np.where(mask, rng.integers(5, 301, shape), 1)  # Positions begin behind the padding's id, and skip it.
    return {"input_ids": ids.astype(np.int32), "attention_mask": mask}


def outputs(model, batch) -> list[np.ndarray]:
    with torch.no_grad():
        found = model(**{name: torch.tensor(x, dtype=torch.long) for name, x in batch.items()})
    return [value.numpy() for value in found.values() if value is not None]


def assert_alike(found, expected, batch) -> None:
    """Where a token's vector is one of padding, nobody reads it."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        if b.shape[:2] == batch["input_ids"].shape:
            a, b = a[batch["attention_mask"] > 0], b[batch["attention_mask"] > 0]
        assert np.abs(a - b).max() < 1e-4


def in_order(found) -> list[np.ndarray]:
    found = found if isinstance(found, tuple) else (found,)
    return [np.asarray(x) for x in found]


def test_outputs_are_those_of_transformers_here_and_exported(case, tmp_path):
    kind, folder, theirs = case
    batch = inputs(kind)
    expected = outputs(theirs, batch)
    bert = bert_jax.load(folder)
    assert (bert.head.kind, bert.config.architecture, bert.config.max_position_embeddings) == (kind, "roberta", 42)
    found = in_order(bert.apply(**batch))
    found = [found[0][..., 0], found[0][..., 1]] if kind == "question_answering" else found
    assert_alike(found, expected, batch)
    for form in ("hf", "onnx"):
        assert main(["export", str(folder), str(tmp_path / form), "--format", form]) == 0
    again = getattr(transformers, CLASSES[kind]).from_pretrained(tmp_path / "hf")
    assert again.config.max_position_embeddings == 44 and again.config.pad_token_id == 1
    for name, parameter in theirs.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    running = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    types = {"token_type_ids": np.zeros_like(batch["input_ids"])}
    assert_alike(running.run(None, {n: x.astype(np.int64) for n, x in (batch | types).items()}), expected, batch)


def test_texts_and_pairs_have_the_ids_of_autotokenizer(case):
    _, folder, _ = case
    bert, theirs = bert_jax.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for pairs in (None, TEXTS[::-1]):
        ours = bert.tokenize(TEXTS, pairs)
        expected = theirs(TEXTS, pairs, padding=True, truncation=True, max_length=42)
        assert ours["input_ids"].tolist() == expected["input_ids"] and not ours["token_type_ids"].any()


def test_masks_are_filled_as_by_transformers(tmp_path):
    make("masked_lm", tmp_path / "theirs")
    fill = transformers.pipeline("fill-mask", str(tmp_path / "theirs"), top_k=5)
    text = "The quick <mask> fox"
    ours = bert_jax.load(tmp_path / "theirs").fill_mask(text.replace("<mask>", "[MASK]"))[0]
    expected = fill(text)
    np.testing.assert_allclose([guess.probability for guess in ours], [one["score"] for one in expected], rtol=1e-3)
    assert main(["export", str(tmp_path / "theirs"), str(tmp_path / "tf1"), "--format", "tf1"]) == 2


def test_fine_tuned_and_used_in_transformers(tmp_path, capsys):
    make("masked_lm", tmp_path / "theirs")
    write_table(tmp_path / "train.tsv", 24, 0)
    write_table(tmp_path / "dev.tsv", 8, 1)
    tables = ["--task.train", str(tmp_path / "train.tsv"), "--task.dev", str(tmp_path / "dev.tsv")]
    run = ["--init", str(tmp_path / "theirs"), "--workdir", str(tmp_path / "run"), "--sequence-length", "42"]
    assert main(["finetune", *run, *tables, "--epochs", "1", "--batch-size", "8"]) == 0
    assert main(["finetune", *run[:-1], "43", *tables]) == 2 and "the model reads 42 tokens" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "hf"]) == 0
    classify = transformers.pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    for text in TEXTS:
        ours = bert_jax.load(tmp_path / "run").classify(text).probabilities
        assert {one["label"]: one["score"] for one in classify([text])[0]} == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pad_token_id", "<pad>", "pad_token_id: is '<pad>', must be a number from 0"),
        ("pad_token_id", -1, "pad_token_id: is -1, must be a number from 0"),
        ("max_position_embeddings", 2, "max_position_embeddings: is 0, must be at least 1"),
        ("max_position_embeddings", "many", "max_position_embeddings: is 'many', must be int"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_in_a_line(tmp_path, field, value, message):
    make("encoder", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(InputError, match=f"config.json: {message}"):
        bert_jax.load(tmp_path)
