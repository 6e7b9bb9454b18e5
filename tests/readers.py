"""Every reader of files, each with small whole files to damage."""

import bz2
import gzip
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from damage import files_of

from bert_jax.config import CorpusConfig, EmbeddingConfig, TaskConfig, TokenizerConfig
from bert_jax.convert import pretrained, sentence_transformers
from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.data.corpora import chunks
from bert_jax.data.records import Examples
from bert_jax.runs import finetuning
from bert_jax.tasks import make
from bert_jax.training import metrics

GOLDEN = Path(__file__).parent / "golden" / "0.1.0.tar.xz"
TEXTS = ["the dog watches a small bird", "[MASK] naïve \u0935\u094d x\0y", ""]


@dataclass(frozen=True)
class Reader:
    """A reader, and which of its files are damaged."""

    folder: str
    patterns: tuple[str, ...]
    read: Callable[[Path], object]

    def files(self, root: Path) -> list[Path]:
        return files_of(root / self.folder, *self.patterns)


# ---- What reads -----------------------------------------------------------------------------------------------------


def examples(folder: Path) -> None:
    data = Examples(folder)
    data.check_files([16, 32])
    reader = data.split("train", 16)
    reader.read(np.arange(min(len(reader), 2)))
    data.unigram_log_probabilities(256)


def sweep_scores(folder: Path) -> None:
    saved = json.loads((folder.parents[1] / "sweep.json").read_text())
    config = finetuning.config_of(saved)
    finetuning._scores_of(config, saved["init"], folder)


def checkpoint(folder: Path) -> None:
    found = pretrained.read(folder)
    use(found.tokenizer)
    assert found.embedding


def whole(folder: Path) -> None:
    """A model of others."""
    found = pretrained.read(folder)
    assert found.embedding


def encoder(folder: Path) -> None:
    pretrained.read(folder, allow_missing=True, kind="encoder")


def tokenizer(folder: Path) -> None:
    use(tokenizer_folders.read(folder))


def sentencepiece(folder: Path) -> None:
    use(tokenizers.load(str(folder / "spiece.model"), TokenizerConfig(kind="sentencepiece")))


def use(found: tokenizers.Tokenizer) -> None:
    assert len(found.pieces()) == found.vocab_size
    for ids, spans in (*found.encode_with_spans(TEXTS), *found.encode_with_starts(TEXTS)):
        assert len(ids) == len(spans)
    found.encode_masked("the [MASK] dog")
    found.decode(found.encode(TEXTS)[0])
    found.continues_word()
    tokenizers.from_dict(found.to_dict())
    tokenizers.fingerprint(found)


def embedding(folder: Path) -> None:
    sentence_transformers.encoder_folder(folder)
    sentence_transformers.read(folder, 32)


