"""What stands for the tokenizer of a folder that has none which is read: its weights take ids from elsewhere."""

from typing import Any

from bert_jax.config import InputError


class NoTokenizer:
    """Whatever needs a tokenizer is told why there is none, by an `InputError`."""

    kind = "none"

    def __init__(self, reason: str):
        self.reason = reason

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "reason": self.reason}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions, as copying asks them.
            raise AttributeError(name)
        raise InputError(self.reason)
