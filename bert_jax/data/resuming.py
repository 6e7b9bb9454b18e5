"""Continues a folder of examples that an earlier run left unfinished, if the settings and the text are the same.

Text is compared by its content, wherever its files lie: a finished shard keeps digests of the chunks it was made of.
The text is read again for that only where a file's size or time has changed since the run began.
"""

import contextlib
import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType

import numpy as np

from bert_jax.config import InputError, PretrainConfig
from bert_jax.config.files import differences, to_dict
from bert_jax.data import leftovers, sentences, text_files, tokenizer_folders, tokenizers, words
from bert_jax.data.building import parts_of, text_of
from bert_jax.data.corpora import Chunk
from bert_jax.data.records import FORMAT, Examples
from bert_jax.data.shards import ShardWriter
from bert_jax.files import contents, storage
from bert_jax.files.folders import LOCK
from bert_jax.files.printable import say

Numbered = tuple[Chunk, int, np.ndarray | None]
"""A chunk, its number in the corpus, and a mark for each line that is left out."""

# Settings that say where the text lies.
LOCATIONS = ("files", "data_dir")
# What a job that was begun has, beside the settings, which are compared with the present ones.
JOB = {"text": {"files": [str], "data_dir": (str, NoneType), "states": {str: [int]}}, "done?": int}


def job_of(config: PretrainConfig, tokenizer: tokenizers.Tokenizer | None = None) -> dict:
    """All that determines the examples' bytes; and under "text", where the text lies and the state of its files.

    `tokenizer`, if given, replaces the config's.
    """
    settings = to_dict(config)
    job = {name: settings[name] for name in ("seed", "corpus", "tokenizer", "examples")}
    text = {name: job["corpus"].pop(name) for name in LOCATIONS}
    states = {}
    if config.corpus.source == "text":
        matches = text_files.text_files(config.corpus.files, config.corpus.text_field).values()
        states = {str(file.path): file.state for files in matches for file in files}
    if tokenizer is None and config.tokenizer.path:
        tokenizer = tokenizer_folders.load(config.tokenizer.path, config.tokenizer)
    if tokenizer:
        job["tokenizer"] = f"the one of fingerprint {tokenizers.fingerprint(tokenizer)}"
    if config.examples.word_segmenter:
        words.load(config.examples.word_segmenter)  # Any error in it should come at once.
    lengths = sorted({phase.sequence_length for phase in config.phases})
    versions = {"format": FORMAT, "sentences": sentences.VERSION}
    return json.loads(json.dumps({**versions, **job, "lengths": lengths, "text": {**text, "states": states}}))


def begin(partial: Path, job: dict, overwrite: bool) -> dict | None:
    """Makes the folder, or continues what an earlier run of the same job left in it.

    Returns the earlier job's "text", if it is different now and there are finished shards to check against it.
    """
    earlier = _earlier_job(partial, overwrite)
    earlier.pop("done", None)
    different = differences({**earlier, "text": None}, {**job, "text": None})
    if earlier and not different and earlier["text"] == job["text"]:
        return None
    if earlier and not different and _finished(partial):
        return earlier["text"]
    if different and earlier and not overwrite:
        name, was, now = different[0]
        what = f"{name} was {was!r} in the run that was stopped there, is {now!r} now; give it back to go on"
        if any(earlier.get(name) != job[name] for name in ("format", "sentences")):
            what = "was begun by another version of bert_jax; go on with that one"
        raise InputError(f"{partial}: {what}, or remove the folder")
    _empty(partial)  # Killed before its first shard, or after its end; or to be overwritten.
    write_job(partial, job)
    return None


def _earlier_job(partial: Path, overwrite: bool) -> dict:
    """The job of an earlier run in the folder; empty where there was none, or where it is overwritten anyway."""
    try:
        job = leftovers.read_json(file := partial / "job.json", {})
        # It is empty where the run was killed while it emptied the folder.
        return job and leftovers.checked(job, JOB, file)
    except FileNotFoundError:
        return {}
    except leftovers.Damaged as error:
        if overwrite:
            return {}
        raise InputError(f"{error}; remove {partial} to begin anew") from None


