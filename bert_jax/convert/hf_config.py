"""config.json of an encoder: every field that transformers 2 to 5 write, and how it is treated.

A field is read, or must have its default value, or has no influence on what is computed. Fields that no version writes
are somebody's own: the report of an import names them.
"""

from pathlib import Path

from bert_jax.config import InputError, ModelConfig
from bert_jax.config.models import HiddenAct
from bert_jax.convert.weight_files import present
from bert_jax.files.contents import json_object
from bert_jax.models import ARCHITECTURES, Architecture
from bert_jax.models.bert import BERT

# pytorch-pretrained-bert, the first name of transformers, called the file as google-research does.
FILES = ("config.json", "bert_config.json")
# The erf form, and the tanh form under its several names.
ACTIVATIONS: dict[str, HiddenAct] = {
    **dict.fromkeys(["gelu", "gelu_python"], "gelu"),
    **dict.fromkeys(["gelu_new", "gelu_fast", "gelu_pytorch_tanh"], "gelu_tanh"),
}
FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("initializer_range", "layer_norm_eps"),
)
# Also read: what the model is, its head, and whether its output weights are the embeddings.
READ = (
    *("model_type", "hidden_act", "architectures", "classifier_dropout", "id2label", "num_labels", "problem_type"),
    *("tie_word_embeddings", "tokenizer_class"),
)
# Fields, the value that each must have, and what any other value asks for.
EXPECTED = {
    "position_embedding_type": ("absolute", "relative positions"),
    "is_decoder": (False, "a decoder, whose tokens don't see the ones after them"),
    "add_cross_attention": (False, "cross attention"),
    "is_encoder_decoder": (False, "an encoder with a decoder"),
    "pruned_heads": ({}, "layers that have lost heads"),
    "quantization_config": (None, "quantised weights; bring the weights that they were made from"),
    "per_layer_config": (None, "layers that differ from each other"),
    "auto_map": (None, "its author's own code, which isn't run"),
    "directionality": ("bidi", "another order of reading"),
    "pooler_type": ("first_token_transform", "another pooler"),
}
# Fields that change no output, by why they don't.
WITHOUT_INFLUENCE = {
    "where it comes from": (
        *("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "finetuning_task"),
        *("task_specific_params", "sentence_transformers", "sbert_ce_default_activation_function"),
    ),
    "how transformers computes or returns it": (
        *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "output_past", "use_cache"),
        *("torchscript", "chunk_size_feed_forward", "gradient_checkpointing", "use_bfloat16", "xla_device"),
        *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "tf_legacy_loss"),
        *("_output_attentions", "base_model_tp_plan", "base_model_pp_plan", "tie_last_hidden_states"),
    ),
    "the type of the stored numbers, which the files say; it is computed in float32": ("dtype", "torch_dtype"),
    "the names of id2label the other way round": ("label2id",),
    "the padding, whose embedding nothing sees, and tokens that the tokenizer's files name": (
        *("pad_token_id", "bos_token_id", "eos_token_id", "eos_token_ids", "sep_token_id", "cls_token_id"),
        *("mask_token_id", "unk_token_id", "prefix"),
    ),
    "a pooler that the original code doesn't have": (
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
    ),
    "a decoder, which this isn't": ("cross_attention_hidden_size", "tie_encoder_decoder", "decoder_start_token_id"),
    "the generation of text, which encoders don't do": (
        *("max_length", "min_length", "max_new_tokens", "min_new_tokens", "do_sample", "early_stopping", "num_beams"),
        *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
        *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "length_penalty"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "force_words_ids", "max_time"),
        *("num_return_sequences", "output_scores", "output_logits", "return_dict_in_generate", "forced_bos_token_id"),
        *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
        *("begin_suppress_tokens", "renormalize_logits", "constraints", "guidance_scale", "penalty_alpha"),
        *("dola_layers", "low_memory", "sequence_bias", "stop_strings", "token_healing", "watermarking_config"),
        *("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("assistant_lookbehind", "assistant_early_exit", "assistant_ensemble_weight", "is_assistant"),
        *("target_lookbehind", "prompt_lookup_num_tokens", "max_matching_ngram_size", "prefill_chunk_size"),
        *("cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile"),
        *("continuous_batching_config", "speculation_type", "use_mtp", "_from_model_config"),
    ),
}
KNOWN = {*FIELDS, *READ, *EXPECTED, *(name for names in WITHOUT_INFLUENCE.values() for name in names)}


def read(folder: Path, encoder_alone: bool) -> tuple[dict, Path, Architecture]:
    """The fields, the file that has them, and the model's architecture. Raises `InputError` for what isn't read.

    Some models differ from a known one only in name and head, as DPR from BERT: `encoder_alone` reads their encoder.
    """
    file = next((folder / name for name in FILES if present(folder / name)), folder / FILES[0])
    try:
        config = json_object(file)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; copy it too") from None
    name = config.get("model_type") or BERT.name
    alone = next((known for known in ARCHITECTURES.values() if name in known.encoder_of), None)
    architecture = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None and encoder_alone:
        architecture = alone
    if architecture is None:
        remedy = "; bert-jax import --head encoder takes its encoder" if alone else ""
        kinds = " and ".join(map(repr, ARCHITECTURES))
        raise InputError(f"{file}: model_type is {name!r}, which is another model; only {kinds} are read{remedy}")
    check(config, file)
    return config, file, architecture


def check(config: dict, file: Path) -> None:
    """Raises `InputError` for a field that asks for something unsupported."""
    for name, (expected, otherwise) in EXPECTED.items():
        if config.get(name, expected) not in (expected, None):
            raise InputError(
                f"{file}: {name} is {_short(config[name])}, which is {otherwise}; only {expected!r} is read"
            )


def _short(value) -> str:
    if isinstance(value, dict):  # A long one is named by its method.
        value = value.get("quant_method", value)
    return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."


def model(config: dict, file: Path, architecture: Architecture) -> ModelConfig:
    """The model's config. Raises `InputError` naming the first field that makes no sense."""
    activation = config.get("hidden_act", "gelu")
    if activation not in list(ACTIVATIONS):
        raise InputError(f"{file}: hidden_act is {activation!r}; there are {', '.join(ACTIVATIONS)}")
    fields = {name: config[name] for name in FIELDS if config.get(name) is not None}
    try:
        fields = architecture.from_hf({**architecture.hf_defaults, **fields}, config)
        return ModelConfig(architecture.name, **fields, hidden_act=ACTIVATIONS[activation]).validate()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def unknown(config: dict) -> list[str]:
    """A note on the fields that no known program writes, if there are any."""
    names = sorted(config.keys() - KNOWN)
    return [f"fields of its config whose meaning isn't known, not used: {', '.join(names)}"] if names else []
