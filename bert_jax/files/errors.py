"""The error of everything that a person can mend."""

from bert_jax.files.printable import printable


class InputError(Exception):
    """Something the person gave is wrong: one line that names it and the remedy. The command exits with code 2.

    What it quotes, of files that anybody may have written, can't begin a line of its own nor tell a terminal anything.

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
    """What a library's error says, for a line of ours: its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
