#!/usr/bin/env bash
# Installs what the tests need into .venv, runs the linter and the type checker, and then the tests. Further options go
# to pytest. BERT_JAX_DATA names a folder of real corpora and vocabularies; tests that need it are skipped without it.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
install '.[test]'
code=(bert_jax configs launch tests) # Not other files beside them, such as an exported model's config.
.venv/bin/ruff format --check "${code[@]}"
.venv/bin/ruff check "${code[@]}"
.venv/bin/mypy # Checks what pyproject.toml names.
exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