def corpus(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for chunk in chunks(CorpusConfig(source="text", files=(str(folder / name),))):
            for document in chunk.documents(clean=True):
                assert document
            chunk.digest()

    return read


def task(name: str, file: str, **config) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        found = make(TaskConfig(name, train=str(folder / file), **config))
        assert found.read("train")
        assert found.head

    return read


# ---- Whole files ----------------------------------------------------------------------------------------------------


def build(root: Path) -> None:
    """Writes small files of every kind."""
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(root, filter="data")
    shutil.copy(root / "sweep/lr-0.02-seed-3/scores.json", root / "sweep.json")
    shutil.rmtree(root / "finetuned/checkpoints/24")
    with tarfile.open(GOLDEN.with_name("format-2.tar.xz")) as archive:
        archive.extractall(root / "format-2", filter="data")
    _models(root)
    _tokenizers(root)
    _corpora(root / "corpora", (root / "corpus.txt").read_text())
    _tasks(root / "tasks")


def _models(root: Path) -> None:
    import flax.serialization
    import test_roberta
    import torch
    from safetensors.numpy import load_file, save_file

    test_roberta.make("sequence_classification", root / "roberta")
    found = pretrained.read(root / "source")
    for form in ("hf", "tf1"):
        pretrained.export(found, root / form, form)
    sentence_transformers.write(root / "hf", EmbeddingConfig(prompts={"query": "find: "}, normalize=True), 32, 16)
    (root / "hf" / "added_tokens.json").write_text('{"[NEW]": 20}')
    arrays = load_file(root / "hf" / "model.safetensors")
    for name in ("shards", "torch", "msgpack"):
        (root / name).mkdir()
        shutil.copy(root / "hf" / "config.json", root / name)
        shutil.copy(root / "hf" / "vocab.txt", root / name)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": list(arrays)[i::2] for i in range(2)}
    for file, names in parts.items():
        save_file({name: arrays[name] for name in names}, root / "shards" / file)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {name: file for file, names in parts.items() for name in names},
    }
    (root / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save({name: torch.tensor(a) for name, a in arrays.items()}, root / "torch" / "pytorch_model.bin")
    (root / "msgpack" / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(arrays))


def _tokenizers(root: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    lines = (root / "corpus.txt").read_text().splitlines()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    around = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    bpe, unigram = Tokenizer(models.BPE(unk_token="<unk>")), Tokenizer(models.Unigram())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=120, special_tokens=special))
    unigram.train_from_iterator(
        lines, trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    )
    for name, one in (("bpe", bpe), ("unigram", unigram)):
        one.post_processor = around
        (root / name).mkdir()
        one.save(str(root / name / "tokenizer.json"))
        roles = dict(cls_token="<s>", sep_token="</s>", mask_token="<mask>", pad_token="<pad>", unk_token="<unk>")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids"], **roles}
        (root / name / "tokenizer_config.json").write_text(json.dumps(config))
    (root / "sentencepiece").mkdir()
    config = TokenizerConfig(kind="sentencepiece", vocab_size=60)
    (root / "sentencepiece" / "spiece.model").write_bytes(tokenizers.train(lines, config).model)


