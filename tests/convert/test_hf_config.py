"""config.json: every field that transformers has ever written for a BERT is honoured, refused, or changes nothing."""

import json

import numpy as np
import pytest
import torch
import transformers
from hf_folders import edit_config, torch_folder

from bert_jax.config import InputError
from bert_jax.convert import hf_config, pretrained
from bert_jax.inference.bert import Bert

# What PretrainedConfig and BertConfig of earlier versions have: 2.0 to 2.11, 3.5 and 4.31.
EARLIER = """
finetuning_task num_labels output_attentions output_hidden_states output_past torchscript use_bfloat16 pruned_heads
is_decoder is_encoder_decoder max_length min_length do_sample early_stopping num_beams temperature top_k top_p
repetition_penalty bos_token_id pad_token_id eos_token_ids eos_token_id length_penalty no_repeat_ngram_size
bad_words_ids num_return_sequences architectures id2label label2id prefix decoder_start_token_id task_specific_params
xla_device model_type use_cache cross_attention_hidden_size add_cross_attention tie_encoder_decoder return_dict
num_beam_groups diversity_penalty chunk_size_feed_forward encoder_no_repeat_ngram_size output_scores
return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values typical_p tf_legacy_loss
exponential_decay_length_penalty suppress_tokens begin_suppress_tokens tokenizer_class sep_token_id problem_type
tie_word_embeddings name_or_path _name_or_path _commit_hash transformers_version torch_dtype gradient_checkpointing
vocab_size hidden_size num_hidden_layers num_attention_heads hidden_act intermediate_size hidden_dropout_prob
attention_probs_dropout_prob max_position_embeddings type_vocab_size initializer_range layer_norm_eps
position_embedding_type classifier_dropout quantization_config auto_map attn_implementation
"""
# Those of google-research's multilingual and Chinese models besides, which were carried over.
GOOGLE = """
directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
"""


def test_every_field_that_is_written_is_known():
    """A field of a version to come fails here: it is to be honoured, refused, or shown to change nothing."""
    written = {*transformers.BertConfig().to_dict(), *transformers.PreTrainedConfig().to_dict()}
    generation = {*transformers.GenerationConfig().to_dict()}
    assert {*written, *generation, *EARLIER.split(), *GOOGLE.split()} - hf_config.KNOWN == set()


ASKED = {
    "position_embedding_type": "relative_key_query",
    "is_decoder": True,
    "add_cross_attention": True,
    "is_encoder_decoder": True,
    "pruned_heads": {"1": [0]},
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "per_layer_config": {"0": {"intermediate_size": 12}},
    "auto_map": {"AutoModel": "modeling.MyBert"},
    "directionality": "left_to_right",
    "pooler_type": "mean",
}


def test_a_field_that_asks_for_something_else_is_refused(tmp_path):
    torch_folder(tmp_path / "hf", "classifier")
    text = (tmp_path / "hf/config.json").read_text()
    for name, (default, _) in hf_config.EXPECTED.items():
        edit_config(tmp_path / "hf", **{name: ASKED[name]})
        with pytest.raises(InputError, match=f"config.json: {name} is "):
            pretrained.read(tmp_path / "hf")
        (tmp_path / "hf/config.json").write_text(json.dumps(json.loads(text) | {name: default}))
        pretrained.read(tmp_path / "hf")
        (tmp_path / "hf/config.json").write_text(text)


# Far from their defaults. (transformers 5 lets no other values through for some.)
ODD = {
    "pad_token_id": 7,
    "bos_token_id": 8,
    "eos_token_id": 9,
    "sep_token_id": 10,
    "chunk_size_feed_forward": 4,
    "use_cache": False,
    "output_hidden_states": True,
    "return_dict": False,
    "torchscript": True,
    "use_bfloat16": True,
    "gradient_checkpointing": True,
    "cross_attention_hidden_size": 12,
    "tie_encoder_decoder": True,
    "prefix": "classify: ",
    "task_specific_params": {"classification": {"prefix": "x"}},
    "finetuning_task": "mnli",
    "pooler_fc_size": 12,
    "pooler_num_fc_layers": 9,
    "tf_legacy_loss": True,
    "temperature": 0.1,
    "dtype": "float32",
    "my_own": [1, 2],
}


def test_fields_without_influence_change_nothing_in_transformers_either(tmp_path):
    one, _ = torch_folder(tmp_path / "hf", "classifier")
    edit_config(tmp_path / "hf", **ODD)
    batch = one.batch(3, 16)
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        theirs = model(**{name: torch.tensor(x, dtype=torch.long) for name, x in batch.items()})[0].numpy()
    found = pretrained.read(tmp_path / "hf")
    assert found.report.notes[0] == "fields of its config whose meaning isn't known, not used: my_own"
    np.testing.assert_allclose(one.expected(batch)["logits"], theirs, atol=1e-6)
    np.testing.assert_allclose(Bert(found).apply(**batch), theirs, atol=1e-4)


def test_output_weights_that_a_config_promises_are_not_made_up(tmp_path):
    """With tie_word_embeddings false and none in the files, transformers draws them at random."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=40)
    transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "hf")
    pretrained.read(tmp_path / "hf")
    edit_config(tmp_path / "hf", tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"lacks cls.predictions.decoder.weight, though .*--head encoder"):
        pretrained.read(tmp_path / "hf")


@pytest.mark.parametrize("value", ["BertModel", 3, {"BertModel": 1}])
def test_architectures_is_a_list(tmp_path, value):
    torch_folder(tmp_path / "hf", "encoder")
    edit_config(tmp_path / "hf", architectures=value)
    with pytest.raises(InputError, match=r"config.json: architectures is .*must be a list"):
        pretrained.read(tmp_path / "hf")
