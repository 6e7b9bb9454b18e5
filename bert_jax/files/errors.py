"""The error for everything that a person can correct."""

from bert_jax.files.printable import printable


class InputError(Exception):
    """Something the person gave is wrong: one line that names it and the remedy. The command exits with code 2.

    The message is printable: text quoted from a stranger's file can neither break the line nor control the terminal.

    Example:
      >>> try:
      ...     bert_jax.model_preset("lagre")
      ... except bert_jax.InputError as error:
      ...     print(error)
      model preset 'lagre' is unknown: did you mean 'large'?
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


def first_line(error: BaseException) -> str:
    """The first line of a library's error, to quote it in a message; its type where the error has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
