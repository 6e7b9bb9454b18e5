"""The work of `prepare` as an Apache Beam pipeline, on many machines: Dataflow, Flink, Spark, or Beam's local runner.

Every worker must see the output folder and the corpus under the same paths. The shards are equal, byte for byte, to
those that `prepare` makes in its own processes: the same functions work on a chunk and write a shard.
"""

import copy
import logging
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from bert_jax.config import InputError
from bert_jax.data import corpora, tokenizers
from bert_jax.data.building import ChunkResult, Job, work
from bert_jax.data.corpora import Chunk, Piece
from bert_jax.data.duplicates import RepeatedLines
from bert_jax.data.prepare import Calls
from bert_jax.data.shards import ShardWriter

Numbered = tuple[int, Chunk]


class BeamEngine:
    """Writes a split's shards with a Beam pipeline; `options` are Beam's own (--runner, --project, ...)."""

    def __init__(self, options: list[str]):
        self._options = options

    def __call__(self, writer: ShardWriter, calls: Calls) -> None:
        tokenizer = calls.tokenizer.to_dict()
        # A worker's errors are raised here too; without this they are also logged.
        logging.getLogger("apache_beam.runners.worker").setLevel(logging.CRITICAL)
        with self._pipeline() as pipeline:
            # A worker lists the pieces, since the pipeline's description is limited to some megabytes.
            pieces = (
                pipeline
                | beam.Create([None])
                | beam.FlatMap(lambda _, list_pieces=calls.pieces: enumerate(list_pieces()))
                | "Spread pieces" >> beam.Reshuffle()
            )
            counts = pieces | beam.MapTuple(lambda number, piece: (number, sum(1 for _ in corpora.chunks_of(piece))))
            starts = counts | beam.combiners.ToList() | beam.Map(_starts)
            _ = (
                pieces
                | beam.FlatMap(_numbered, beam.pvalue.AsSingleton(starts))
                | beam.Filter(lambda numbered: not writer.is_finished(numbered[0] // calls.chunks_a_shard))
                | "Spread chunks" >> beam.Reshuffle()
                | beam.ParDo(_Work(calls.job, calls.repeated, tokenizer))
                | beam.Map(lambda done: (done[0] // calls.chunks_a_shard, done))
                | beam.GroupByKey()
                | beam.MapTuple(lambda number, results: _write(writer, number, results))
            )

    def _pipeline(self) -> beam.Pipeline:
        try:
            return beam.Pipeline(options=PipelineOptions(self._options, save_main_session=False))
        except ValueError as error:
            what = "; ".join(line.strip() for line in str(error).splitlines())
            raise InputError(f"{' '.join(self._options)}: {what}") from None


def _starts(counts: list[tuple[int, int]]) -> np.ndarray:
    """[pieces] the number of each piece's first chunk, from (number, count of chunks) of each piece."""
    return np.cumsum([0, *(count for _, count in sorted(counts))])[:-1]


def _numbered(numbered_piece: tuple[int, Chunk | Piece], starts: np.ndarray) -> Iterator[Numbered]:
    """The chunks of a piece with their numbers in the whole corpus."""
    number, piece = numbered_piece
    return enumerate(corpora.chunks_of(piece), int(starts[number]))


class _Work(beam.DoFn):
    """Turns chunks into their results, in a process that keeps its tokenizer."""

    def __init__(self, job: Job, repeated: RepeatedLines | None, tokenizer: dict):
        self._job, self._repeated, self._values = job, repeated, tokenizer

    def setup(self) -> None:
        self._tokenizer = tokenizers.from_dict(self._values)

    def process(self, numbered: Numbered) -> Iterator[tuple[int, str, ChunkResult]]:
        number, chunk = numbered
        repeated = self._repeated.in_chunk(number) if self._repeated else None
        yield number, chunk.source, work(chunk, number, repeated, self._job, self._tokenizer)


def _write(writer: ShardWriter, number: int, results: Iterable[tuple[int, str, ChunkResult]]) -> None:
    writer = copy.copy(writer)  # Its own copy: a runner may write several shards at the same time.
    for _, source, result in sorted(results, key=lambda done: done[0]):
        writer.add(number, source, result)
    writer.close()
