"""A trained model through the commands, into each format: what its model card says runs, and gives the same logits."""

import re
import subprocess
import sys

import numpy as np
import pytest
from heads import assert_equal

from bert_jax.cli.main import main
from bert_jax.convert import names, pretrained
from bert_jax.runs.pretraining import pretrain

TEXTS = ["One text.", "And another one."]  # Of the card.


@pytest.fixture(scope="module")
def trained(config, examples, tmp_path_factory):
    """A run's workdir, and the model in it."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    pretrain(config, workdir, examples.folder)
    return workdir, pretrained.read(workdir)


def of_the_card(folder, last_line: str) -> str:
    """Runs the program in the folder's README.md, and one line more."""
    (program,) = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    command = [sys.executable, "-I", "-c", program + last_line]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def expected(trained):
    """Torch's logits for `TEXTS`, of a model that was given the weights under their names there."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    found = trained[1]
    sizes = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings"
    bert = BertForPreTraining(BertConfig(**{name: getattr(found.model, name) for name in sizes.split()})).eval()
    weights = {
        name: torch.tensor(np.array(array))
        for name, array in names.to_arrays(found.params, found.model, found.head, "hf")
    }
    lacking, stray = bert.load_state_dict(weights, strict=False)
    assert not stray and set(lacking) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    cls, sep, pad = (found.tokenizer.special_ids[piece] for piece in ("[CLS]", "[SEP]", "[PAD]"))
    ids = [[cls, *row, sep] for row in found.tokenizer.encode(TEXTS)]
    longest = max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
    with torch.no_grad():
        logits = bert(input_ids=ids, attention_mask=mask)
    return logits.prediction_logits.numpy(), logits.seq_relationship_logits.numpy()


@pytest.mark.parametrize(
    ("form", "values"), [("onnx", "outputs"), ("stablehlo", "(outputs[n] for n in sorted(outputs))")]
)
def test_the_program_of_the_model_card_gives_torchs_logits(form, values, trained, expected, tmp_path):
    assert main(["export", str(trained[0]), str(tmp_path / form), "--format", form]) == 0
    of_the_card(tmp_path / form, f"import numpy\nnumpy.savez('found.npz', *{values})")
    found = np.load(tmp_path / form / "found.npz")
    for i, logits in enumerate(expected):
        assert np.abs(found[f"arr_{i}"] - logits).max() < 1e-4


def test_tf1_there_and_back(trained, tmp_path):
    workdir, before = trained
    assert main(["export", str(workdir), str(tmp_path / "tf1"), "--format", "tf1"]) == 0
    assert of_the_card(tmp_path / "tf1", "print(weights['bert/pooler/dense/kernel'].shape)") == "(32, 32)\n"
    for source in ("tf1", "tf1/bert_model.ckpt"):
        assert main(["import", str(tmp_path / source), str(tmp_path / "back"), "--overwrite"]) == 0
        after = pretrained.read(tmp_path / "back")
        assert_equal(after.params, before.params)
        assert after.head == before.head and after.tokenizer.to_dict() == before.tokenizer.to_dict()
