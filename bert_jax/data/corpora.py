"""Corpora: an iterator of documents from the embedded documentation, text files, or a TFDS text data set.

A document is a list of lines that aren't blank; a line is a paragraph or a sentence.
"""

import ast
import glob
import gzip
import hashlib
import inspect
import lzma
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from bert_jax.config import CorpusConfig, InputError

Document = list[str]

# Longer documents are parted: memory stays bounded where a corpus has no blank lines, and next sentences from another
# document can be had near by.
LONGEST_DOCUMENT = 1 << 16  # characters


def documents(config: CorpusConfig) -> Iterator[Document]:
    """Every document of the corpus, always in the same order. Raises `InputError` naming the file and line."""
    if config.source == "text":
        return text_files(config.files)
    if config.source == "tfds":
        # TensorFlow comes with it, so only here.
        from bert_jax.data.tfds_corpus import tfds_documents

        return tfds_documents(config)
    return python_docs()


def place(document: Document) -> float:
    """A place in [0, 1) by the document's content alone."""
    digest = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def is_held_out(document: Document, share: float) -> bool:
    """Whether a document belongs to the held-out split: by its content, so that copies lie on the same side."""
    return place(document) < share


def text_files(patterns: Iterable[str]) -> Iterator[Document]:
    """Documents of UTF-8 files, plain, .gz or .xz: blank lines, and the files' ends, part them."""
    for file in _expand(patterns):
        yield from _documents_of(_lines(file))


def _expand(patterns: Iterable[str]) -> list[Path]:
    files = []
    for pattern in patterns:
        matches = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        found = [Path(p) for p in matches if Path(p).is_file()]
        if not found:
            hint = "is a folder; give its files, for example " + f"'{pattern.rstrip('/')}/*.txt'"
            raise InputError(f"{pattern}: {hint if Path(pattern).is_dir() else 'no such file'}")
        files += found
    return files


def _lines(file: Path) -> Iterator[str]:
    """The file's lines without their ends; white space inside a line is left as it is."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    number = 0
    try:
        with opener(file, "rb") as stream:
            for number, line in enumerate(stream, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        at = f"{file}, line {number}: not UTF-8 (byte {error.start}: {error.object[error.start]:#04x})"
        raise InputError(f"{at}; convert it, for example with iconv -t UTF-8") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file}, after line {number}: damaged {file.suffix} file ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _documents_of(lines: Iterable[str]) -> Iterator[Document]:
    document: Document = []
    characters = 0
    for line in lines:
        if document and (not line or characters > LONGEST_DOCUMENT):
            yield document
            document, characters = [], 0
        if line:
            document.append(line)
            characters += len(line)
    if document:
        yield document


def python_docs() -> Iterator[Document]:
    """The language reference of `pydoc_data.topics` and the docstrings of the standard library's modules, as prose."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError("corpus.source python-docs: this Python comes without pydoc_data; give text files") from None
    for name in sorted(topics):
        yield from _nonempty(_prose(topics[name]))
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "__pycache__"}
    for file in sorted(root.rglob("*.py")):
        if not skipped.intersection(file.relative_to(root).parts):
            yield from _nonempty([p for text in _docstrings(file) for p in _prose(text)])


def _nonempty(document: Document) -> Iterator[Document]:
    if document:
        yield document


def _docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, from its source: nothing is imported."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # Not for this Python: some files hold code for tools of other versions.
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield inspect.cleandoc(docstring)


def _prose(text: str) -> Document:
    """The paragraphs of reStructuredText-like documentation, each on one line, without code, tables and underlines."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.expandtabs()):
        lines = [line.strip() for line in block.splitlines() if re.search(r"\w", line)]
        paragraph = " ".join(lines)
        words = re.findall(r"[A-Za-z]{2,}", paragraph)
        # Sentences have spaces between most of their words; code and tables of signs don't.
        if len(words) >= 4 and ">>>" not in paragraph and "::=" not in paragraph:
            paragraphs.append(paragraph)
    return paragraphs
