# shellcheck shell=bash
# Sourced by the other scripts: `install TARGET` makes .venv and installs the checkout into it, editable.
PYTHON=${PYTHON:-python3}

install() {
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "bert_jax needs Python 3.11 or later, $PYTHON is $("$PYTHON" --version); set PYTHON to one" >&2
        exit 2
    fi
    if [ ! -x .venv/bin/pip ]; then
        "$PYTHON" -m venv .venv || { echo "cannot make .venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
    fi
    # Nothing to do if this setup is installed already.
    local stamp=.venv/installed state
    state="$1 $(cat setup.cfg pyproject.toml | sha256sum)" # One line, since grep takes each line for a pattern.
    if ! grep --quiet --line-regexp --fixed-strings "$state" "$stamp" 2>/dev/null; then
        echo "installing $1 into .venv (minutes, the first time)"
        .venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 --editable "$1"
        echo "$state" >> "$stamp"
    fi
}
