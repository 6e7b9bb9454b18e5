#!/usr/bin/env bash
# Reproduces BERT-Base's table: fine-tunes on all of GLUE, SQuAD 1.1 and CoNLL-2003, with several seeds each, and prints
# our scores, the paper's, and the difference.
#     launch/reproduce_bert_base.sh --init bert-base-uncased --cased bert-base-cased --data data --workdir runs/table
# data holds folders of official files, as many as you have: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, squad
# and conll2003. Without --init the model is first pretrained in the original's two phases, which needs
#     --corpus 'text/*.txt' --vocab vocab.txt
# If interrupted, run it again to continue. --seeds (5) is for all tasks, --rates ('2e-5 3e-5 4e-5 5e-5', of
# which the best on dev counts, as in the paper) for GLUE's; arguments after a bare -- go to every bert-jax finetune.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "reproduce_bert_base.sh: $1" >&2
    exit 2
}

init='' cased='' data='' workdir='' corpus='' vocab='' seeds=5 rates='2e-5 3e-5 4e-5 5e-5'
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        --init | --cased | --data | --workdir | --corpus | --vocab | --seeds | --rates)
            [ $# -gt 1 ] || fail "$1: needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) fail "no option $1; --help lists them" ;;
    esac
done
[ "${1:-}" != -- ] || shift
[ -n "$workdir" ] || fail "--workdir: name the folder for the runs"
[ -d "$data" ] || fail "--data: names no folder, '$data'"
PYTHON=${PYTHON:-.venv/bin/python}
command -v "$PYTHON" > /dev/null || fail "there is no $PYTHON; install bert_jax as the README says, or set PYTHON"

if [ -z "$init" ]; then
    [ -n "$corpus" ] && [ -n "$vocab" ] || fail "give --init, or --corpus and --vocab to pretrain first"
    init=$workdir/pretrained
    "$PYTHON" -m bert_jax pretrain --config pretrain_base --workdir "$init" --corpus.source text --corpus.files "$corpus" \
        --tokenizer.path "$vocab"
fi

row() { # ROW FOLDER [OPTIONS]: runs all seeds of a task, if its files exist
    local name=$1 folder=$2
    shift 2
    if [ ! -d "$data/$folder" ]; then
        echo "$name: $data has no $folder, left out"
        return
    fi
    echo "== $name"
    "$PYTHON" -m bert_jax finetune --workdir "$workdir/$name" --task.folder "$data/$folder" --seeds "$seeds" "$@"
}

read -ra each <<< "$rates"
for task in CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI; do
    row "${task,,}" "$task" --config finetune_glue --task "${task,,}" --init "$init" --learning-rates "${each[@]}" "$@"
done
# Tasks with one recipe: the released script's for SQuAD; the paper's for entities, with a sentence's document.
row squad squad --config finetune_squad --task squad --init "$init" --learning-rates 3e-5 "$@"
row ner conll2003 --config finetune_tagging --task ner --init "${cased:-$init}" --learning-rates 5e-5 \
    --task.document-context --sequence-length 512 "$@"

exec "$PYTHON" -m launch.reproduction_table "$workdir"