def write_job(partial: Path, job: dict) -> None:
    leftovers.write(partial / "job.json", json.dumps(job).encode())


def write_done(partial: Path, job: dict) -> None:
    """Notes that the folder is whole, in case the run is stopped before the folder is moved."""
    write_job(partial, {**job, "done": zlib.crc32((partial / "manifest.json").read_bytes())})


def is_done(partial: Path) -> bool:
    """Whether an earlier run finished the folder, and no file has changed since."""
    done = _earlier_job(partial, overwrite=False).get("done")
    manifest = partial / "manifest.json"
    if done is None or not manifest.exists():
        return False
    try:
        if zlib.crc32(manifest.read_bytes()) == done:
            examples = Examples(partial)
            if not storage.is_remote(partial):
                examples.check_files(map(int, examples.manifest["lengths"]))
            return True
    except InputError:
        pass
    say(f"{partial}: damaged; what is damaged is made again", file=sys.stderr)
    return False


def _empty(folder: Path) -> None:
    """Empties a folder in an order in which, if this is stopped, it counts as begun and never as examples."""
    write_job(folder, {})
    storage.remove(folder / "manifest.json")
    for path in folder.iterdir():
        if path.name not in ("job.json", LOCK):
            storage.remove(path)


def check_own(partial: Path) -> None:
    """Raises `InputError` where the folder belongs to another user than the one who runs this process, or holds a link,
    which may lead anywhere."""
    if storage.is_remote(partial):
        return
    for path in (partial, *partial.rglob("*")):
        storage.refuse_link(path)
    if partial.stat().st_uid != (partial / LOCK).stat().st_uid:
        raise InputError(f"{partial}: belongs to another user; remove it, or choose another folder")


def keep_same(writer: ShardWriter, chunks: Iterable[Numbered], chunks_a_shard: int, was: dict, now: dict) -> None:
    """Keeps the finished shards whose text is the same; `was` and `now` are the "text" of the earlier job and this one.

    Raises `InputError` where the text is elsewhere now and no shard has the same: it may be the wrong text.
    """
    finished = writer.finished()
    unchanged = {file for file, state in was["states"].items() if now["states"].get(file) == state}
    same = set()
    for number, shard in itertools.groupby(chunks, lambda call: call[1] // chunks_a_shard):
        if not finished or number > finished[-1]:
            break
        if number in finished and _is_same(shard, writer.made_of(number), unchanged):
            same.add(number)
    if finished and not same and (moved := [name for name in LOCATIONS if was[name] != now[name]]):
        change = f"corpus.{moved[0]} was {was[moved[0]]!r} in the run that was stopped there, is {now[moved[0]]!r} now"
        raise InputError(f"{change}, and is other text; give it back to go on, or remove {writer.folder}")
    if again := set(finished) - same:
        say(f"the text has changed: {len(again)} of {len(finished)} finished shards are made again")
    writer.keep(same)


def _is_same(shard: Iterable[Numbered], made_of: list[dict], unchanged: set[str]) -> bool:
    for call, before in itertools.zip_longest(shard, made_of):
        if not call or not before or call[0].source != before["source"]:
            return False
        chunk, _, repeated = call
        files = {part.file for part in chunk.parts}
        unread = repeated is None and files and files <= unchanged and parts_of(chunk) == before.get("parts")
        if not unread and text_of(chunk, repeated)["digest"] != before["digest"]:
            return False
    return True


def _finished(partial: Path) -> int:
    return sum(1 for _ in (partial / "progress").glob("*.npz"))


@contextlib.contextmanager
def kept_if_begun(partial: Path) -> Iterator[None]:
    """If the block fails, removes the folder, unless it has finished shards to keep."""
    try:
        yield
    except BaseException as error:
        finished = _finished(partial)
        if not finished:
            storage.remove(partial)
        kept = f"; {finished} finished shards are kept in {partial}, and the same command goes on" if finished else ""
        if isinstance(error, OSError) and error.errno in storage.FULL:
            raise InputError(f"{contents.what_to_do(error, partial)}{kept}") from None
        if isinstance(error, InputError):
            raise InputError(f"{error}{kept}") from None
        if finished:
            say("", kept[2:], file=sys.stderr)
        raise
