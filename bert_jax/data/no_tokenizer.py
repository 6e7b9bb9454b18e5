"""The stand-in where a model's folder has no tokenizer that bert_jax reads: its ids come from another program."""

from typing import Any

from bert_jax.config import InputError


class NoTokenizer:
    """A tokenizer whose every use raises an `InputError` that says why there is none."""

    kind = "none"

    def __init__(self, reason: str):
        self.reason = reason

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "reason": self.reason}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python looks these up itself, for example to copy.
            raise AttributeError(name)
        raise InputError(self.reason)
