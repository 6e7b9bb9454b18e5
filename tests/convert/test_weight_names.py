"""Weights under the names that wrappers, checkpoints and other heads give them, against transformers' models."""

import re

import numpy as np
import pytest
import torch
import transformers
from heads import assert_equal
from hf_folders import edit_config, torch_folder
from safetensors.torch import load_file, save_file

from bert_jax.cli.main import main
from bert_jax.config import InputError
from bert_jax.convert import pretrained
from bert_jax.inference.bert import Bert


def before(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def beside(key):
    """What a training loop saves: the weights under a key, and the optimizer's moments."""

    def checkpoint(state):
        moments = {i: {"step": torch.tensor(3.0), "exp_avg": tensor} for i, tensor in enumerate(state.values())}
        optimizer = {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}
        return {"epoch": 3, key: state, "optimizer": optimizer, "args": {"name": "run"}}

    return checkpoint


def inside(state):
    """As FSDP, activation checkpointing and torch.compile name the parts of a model that they wrap."""
    return {name.replace(".layer.0.", ".layer.0._checkpoint_wrapped_module."): x for name, x in state.items()}


WRAPPED = {
    "DataParallel": before("module."),
    "a class of one's own": before("model."),
    "torch.compile": before("_orig_mod."),
    "several": before("module._orig_mod.model."),
    "a model called bert": before("bert."),
    "a name nobody thought of": before("text.tower_1."),
    "the encoder alone": lambda state: {re.sub("^bert", "bert.module", name): x for name, x in state.items()},
    "in the middle": inside,
    "a training loop": beside("model"),
    "Lightning": lambda state: beside("state_dict")(before("model.")(state)),
    "DeepSpeed": beside("module"),
    "a key within a key": lambda state: {"checkpoint": beside("model_state_dict")(state)},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_wraps_a_model_is_taken_off_and_said(name, tmp_path):
    one, state = torch_folder(tmp_path / "hf", "classifier", weights=None)
    torch.save(WRAPPED[name](state), tmp_path / "hf/pytorch_model.bin")
    found = pretrained.read(tmp_path / "hf")
    assert_equal(found.params, one.params)
    assert not found.report.missing and not found.report.unused
    assert sum("is taken for bert." in note for note in found.report.notes) == 1


@pytest.mark.parametrize("prefix", ["0.auto_model.", "encoder.", "bert.", ""])
def test_the_encoder_alone_under_any_name(prefix, tmp_path):
    one, state = torch_folder(tmp_path / "hf", "encoder", weights=None)
    save_file(before(prefix)(state), tmp_path / "hf/model.safetensors")
    assert_equal(pretrained.read(tmp_path / "hf").params, one.params)


def renamed(pattern, new):
    return lambda state: {re.sub(pattern, new, name): tensor for name, tensor in state.items()}


def more(name):
    return lambda state: state | {name: torch.zeros(2, 2)}


REFUSED = {
    "two encoders": (
        lambda state: before("student.")(state) | before("teacher.")(state),
        "holds several encoders, as student.bert.embeddings.* and teacher.bert.embeddings.* show; save the one",
    ),
    "no BERT": (
        renamed(r".*?(\w+\.\w+)$", r"blocks.\1"),
        "37 of 37 arrays of the encoder aren't there: .*bert.embeddings.word_emb.*in the files are blocks",
    ),
    "TensorFlow's": (renamed("$", ":0"), "bert.embeddings.* is a name of TensorFlow's Keras models.*transformers 4"),
    "a LoRA that isn't merged": (
        more("bert.encoder.layer.0.attention.self.query.lora_A.default.weight"),
        "query.lora_A.default.weight; merge adapters into the weights",
    ),
    "an adapter": (more("bert.encoder.layer.1.output.adapters.x.adapter_up.weight"), "adapters.x.adapter_up.weight"),
    "relative positions": (more("bert.encoder.layer.0.attention.self.distance_embedding.weight"), "distance_embedding"),
    "a head of another name": (
        renamed("^classifier", "my_head"),
        "lacks 2 parameters of the model: classifier.weight, classifier.bias; left over are my_head.bias, my_head.w",
    ),
    "twice": (more("module.classifier.bias"), "module.classifier.bias and classifier.bias are the same weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_shows_names_that_are_in_the_file(name, tmp_path):
    change, message = REFUSED[name]
    _, state = torch_folder(tmp_path / "hf", "classifier", weights=None)
    torch.save(change(state), tmp_path / "hf/pytorch_model.bin")
    with pytest.raises(InputError, match=message):
        pretrained.read(tmp_path / "hf")


@pytest.mark.parametrize("left", [0, 10])
def test_no_encoder_is_made_up(left, tmp_path, capsys):
    """Fresh values are for what is missing of a model, not for a model that is missing."""
    _, state = torch_folder(tmp_path / "hf", "classifier", weights=None)
    names = [name for name in state if name.startswith("bert.e")][:left]
    kept = {name: state[name] for name in [*names, "classifier.weight"]}
    save_file(kept, tmp_path / "hf/model.safetensors")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "ours"), "--allow-missing"]) == 2
    error = capsys.readouterr().err
    assert re.search(f"{37 - left} of 37 arrays of the encoder aren't there.*in the files are {sorted(kept)[0]}", error)
    assert not (tmp_path / "ours").exists()


# ---- The encoder out of any folder ----------------------------------------------------------------------------------

SIZES = dict(vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


def made(folder, kind: str = "BertForTokenClassification", **config):
    torch.manual_seed(0)
    values = {**SIZES, "max_position_embeddings": 32, "initializer_range": 0.3, **config}
    model = getattr(transformers, kind)(transformers.BertConfig(**values)).eval()
    model.save_pretrained(folder)
    return model.bert


def with_crf(folder):
    bert = made(folder)
    state = load_file(folder / "model.safetensors")
    save_file(state | {"crf.transitions": torch.zeros(2, 2)}, folder / "model.safetensors")
    edit_config(folder, architectures=["BertCrfForNer"])
    return bert


def of_dpr(folder):
    torch.manual_seed(0)
    config = transformers.DPRConfig(**SIZES, max_position_embeddings=32, initializer_range=0.3)
    model = transformers.DPRQuestionEncoder(config).eval()
    model.save_pretrained(folder)
    return model.question_encoder.bert_model


def of_no_known_class(folder):
    bert = made(folder, "BertForSequenceClassification")
    edit_config(folder, architectures=["MyModel"])
    state = load_file(folder / "model.safetensors")
    save_file({name.replace("classifier", "scorer.2"): x for name, x in state.items()}, folder / "model.safetensors")
    return bert


OTHER_HEADS = {
    "next sentence": lambda folder: made(folder, "BertForNextSentencePrediction"),
    "untied": lambda folder: made(folder, "BertForMaskedLM", tie_word_embeddings=False),
    "language model": lambda folder: made(folder, "BertLMHeadModel"),
    "crf": with_crf,
    "dpr": of_dpr,
    "no known class": of_no_known_class,
}


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_the_encoder_comes_out_of_any_folder(name, tmp_path, capsys):
    bert = OTHER_HEADS[name](tmp_path / "hf")
    with pytest.raises(InputError, match="bert-jax import --head encoder"):
        pretrained.read(tmp_path / "hf")
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "ours"), "--head", "encoder"]) == 0
    assert "missing" not in capsys.readouterr().out
    ids = np.array([[2, 5, 6, 7, 3], [2, 9, 30, 4, 3]])
    with torch.no_grad():
        expected = bert(torch.tensor(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(Bert(pretrained.read(tmp_path / "ours")).apply(ids)[0], expected, atol=1e-4)


@pytest.mark.parametrize("change", [{"position_embedding_type": "relative_key"}, {"is_decoder": True}])
def test_an_encoder_that_computes_something_else_does_not(change, tmp_path):
    made(tmp_path / "hf")
    edit_config(tmp_path / "hf", **change)
    with pytest.raises(InputError, match=next(iter(change))):
        pretrained.read(tmp_path / "hf", kind="encoder")


# ---- Without a tokenizer --------------------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer_takes_ids(tmp_path, capsys):
    """And texts are refused with the reason, before and after an import."""
    one, _ = torch_folder(tmp_path / "hf", "masked_lm")
    command = ["import", str(tmp_path / "hf"), str(tmp_path / "ours")]
    assert main(command) == 2 and "--head masked_lm imports the weights" in capsys.readouterr().err
    assert main([*command, "--head", "masked_lm"]) == 0
    assert "without its tokenizer: " in capsys.readouterr().out
    batch = one.batch(2, 16)
    for folder in (tmp_path / "hf", tmp_path / "ours"):
        bert = Bert(pretrained.read(folder))
        mask = batch["attention_mask"].astype(bool)
        expected = one.expected(batch)["logits"]
        np.testing.assert_allclose(np.asarray(bert.apply(**batch))[mask], expected[mask], atol=1e-4)
        for use in (bert.encode, bert.fill_mask, bert.tokenize):
            with pytest.raises(InputError, match="hf: holds no tokenizer"):
                use("a [MASK]")
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--format", "hf"]) == 0
    assert "no tokenizer is written" in capsys.readouterr().err
    assert_equal(pretrained.read(tmp_path / "out").params, one.params)
