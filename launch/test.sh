#!/usr/bin/env bash
# Installs what the tests need into .venv, holds the code against the linter and the type checker, and runs the tests.
# Further options go to pytest. BERT_JAX_DATA names a folder of real corpora and vocabularies; the tests that need it
# are skipped without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
install '.[test]'
code=(bert_jax configs launch tests) # What a person keeps beside it, as an exported model's config, isn't ours.
.venv/bin/ruff format --check "${code[@]}"
.venv/bin/ruff check "${code[@]}"
.venv/bin/mypy # The package, as pyproject.toml says.
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
