"""A pretrained model's loss on any text, beside torch's on the same batches."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
import torch
from torch_bert import in_our_names, inputs, reference
from workdirs import write_config

from bert_jax.cli.main import main
from bert_jax.config import ExamplesConfig, HeadConfig, InputError
from bert_jax.convert.origin import Folder
from bert_jax.convert.pretrained import Pretrained, save
from bert_jax.data import pipeline
from bert_jax.data.prepare import prepare
from bert_jax.runs.evaluation import evaluate_pretraining


@pytest.fixture(scope="module")
def model(config, examples):
    """Torch's, and the same as ours."""
    sizes = dataclasses.replace(config.model, vocab_size=examples.tokenizer.vocab_size)
    torchs = reference(sizes)
    params = in_our_names(torchs.state_dict(), sizes.num_hidden_layers)
    return torchs, Pretrained(sizes, HeadConfig("pretraining"), examples.tokenizer, params, Folder(""))


def test_losses_on_text_are_torchs(config, model, corpus, tmp_path, capsys):
    torchs, found = model
    save(found, tmp_path / "model")
    file = write_config(tmp_path / "config.py", config)
    arguments = ["--model", str(tmp_path / "model"), "--config", str(file), "--output", str(tmp_path / "scores")]
    assert main(["evaluate", *arguments]) == 0
    assert "mlm_perplexity" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores/scores.json").read_text())

    everything = dataclasses.replace(config, corpus=dataclasses.replace(config.corpus, held_out=0.0))
    data = prepare(everything, tmp_path / "examples", tokenizer=found.tokenizer)
    sums, counts, pairs = 0.0, 0, []
    for batch in pipeline.held_out_batches(data, everything, config.phases[-1], lambda size: (range(size),), "train"):
        rows = batch["next_sentence_labels"] >= 0
        batch = {name: values[rows] for name, values in batch.items()}
        with torch.inference_mode():
            named = inputs(batch)
            outputs = torchs(**{name: named[name] for name in ("input_ids", "token_type_ids", "attention_mask")})
        logits, labels = outputs.prediction_logits, named["labels"]
        sums += torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
        counts += int((labels >= 0).sum())
        pairs += (outputs.seq_relationship_logits.argmax(-1) == named["next_sentence_label"]).tolist()
    assert len(pairs) == len(data.split("train", 32))  # All of the corpus, each example once.
    assert scores["mlm_loss"] == pytest.approx(sums / counts, rel=1e-5)
    assert scores["mlm_perplexity"] == pytest.approx(math.exp(sums / counts), rel=1e-4)
    assert scores["nsp_accuracy"] == pytest.approx(np.mean(pairs), rel=1e-4)


def test_a_loss_that_overflows_is_no_score(config, model, tmp_path, capsys):
    large = jax.tree.map(lambda x: x * np.float32(1e30), model[1].params)
    save(dataclasses.replace(model[1], params=large), tmp_path / "model")
    file = write_config(tmp_path / "config.py", config)
    arguments = ["--model", str(tmp_path / "model"), "--config", str(file), "--output", str(tmp_path / "scores")]
    assert main(["evaluate", *arguments]) == 2
    said = capsys.readouterr()
    assert "mlm_loss" not in said.out and not (tmp_path / "scores/scores.json").exists()
    assert said.err.splitlines()[-1].startswith("bert-jax: the corpus: what the model computes overflows")


def test_a_model_without_that_head_is_refused(config, model):
    classifier = dataclasses.replace(model[1], head=HeadConfig("sequence_classification", ("a", "b")))
    with pytest.raises(InputError, match="this is a sequence_classification model"):
        evaluate_pretraining(classifier, config, None)


def test_text_without_next_sentences_has_no_score_of_them(config, model):
    whole = dataclasses.replace(config, examples=ExamplesConfig("full_sentences"))
    scores = evaluate_pretraining(model[1], whole, None)
    assert (
        scores.keys() == {"loss", "mlm_loss", "mlm_accuracy", "mlm_perplexity"} and scores["loss"] == scores["mlm_loss"]
    )


@pytest.mark.parametrize("returned", ["None", "ModelConfig()"])
def test_what_is_no_config_is_named(tmp_path, capsys, returned):
    file = tmp_path / "config.py"
    file.write_text(f"from bert_jax.config import *\n\n\ndef get_config():\n    return {returned}\n")
    assert main(["evaluate", "--model", str(tmp_path), "--config", str(file)]) == 2
    kind = {"None": "NoneType"}.get(returned, "ModelConfig")
    assert f"returned {kind}, must return a FinetuneConfig or a PretrainConfig" in capsys.readouterr().err