def _corpora(folder: Path, text: str) -> None:
    folder.mkdir()
    text = text[:4000]
    documents = text.split("\n\n")
    articles = "".join(f'<doc id="{i}" title="x">\n{text}\n\n</doc>\n' for i, text in enumerate(documents))
    contents = {
        "plain.txt": text,
        "lines.jsonl": "".join(json.dumps({"text": text, "url": "http://x"}) + "\n" for text in documents),
        "wiki.txt": articles,
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        for ending, compress in (("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)):
            (folder / f"{name}.{ending}").write_bytes(compress(content.encode()))


def _tasks(folder: Path) -> None:
    folder.mkdir()
    rows = [("a good film", "good"), ('the "worst", ever', "bad"), ("naïve", "good"), ("no", "bad")]
    (folder / "table.csv").write_text(
        "text,label\n" + "".join('"{}",{}\n'.format(a.replace('"', '""'), b) for a, b in rows)
    )
    (folder / "table.tsv").write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    (folder / "table.jsonl").write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows))
    (folder / "table.json").write_text(json.dumps([{"text": a, "label": len(b)} for a, b in rows]))
    lists = [["sad", "old"], [], ["old"], ["sad"]]
    lines = (json.dumps({"text": a, "label": b}) + "\n" for (a, _), b in zip(rows, lists, strict=True))
    (folder / "lists.jsonl").write_text("".join(lines))
    context = "The green hill lies behind the old river."
    answers = [{"text": "green hill", "answer_start": 4}]
    questions = [{"id": str(i), "question": f"What lies {i}?", "answers": answers} for i in range(3)]
    squad = {"version": "1.1", "data": [{"title": "x", "paragraphs": [{"context": context, "qas": questions}]}]}
    (folder / "squad.json").write_text(json.dumps(squad))
    words = [
        "-DOCSTART- -X- O O",
        "",
        "EU NNP B-NP B-ORG",
        "rejects VBZ B-VP O",
        "German JJ B-NP B-MISC",
        "call NN I-NP O",
        "",
    ]
    (folder / "ner.txt").write_text("\n".join(words) + "\n")
    srl = ["The DT - (A0*", "dog NN - *)", "barks VBZ bark (V*)", "", "It PRP - (A0*)", "sleeps VBZ sleep (V*)", ""]
    (folder / "srl.txt").write_text("\n".join(srl) + "\n")
    row = "bc/x 0 {} {} NN * {} {} - - * {} -"
    tagged = [("Dogs", "-", "-", "(ARG0*)"), ("bark", "bark", "01", "(V*)"), ("loud", "-", "-", "(ARG1*)")]
    lines = [row.format(i, word, lemma, frame, roles) for i, (word, lemma, frame, roles) in enumerate(tagged)]
    text = "#begin document (bc/x); part 000\n" + "\n".join(lines) + "\n\n#end document\n"
    (folder / "x.gold_conll").write_text(text)
    header = "id,video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
    header = f",{header[3:]}"
    (folder / "swag.csv").write_text(
        header + "".join(f"{i},v,{i},A dog,A dog,He,gold,a,b,c,d,{i % 4}\n" for i in range(4))
    )


# Parts and their checksums, scores, and what Orbax keeps for itself.
CHECKPOINT_JSON = tuple(
    f"checkpoints/*/{file}"
    for file in ("*/metadata", "metrics/metrics", "_CHECKPOINT_METADATA", "state/_*", "state/array_metadatas/*")
)


READERS = {
    "manifest of examples": Reader("examples", ("manifest.json",), examples),
    "tokenizer of examples": Reader("examples", ("tokenizer.json",), examples),
    "metrics.jsonl": Reader("finetuned", ("metrics.jsonl",), lambda folder: metrics.read(folder / "metrics.jsonl")),
    "scores.json": Reader("sweep/lr-0.02-seed-3", ("scores.json",), sweep_scores),
    "checkpoint JSON, a run": Reader("finetuned", ("checkpoints/*/*/metadata",), checkpoint),
    "checkpoint JSON, imported": Reader("imported", ("checkpoints/*/*/metadata",), checkpoint),
    "checkpoint JSON, with checksums": Reader("format-2/finetuned", CHECKPOINT_JSON, checkpoint),
    "checkpoint arrays": Reader("imported", ("checkpoints/*/state/**/*",), checkpoint),
    "config.json": Reader("hf", ("config.json",), whole),
    "config.json, encoder": Reader("msgpack", ("config.json",), encoder),
    "config.json, RoBERTa": Reader("roberta", ("config.json",), whole),
    "tokenizer files, WordPiece": Reader(
        "hf",
        ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        tokenizer,
    ),
    "tokenizer files, BPE": Reader("bpe", ("*",), tokenizer),
    "tokenizer files, Unigram": Reader("unigram", ("*",), tokenizer),
    "SentencePiece": Reader("sentencepiece", ("spiece.model",), sentencepiece),
    "SentencePiece, in a folder": Reader("sentencepiece", ("spiece.model",), tokenizer),
    "sentence-transformers": Reader(
        "hf",
        ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
        embedding,
    ),
    "safetensors": Reader("hf", ("model.safetensors",), whole),
    "safetensors, shards": Reader("shards", ("model*",), whole),
    "torch": Reader("torch", ("pytorch_model.bin",), whole),
    "msgpack": Reader("msgpack", ("flax_model.msgpack",), whole),
    "TensorFlow 1": Reader("tf1", ("bert_*",), whole),
    **{
        f"corpus, {name}{ending}": Reader("corpora", (name + ending,), corpus(name + ending))
        for name in ("plain.txt", "lines.jsonl", "wiki.txt")
        for ending in ("", ".gz", ".xz", ".bz2")
        if name == "plain.txt" or not ending
    },
    **{
        f"task, {file}": Reader("tasks", (file,), task(name, file))
        for name, file in (
            *(("classification", f"table.{ending}") for ending in ("csv", "tsv", "jsonl", "json")),
            ("multi_label", "lists.jsonl"),
            *(("squad", "squad.json"), ("ner", "ner.txt"), ("srl", "srl.txt"), ("srl", "x.gold_conll")),
            ("swag", "swag.csv"),
        )
    },
}
