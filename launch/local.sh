#!/usr/bin/env bash
# From nothing to a trained BERT: makes .venv, installs the package, and pretrains a small model on the documentation of
# the running Python. If interrupted, run it again to continue. Further options go to bert-jax pretrain, which lists them:
#     .venv/bin/bert-jax pretrain --help
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
install .
exec .venv/bin/python -m bert_jax pretrain --config pretrain_tiny --workdir runs/tiny "$@"
