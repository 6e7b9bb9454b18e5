#!/usr/bin/env bash
# Installs what the tests need into .venv, holds the code against the linter, and runs the tests. Further options go to
# pytest. BERT_JAX_DATA names a folder of real corpora and vocabularies; the tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
install '.[test]'
.venv/bin/ruff format --check .
.venv/bin/ruff check .
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
