"""Prints a summary of prepared examples, and warnings about text from which a model would learn little."""

from bert_jax.data.building import Statistics
from bert_jax.data.formats import LONGEST_DOCUMENT
from bert_jax.files.printable import say

# Shares of repeated lines (the loss gets stuck on them) and of unknown tokens above which a warning is printed.
DUPLICATES_WARNED = 0.1
UNKNOWN_WARNED = 0.05
# The expected share of random next sentences: half, and somewhat more, since a single sentence has no next one.
RANDOM_EXPECTED = 0.4, 0.7


def fill(length: str, shards: list[dict]) -> float:
    """The share of the positions in the shards' examples that aren't padding."""
    positions = int(length) * sum(shard["examples"] for shard in shards)
    return sum(shard["tokens"] for shard in shards) / max(positions, 1)


def report(manifest: dict) -> None:
    """Prints a manifest's counts, and warnings."""
    splits = {split: Statistics(**values) for split, values in manifest["splits"].items()}
    for split, s in splits.items():
        counts = (
            f"{sum(x['examples'] for x in v[split]):,} of length {k} ({fill(k, v[split]):.1%} full)"
            for k, v in manifest["lengths"].items()
        )
        say(f"{split}: {s.documents:,} documents, {s.tokens:,} tokens; examples: {', '.join(counts)}")
    for source, values in manifest["sources"].items():
        say(f"  {source}: {describe(Statistics(**values))}")
    say(f"unknown tokens {manifest['unknown_rate']:.3%}, duplicate lines {manifest['duplicate_lines']:.1%}")
    if removed := splits["train"].removed_lines:
        say(f"{removed:,} lines that occurred before were left out")
    if manifest["duplicate_lines"] > DUPLICATES_WARNED:
        say("warning: many lines occur more than once; a model learns them by heart, and its loss says little;")
        say("         --corpus.deduplicate leaves out the repeated ones")
    if manifest["unknown_rate"] > UNKNOWN_WARNED:
        say("warning: many tokens are unknown to the vocabulary; is it one for this language and case?")
    report_documents(splits["train"], manifest["random_next"])
    if not splits["held_out"].documents:
        say("warning: no document is held out, so no loss is measured while training; see corpus.held_out")


def report_documents(s: Statistics, random_next: dict[str, float] | None) -> None:
    """Prints the share of random next sentences, and warnings about documents that make poor sentence pairs."""
    average = s.characters / max(s.documents, 1)
    if average > LONGEST_DOCUMENT / 2 or s.documents == 1:
        say(f"warning: documents are {average:,.0f} characters long on average, and cut at {LONGEST_DOCUMENT:,};")
        say("         if they are really shorter, put a blank line between one and the next")
    if random_next is None:
        return
    shares = ", ".join(f"{share:.1%} of length {length}" for length, share in random_next.items())
    say(f"random next sentences: {shares}")
    if all(RANDOM_EXPECTED[0] <= share <= RANDOM_EXPECTED[1] for share in random_next.values()):
        return
    say("warning: half of the next sentences are meant to be random; of these a model learns little by predicting it:")
    if s.sentences < 2 * s.documents:
        say("         most documents are one sentence, which has no next; put blank lines between documents only")
    elif max(random_next.values()) > RANDOM_EXPECTED[1]:
        say(f"         sentences are {s.tokens / s.sentences:.0f} tokens long on average, and one alone has no next;")
        say("         write each on its own line, if they end in no mark")
    say("         or train without next sentences: --examples.format full_sentences")


def describe(s: Statistics) -> str:
    """Tokens per word (the vocabulary's fertility), characters per token, and the share of unknown tokens."""
    words = f"{s.tokens / max(s.words, 1):.2f} tokens a word, {s.characters / max(s.tokens, 1):.2f} characters a token"
    return f"{s.tokens:,} tokens, {words}, {s.unknown / max(s.tokens, 1):.3%} unknown"
