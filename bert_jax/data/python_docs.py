"""The documentation that comes with Python, as a corpus for trying things out."""

import ast
import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.data.formats import Document


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
        return  # Some files hold code for other versions of Python.
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
        # Sentences have spaces between most words; code and tables of symbols don't.
        if len(words) >= 4 and ">>>" not in paragraph and "::=" not in paragraph:
            paragraphs.append(paragraph)
    return paragraphs
