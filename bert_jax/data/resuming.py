"""What an earlier run left of a folder of examples: gone on with where it was of the same settings and the same text.

Text is the same by its content, wherever its files lie: a finished shard keeps digests of the chunks it was made of. It
is read again for that only where a file isn't the one, by size and time, that the run began with.
"""

import contextlib
import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

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

Numbered = tuple[Chunk, int, np.ndarray | None]
"""A chunk, its number in the corpus, and which of its lines are left out."""

# Settings that say where the text lies.
PLACES = ("files", "data_dir")


def job_of(config: PretrainConfig, tokenizer: tokenizers.Tokenizer | None = None) -> dict:
    """What decides the bytes of the examples, and under "text" where the text lies and the state of its files.

    `tokenizer` is one that is given instead of the config's.
    """
    settings = to_dict(config)
    job = {name: settings[name] for name in ("seed", "corpus", "tokenizer", "examples")}
    text = {name: job["corpus"].pop(name) for name in PLACES}
    states = {}
    if config.corpus.source == "text":
        matches = text_files.text_files(config.corpus.files, config.corpus.text_field).values()
        states = {str(file.path): file.state for files in matches for file in files}
    if tokenizer is None and config.tokenizer.path:
        tokenizer = tokenizer_folders.load(config.tokenizer.path, config.tokenizer)
    if tokenizer:
        job["tokenizer"] = f"the one of fingerprint {tokenizers.fingerprint(tokenizer)}"
    if config.examples.word_segmenter:
        words.load(config.examples.word_segmenter)  # What is wrong with it is better said at once.
    lengths = sorted({phase.sequence_length for phase in config.phases})
    versions = {"format": FORMAT, "sentences": sentences.VERSION}
    return json.loads(json.dumps({**versions, **job, "lengths": lengths, "text": {**text, "states": states}}))


def begin(partial: Path, job: dict, overwrite: bool) -> dict | None:
    """Makes the folder, or takes up what an earlier run of the same job left there.

    Returns where that one's text lay and how it was, if that is different now and there are shards to check for it.
    """
    there = _left(partial, overwrite)
    there.pop("done", None)
    different = differences({**there, "text": None}, {**job, "text": None})
    if there and not different and there["text"] == job["text"]:
        return None
    if there and not different and _finished(partial):
        return there["text"]
    if different and there and not overwrite:
        name, was, now = different[0]
        what = f"{name} was {was!r} in the run that was stopped there, is {now!r} now; give it back to go on"
        if any(there.get(name) != job[name] for name in ("format", "sentences")):
            what = "was begun by another version of bert_jax; go on with that one"
        raise InputError(f"{partial}: {what}, or remove the folder")
    _empty(partial)  # Killed before a shard or behind the end, or to be overwritten.
    write_job(partial, job)
    return None


def _left(partial: Path, overwrite: bool) -> dict:
    """What an earlier run set out to make there; empty where there was none, or it is of no interest."""
    try:
        return json.loads(leftovers.read(partial / "job.json"))
    except FileNotFoundError:
        return {}
    except leftovers.Damaged as error:
        if overwrite:
            return {}
        raise InputError(f"{error}; remove {partial} to begin anew") from None


def write_job(partial: Path, job: dict) -> None:
    leftovers.write(partial / "job.json", json.dumps(job).encode())


def write_done(partial: Path, job: dict) -> None:
    """Notes that the folder is whole, for a run that is stopped before it is in its place."""
    write_job(partial, {**job, "done": zlib.crc32((partial / "manifest.json").read_bytes())})


def is_done(partial: Path) -> bool:
    """Whether an earlier run made all of it, and all of it is as it was written."""
    done = _left(partial, overwrite=False).get("done")
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
    print(f"{partial}: damaged; what is damaged is made again", file=sys.stderr)
    return False


def _empty(folder: Path) -> None:
    """Empties a folder, so that it is known for a begun one if this is stopped, and never for examples."""
    write_job(folder, {})
    storage.remove(folder / "manifest.json")
    for path in folder.iterdir():
        if path.name not in ("job.json", LOCK):
            storage.remove(path)


def check_no_link(partial: Path) -> None:
    """Raises `InputError` where the folder, whose name can be guessed, is a link that somebody laid there."""
    if not storage.is_remote(partial) and partial.is_symlink():
        raise InputError(f"{partial}: a link to {partial.readlink()}, which isn't followed; remove it")


def check_own(partial: Path) -> None:
    """Raises `InputError` where the folder isn't of the person who this process runs for, as its lock is."""
    check_no_link(partial)
    if not storage.is_remote(partial) and partial.stat().st_uid != (partial / LOCK).stat().st_uid:
        raise InputError(f"{partial}: belongs to another user; remove it, or choose another folder")


def keep_same(writer: ShardWriter, chunks: Iterable[Numbered], chunks_a_shard: int, was: dict, now: dict) -> None:
    """Of the finished shards keeps those whose text is the same; `was` and `now` say where it lay and lies.

    Raises `InputError` where that is another place and none is the same: then it may be the wrong one.
    """
    finished = writer.finished()
    unchanged = {file for file, state in was["states"].items() if now["states"].get(file) == state}
    same = set()
    for number, shard in itertools.groupby(chunks, lambda call: call[1] // chunks_a_shard):
        if not finished or number > finished[-1]:
            break
        if number in finished and _is_same(shard, writer.made_of(number), unchanged):
            same.add(number)
    if finished and not same and (moved := [name for name in PLACES if was[name] != now[name]]):
        change = f"corpus.{moved[0]} was {was[moved[0]]!r} in the run that was stopped there, is {now[moved[0]]!r} now"
        raise InputError(f"{change}, and is other text; give it back to go on, or remove {writer.folder}")
    if again := set(finished) - same:
        print(f"the text has changed: {len(again)} of {len(finished)} finished shards are made again")
    writer.keep(same)


def _is_same(shard: Iterable[Numbered], made_of: list[dict], unchanged: set[str]) -> bool:
    for call, before in itertools.zip_longest(shard, made_of):
        if not call or not before or call[0].source != before["source"]:
            return False
        chunk, _, repeated = call
        files = {part.file for part in chunk.parts}
        unread = repeated is None and files and files <= unchanged and parts_of(chunk) == before["parts"]
        if not unread and text_of(chunk, repeated)["digest"] != before["digest"]:
            return False
    return True


def _finished(partial: Path) -> int:
    return sum(1 for _ in (partial / "progress").glob("*.npz"))


@contextlib.contextmanager
def kept_if_begun(partial: Path) -> Iterator[None]:
    """Where something fails, removes the folder, unless there are finished shards to keep."""
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
            print(f"\n{kept[2:]}", file=sys.stderr)
        raise
