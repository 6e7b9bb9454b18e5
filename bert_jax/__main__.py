import signal
import sys

# Before a command begins, and after it has ended, SIGINT ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from bert_jax.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
