"""The model that a run takes its first parameters from: `pretrain --init`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax

from bert_jax.config import InputError, ModelConfig, PretrainConfig
from bert_jax.config.files import to_dict
from bert_jax.convert import pretrained
from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.devices import sharding
from bert_jax.training import steps

# What of the model section may be another than the model's.
FREE = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
    *("dtype", "scan_unroll", "remat", "attention"),
)


@dataclasses.dataclass(frozen=True)
class Start:
    """A model to start from."""

    name: str
    model: ModelConfig
    tokenizer: tokenizers.Tokenizer
    params: Callable
    """Reads the parameters in the place of the fresh ones that it is called with, laid out alike."""
    embedding: dict
    """How its vectors of texts are made, as those of the run will be."""

    def checked(self, config: PretrainConfig) -> PretrainConfig:
        """The config with this model's vocabulary size; raises `InputError` where it describes another model."""
        if config.model.vocab_size is None:
            config = dataclasses.replace(
                config, model=dataclasses.replace(config.model, vocab_size=self.model.vocab_size)
            )
        here, there = (dataclasses.asdict(model) for model in (config.model, self.model))
        different = [name for name in there if name not in FREE and there[name] != here[name]]
        if different:
            flags = " ".join(f"--model.{name.replace('_', '-')} {there[name]}" for name in different)
            raise InputError(f"{self.name}: another model than the config's; to continue it, add {flags}")
        return config


def read_start(config: PretrainConfig, name: str | Path) -> Start:
    """Raises `InputError` where the model isn't whole, lacks a head that the run trains, or has another tokenizer."""
    kind = steps.pretraining_head(config).kind
    if pretrained.format_of(pretrained.folder_of(name)):
        found = pretrained.read(name)
        model, head, tokenizer, origin = found.model, found.head, found.tokenizer, found.origin

        def params(fresh):  # Read again, so that they aren't held while examples are prepared.
            params = pretrained.with_head(pretrained.read(name), kind).params
            return sharding.put(params, jax.tree.map(lambda x: x.sharding, fresh))
    else:
        checkpoints, step = pretrained.find_checkpoint(name)
        model, head, origin = pretrained.read_about(checkpoints, step)
        tokenizer = pretrained.tokenizer_of(name)

        def params(fresh):
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), fresh)
            found = checkpoints.restore(step, {"params": like})["params"]
            pretrained.check_finite(found, name)
            return found

    try:
        pretrained.check_has(model, head, kind)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    path = config.tokenizer.path
    if path and tokenizer_folders.load(path, config.tokenizer).to_dict() != tokenizer.to_dict():
        raise InputError(f"{path}: not the tokenizer of {name}; leave --tokenizer.path out to take the model's")
    return Start(str(name), model, tokenizer, params, to_dict(origin.embedding))
