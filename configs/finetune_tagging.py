"""A tag for each word: named entities, or semantic roles.

    bert-jax finetune --config finetune_tagging --task ner --init MODEL --workdir runs/ner --task.folder conll2003
    bert-jax finetune --config finetune_tagging --task srl --init MODEL --workdir runs/srl --task.folder conll05st

ner: the paper's method (arXiv 1810.04805, section 5.3), with a cased model; batch 32, 5e-5 and 4 epochs are among the
values that it tries (appendix A.3). The files are CoNLL-2003's eng.train, eng.testa and eng.testb, or WNUT-17's, or any
with the token first and its tag last.
Expected for BERT-Base on CoNLL-2003: F1 96.4 dev and 92.4 test with the document's context,
`--task.document-context --sequence-length 512`, and about 91 test without.

srl: with the predicate marked (arXiv 1904.05255), on the folders of CoNLL-2005 (train, devel, test.wsj, test.brown) or
CoNLL-2012 (train, development, test), or a file of either. The recipe is AllenNLP's, which also has a linear layer on
the encoder and no LSTM: batch 32, 5e-5, 15 epochs. Expected for BERT-Base on CoNLL-2012: test F1 86.5.
"""

from bert_jax.config import FinetuneConfig, InputError, OptimizerConfig, TaskConfig

EPOCHS = {"ner": 4.0, "srl": 15.0}


def get_config(task: str = "ner") -> FinetuneConfig:
    if task not in EPOCHS:
        raise InputError(f"task {task!r}: finetune_tagging has {', '.join(EPOCHS)}")
    return FinetuneConfig(
        task=TaskConfig(name=task),
        sequence_length=128,
        batch_size=32,
        epochs=EPOCHS[task],
        warmup=0.1,
        optimizer=OptimizerConfig(learning_rate=5e-5, decay="from_warmup"),
    )
