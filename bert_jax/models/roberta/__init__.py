"""RoBERTa (arXiv 1907.11692): BERT's encoder, its positions from behind the padding's id on, and heads of its own."""

from collections.abc import Iterator

from bert_jax.config import InputError, ModelConfig
from bert_jax.models import encoder, names
from bert_jax.models.architecture import Architecture
from bert_jax.models.heads.pretraining import Pretraining
from bert_jax.models.roberta.heads import RobertaClassification, RobertaMaskedLM

# Where config.json is silent.
PAD_ID = 1


def problems(config: ModelConfig) -> Iterator[tuple[str, str]]:
    if config.position_offset < 1:
        what = f"is {config.position_offset}, but positions begin behind the padding's id"
        yield "position_offset", f"{what}; it is that id plus 1, as 2"


def of_hf(fields: dict, config: dict) -> dict:
    """Its table of positions has rows that nothing reads, up to that of the padding's id."""
    pad = PAD_ID if config.get("pad_token_id") is None else config["pad_token_id"]
    if type(pad) is not int or pad < 0:
        raise InputError(f"pad_token_id: is {pad!r:.99}, must be a number from 0, behind which positions begin")
    longest = fields["max_position_embeddings"]
    return fields | {
        "position_offset": pad + 1,
        "max_position_embeddings": longest - (pad + 1) if type(longest) is int else longest,
    }


def to_hf(config: ModelConfig, fields: dict) -> dict:
    offset = config.position_offset
    longest = fields["max_position_embeddings"] + offset
    return fields | {"pad_token_id": offset - 1, "max_position_embeddings": longest}


ROBERTA = Architecture(
    name="roberta",
    prefix="Roberta",
    title="RoBERTa",
    encoder=encoder.Encoder,
    names=names.encoder("roberta"),
    flops_per_token=encoder.flops_per_token,
    logical_axes=encoder.LOGICAL_AXES,
    graph=lambda graph, *inputs: graph.encoder(*inputs),
    heads={head.kind: head for head in (RobertaMaskedLM(), RobertaClassification())},
    without=(Pretraining.kind,),
    hf_defaults={"vocab_size": 50_265, "max_position_embeddings": 512},
    of_hf=of_hf,
    to_hf=to_hf,
    problems=problems,
)
