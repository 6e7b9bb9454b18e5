"""An architecture from outside: BERT whose layers share their parameters, as ALBERT's (arXiv 1909.11942)."""

import dataclasses

import flax.linen as nn

from bert_jax.config import ExamplesConfig, ModelConfig, OptimizerConfig, Phase, PretrainConfig
from bert_jax.models import ARCHITECTURES, Architecture, encoder, names
from bert_jax.models.layers import dense


class Repeated(nn.Module):
    """One layer, applied as many times as the config has layers."""

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden, *arguments):
        layer = encoder.Layers(dataclasses.replace(self.config, num_hidden_layers=1), name="shared")
        for _ in range(self.config.num_hidden_layers):
            hidden = layer(hidden, *arguments)
        return hidden


class SharedEncoder(encoder.Encoder):
    def setup(self):
        self.embeddings = encoder.Embeddings(self.config)
        self.encoder = Repeated(self.config)
        if self.pooler:
            self.pooler_dense = dense(self.config, self.config.hidden_size, "pooler")


def shared(name: names.Name) -> names.Name:
    """The names without a layer's number: the layers share one parameter."""
    path, hf = name.path.replace("/layer/", "/shared/layer/"), name.hf.replace(".{i}", "")
    return dataclasses.replace(name, path=path, hf=hf)


ARCHITECTURES["shared"] = Architecture(
    name="shared",
    prefix="Shared",
    title="BERT with shared layers",
    encoder=SharedEncoder,
    names=tuple(map(shared, names.encoder("shared"))),
    flops_per_token=encoder.flops_per_token,
    logical_axes=encoder.LOGICAL_AXES,
)


def get_config():
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return PretrainConfig(
        model=ModelConfig("shared", max_position_embeddings=64, **sizes),
        examples=ExamplesConfig(),
        optimizer=OptimizerConfig(warmup_steps=1),
        phases=(Phase(sequence_length=32, batch_size=8, steps=2, max_predictions=5),),
    )
