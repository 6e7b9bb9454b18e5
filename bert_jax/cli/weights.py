"""`bert-jax import` and `bert-jax export`."""

import argparse

from bert_jax.files import folders, storage
from bert_jax.files.printable import printable


def import_model(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax import", description="Makes a model of ours from another's folder.")
    parser.add_argument("source", help="a Hugging Face or google-research BERT folder, or any other MODEL")
    parser.add_argument("folder", help="the folder to make; pretrain takes it as --init, all others as --model")
    parser.add_argument("--head", metavar="KIND", help="another head than the source's; encoder: out of any source")
    parser.add_argument("--labels", nargs="+", help="what the labels are called, where the source doesn't say")
    parser.add_argument("--allow-missing", action="store_true", help="give what is missing fresh values")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args(arguments)
    from bert_jax.config import HeadConfig, InputError
    from bert_jax.convert import pretrained
    from bert_jax.data.no_tokenizer import NoTokenizer
    from bert_jax.devices import compiling
    from bert_jax.models import kind_of

    compiling.begin()
    if options.head:
        kind_of(HeadConfig(options.head))
    with folders.whole_folder(storage.path(options.folder), options.overwrite) as aside:
        found = pretrained.read(options.source, options.allow_missing, options.head)
        if isinstance(found.tokenizer, NoTokenizer) and not options.head:
            raise InputError(f"{found.tokenizer.reason}; --head {found.head.kind} imports the weights without it")
        if options.labels:
            found = pretrained.with_labels(found, options.labels)
        pretrained.save(found, aside)
    print(
        f"{options.folder}: {found.head.kind}, {found.model.num_hidden_layers} layers, {found.model.hidden_size} wide"
    )
    for line in found.report.lines():
        print(f"  {printable(line)}")


def export_model(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bert-jax export", description="Writes a model for others to use.")
    parser.add_argument("model", help="a workdir, a checkpoint's folder, or a Hugging Face or google-research folder")
    parser.add_argument("folder", help="the folder to make")
    parser.add_argument("--format", required=True, help="hf, tf1, onnx, stablehlo, or one of your own")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args(arguments)
    from bert_jax.convert import pretrained
    from bert_jax.devices import compiling

    compiling.begin()
    pretrained.export(options.model, options.folder, options.format, options.overwrite)
    made = sorted(file.name for file in storage.path(options.folder).iterdir())
    print(f"{options.folder}: {options.format}, {', '.join(made)}")
