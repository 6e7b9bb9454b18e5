"""The error for everything that a person can correct, and its kind that passes by itself."""

from bert_jax.files.printable import printable

# Exit codes: nothing is gained by the same command again; the same command, again, goes on (EX_TEMPFAIL).
BAD_INPUT, LOST = 2, 75


class InputError(Exception):
    """Something the person gave is wrong: one line that names it and the remedy. The command exits with `exit_code`.

    The message is printable: text quoted from a stranger's file can neither break the line nor control the terminal.

    Example:
      >>> try:
      ...     bert_jax.model_preset("lagre")
      ... except bert_jax.InputError as error:
      ...     print(error)
      model preset 'lagre' is unknown: did you mean 'large'?
    """

    exit_code = BAD_INPUT

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


class TryAgain(InputError):
    """Nothing is wrong with what was given, and what is in the way passes by itself: schedulers start anew."""

    exit_code = LOST


def first_line(error: BaseException) -> str:
    """The first line of a library's error, to quote it in a message; its type where the error has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
