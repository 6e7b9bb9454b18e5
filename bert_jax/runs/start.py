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

# Settings of the model section that may differ from the model's.
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
    """A function from fresh parameters to the model's, which it reads, laid out alike."""
    embedding: dict
    """How vectors of texts are made with the model, and will be with the run's."""

    def checked(self, config: PretrainConfig) -> PretrainConfig:
        """The config with this model's vocabulary size; raises `InputError` where it describes another model."""
        if config.model.vocab_size is None:
            config = dataclasses.replace(
                config, model=dataclasses.replace(config.model, vocab_size=self.model.vocab_size)
            )
        wanted, own = (dataclasses.asdict(model) for model in (config.model, self.model))
        different = [name for name in own if name not in FREE and own[name] != wanted[name]]
        if different:
            flags = " ".join(f"--model.{name.replace('_', '-')} {own[name]}" for name in different)
            raise InputError(f"{self.name}: another model than the config's; to continue it, add {flags}")
        return config


def read_start(config: PretrainConfig, name: str | Path) -> Start:
    """Reads about a model. Raises `InputError` where it isn't whole, lacks the run's head, or has another tokenizer."""
    kind = steps.pretraining_head(config).kind
    if pretrained.format_of(pretrained.folder_of(name)):
        saved = pretrained.read(name)
        model, head, tokenizer, origin = saved.model, saved.head, saved.tokenizer, saved.origin

        def params(fresh):  # Read again, so that the parameters aren't held while examples are prepared.
            params = pretrained.with_head(pretrained.read(name), kind).params
            return sharding.put(params, jax.tree.map(lambda x: x.sharding, fresh))
    else:
        checkpoints, step = pretrained.find_checkpoint(name)
        model, head, origin = pretrained.read_about(checkpoints, step)
        tokenizer = pretrained.tokenizer_of(name)

        def params(fresh):
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), fresh)
            return checkpoints.restore(step, {"params": like})["params"]

    try:
        pretrained.check_has(model, head, kind)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    path = config.tokenizer.path
    if path and tokenizer_folders.load(path, config.tokenizer).to_dict() != tokenizer.to_dict():
        raise InputError(f"{path}: not the tokenizer of {name}; leave --tokenizer.path out to take the model's")
    return Start(str(name), model, tokenizer, params, to_dict(origin.embedding))
