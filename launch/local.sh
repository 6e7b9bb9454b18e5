#!/usr/bin/env bash
# From nothing to a trained BERT: makes .venv, installs the package, and pretrains a small model on the documentation of
# the running Python. If interrupted, run it again to continue. Further options go to bert-jax pretrain.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
install .
exec .venv/bin/python -m bert_jax pretrain --config pretrain_tiny --workdir runs/tiny "$@"
