"""BERT (arXiv 1810.04805)."""

from bert_jax.models import encoder, names
from bert_jax.models.architecture import Architecture

BERT = Architecture(
    name="bert",
    prefix="Bert",
    title="BERT",
    encoder=encoder.Encoder,
    names=names.encoder("bert"),
    flops_per_token=encoder.flops_per_token,
    logical_axes=encoder.LOGICAL_AXES,
    graph=lambda graph, *inputs: graph.encoder(*inputs),
    hf_defaults={"vocab_size": 30_522},
    encoder_of=("dpr",),
    tf1=True,
)
