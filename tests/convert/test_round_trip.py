"""Import -> export -> import keeps everything that decides a result: generated folders of Hugging Face and
sentence-transformers, compared as we read them and as transformers does."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from heads import assert_equal
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer

from bert_jax.convert import pretrained
from bert_jax.data.tokenizers import SPECIAL

CLASSES = {
    "BertModel": "AutoModel",
    "BertForMaskedLM": "AutoModelForMaskedLM",
    "BertForPreTraining": "AutoModelForPreTraining",
    "BertForSequenceClassification": "AutoModelForSequenceClassification",
    "BertForTokenClassification": "AutoModelForTokenClassification",
    "BertForQuestionAnswering": "AutoModelForQuestionAnswering",
    "BertForMultipleChoice": "AutoModelForMultipleChoice",
}
TEXT = "the quick brown fox café cafe Fox 中 文 ##s ##ed jump . , ! [unused1] [unused2] a b c"
WORDS = TEXT.split()
TEXTS = [
    "The quick brown fox jumps.",
    "caf\u00e9, \u4e2d\u6587!",
    "a [unused1] Fox b [MASK] c",
    "foxes\u0301 " + "a " * 40,
]


class Folder:
    """A folder of random settings: a model as transformers saves it, then changed as other writers do."""

    def __init__(self, path: Path, seed: int):
        self.path, self.rng = path, random.Random(seed)
        torch.manual_seed(seed)
        self.vocabulary = [*SPECIAL, *WORDS]
        self.kind = self.rng.choice(list(CLASSES))
        self.write_model()
        self.write_tokenizer()
        if self.kind == "BertModel" and self.rng.random() < 0.7:
            self.write_modules()

    def maybe(self, *values):
        """One of the values, or nothing."""
        return self.rng.choice([None, *values])

    def write_model(self) -> None:
        choose, heads = self.rng.choice, self.rng.choice([1, 2, 4])
        labels = {}
        if self.kind in ("BertForSequenceClassification", "BertForTokenClassification"):
            names = [f"{choose(['B-', 'I-', ''])}{name}" for name in ("PER", "LOC", "MISC", "x y")[: choose([1, 2, 4])]]
            labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        if self.kind == "BertForSequenceClassification":
            types = ["regression", "multi_label_classification"]
            labels["problem_type"] = self.maybe(*types, *(["single_label_classification"] if len(names) > 1 else []))
        config = transformers.BertConfig(
            vocab_size=len(self.vocabulary) + choose([0, 3]),
            hidden_size=8 * heads,
            num_hidden_layers=choose([1, 2]),
            num_attention_heads=heads,
            intermediate_size=choose([8, 24]),
            max_position_embeddings=choose([32, 40]),
            type_vocab_size=choose([1, 2, 3]),
            hidden_act=choose(["gelu", "gelu_new", "gelu_pytorch_tanh"]),
            layer_norm_eps=choose([1e-12, 1e-5]),
            hidden_dropout_prob=choose([0.0, 0.1]),
            classifier_dropout=self.maybe(0.0, 0.3),
            initializer_range=0.3,
            **labels,
        )
        bert = getattr(transformers, self.kind)(config)
        if self.kind == "BertModel" and self.rng.random() < 0.3:
            bert = transformers.BertModel(config, add_pooling_layer=False)
        bert.to(choose([torch.float32, torch.float16, torch.bfloat16])).save_pretrained(self.path)
        if self.rng.random() < 0.3:
            state = transformers.modeling_utils.load_state_dict(self.path / "model.safetensors")
            old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
            renamed = {name: array.clone() for name, array in state.items()}
            for today, before in old.items():
                renamed = {name.replace(today, before): array for name, array in renamed.items()}
            save_file(renamed, self.path / "model.safetensors", metadata={"format": "pt"})

    def write_tokenizer(self) -> None:
        lower = self.rng.random() < 0.5
        tokenizer = transformers.BertTokenizer(
            vocab={piece: i for i, piece in enumerate(self.vocabulary)},
            do_lower_case=lower,
            strip_accents=self.maybe(True, False),
            tokenize_chinese_chars=self.rng.random() < 0.8,
            **({"additional_special_tokens": ["[unused1]"]} if self.rng.random() < 0.4 else {}),
            **({"model_max_length": self.rng.choice([16, 24])} if self.rng.random() < 0.5 else {}),
        )
        if self.rng.random() < 0.3:
            tokenizer.add_tokens(["[unused2]"])
        tokenizer.save_pretrained(self.path)
        if self.rng.random() < 0.5:
            (self.path / "tokenizer.json").unlink()
            lines = "".join(f"{piece}\n" for piece in self.vocabulary)
            (self.path / "vocab.txt").write_text(lines, encoding="utf-8")

    def write_modules(self) -> None:
        names = ["Transformer", "Pooling", *(["Normalize"] if self.rng.random() < 0.5 else [])]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(zip(names, paths, strict=False))
        ]
        self.write("modules.json", modules)
        mode = self.rng.choice(["pooling_mode_mean_tokens", "pooling_mode_cls_token"])
        pooling = {"word_embedding_dimension": 8, mode: True, "include_prompt": self.rng.random() < 0.7}
        self.write("1_Pooling/config.json", pooling)
        limit = {"max_seq_length": self.maybe(12, 20), "do_lower_case": self.rng.random() < 0.3}
        self.write("sentence_bert_config.json", limit)
        prompts = self.rng.choice([{}, {"query": "query: ", "passage": "passage: "}])
        default = self.maybe("query") if prompts else None
        settings = {
            "prompts": prompts,
            "default_prompt_name": default,
            "similarity_fn_name": self.maybe("cosine", "dot"),
        }
        self.write("config_sentence_transformers.json", settings)

    def write(self, name: str, value) -> None:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(value))


def there_and_back(folder: Path, aside: Path) -> tuple[pretrained.Pretrained, pretrained.Pretrained]:
    """The model as it is read, and as it is after import, export and another import."""
    first = pretrained.read(folder)
    pretrained.save(first, aside / "imported")
    pretrained.export(aside / "imported", aside / "exported", "hf")
    pretrained.save(pretrained.read(aside / "exported"), aside / "again")
    return first, pretrained.read(aside / "again")


def as_transformers_reads(folder: Path, kind: str) -> dict:
    """What decides a result there: fields, ids and logits."""
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    bert = getattr(transformers, CLASSES[kind]).from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=30, return_tensors="pt")
    inputs["token_type_ids"].clamp_(max=config.type_vocab_size - 1)
    if kind == "BertForMultipleChoice":
        inputs = {name: value[None] for name, value in inputs.items()}
    with torch.no_grad():
        outputs = bert(**inputs).to_tuple()
    fields = ("id2label", "problem_type", "layer_norm_eps", "classifier_dropout", "hidden_dropout_prob", "vocab_size")
    return {
        "fields": {name: getattr(config, name) for name in fields},
        "ids": tokenizer(TEXTS, TEXTS[::-1])["input_ids"],
        "length": tokenizer.model_max_length,
        "special": tokenizer.all_special_tokens,
        "outputs": [output.numpy() for output in outputs],
    }


def check(seed: int, tmp_path: Path, with_transformers: bool) -> None:
    folder = Folder(tmp_path / "source", seed)
    first, again = there_and_back(folder.path, tmp_path)
    assert dataclasses.replace(again.model, dtype=first.model.dtype) == first.model
    assert again.head == first.head
    assert again.tokenizer.to_dict() == first.tokenizer.to_dict()
    assert again.embedding == first.embedding
    assert_equal(again.params, first.params)
    if with_transformers:
        before, after = (as_transformers_reads(f, folder.kind) for f in (folder.path, tmp_path / "exported"))
        for name in ("fields", "ids", "special"):
            assert after[name] == before[name], name
        compared = 2 if first.head.pooler else 1  # transformers makes up a pooler where there is none.
        for old, new in zip(before["outputs"][:compared], after["outputs"][:compared], strict=True):
            np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(16))
def test_generated_folders_there_and_back(seed, tmp_path):
    check(seed, tmp_path, with_transformers=True)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_five_hundred_generated_folders_there_and_back(seed, tmp_path):
    check(seed, tmp_path, with_transformers=seed % 5 == 0)
