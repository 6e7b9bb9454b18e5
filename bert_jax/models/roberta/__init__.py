"""RoBERTa (arXiv 1907.11692): BERT's encoder with positions that begin after the padding id, and its own heads."""

from collections.abc import Iterator

from bert_jax.config import InputError, ModelConfig
from bert_jax.models import encoder, names
from bert_jax.models.architecture import Architecture
from bert_jax.models.heads.pretraining import Pretraining
from bert_jax.models.roberta.heads import RobertaClassification, RobertaMaskedLM

# The padding's id if config.json doesn't give it.
PAD_ID = 1


def problems(config: ModelConfig) -> Iterator[tuple[str, str]]:
    if config.position_offset < 1:
        what = f"is {config.position_offset}, but positions begin after the padding's id"
        yield "position_offset", f"{what}; it is that id plus 1, as 2"


def from_hf(fields: dict, config: dict) -> dict:
    """`Architecture.from_hf`: nothing reads the rows of its position table up to that of the padding's id."""
    pad = PAD_ID if config.get("pad_token_id") is None else config["pad_token_id"]
    if type(pad) is not int or pad < 0:
        raise InputError(f"pad_token_id: is {pad!r:.99}, must be a number from 0, after which positions begin")
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
    from_hf=from_hf,
    to_hf=to_hf,
    problems=problems,
)
