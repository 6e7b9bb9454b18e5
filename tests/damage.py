"""Damage to files: what happens to bytes, and what somebody who means harm writes into JSON."""

import copy
import json
from pathlib import Path

from hypothesis import strategies as st

# Values that no field expects, or that ask for more than there is.
HOSTILE = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e9, 10**9, 10**12, 2**31, 2**63, 10**30, 1e300),
    *("", "x", "1", "\0", "\ud800", "../../x", "/etc/passwd", "é" * 9, "x" * 10_000, "\x1b[31m\nred", "NaN"),
    *([], {}, [[]], [None], [1], ["x"], {"": None}, {"x": {}}, {"0": 1}, [{}] * 3, list(range(300))),
)
# What stands for a value that Python's json would not write so.
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "[" * 90 + "]" * 90, "[" * 3000 + "]" * 3000, "", "nul")
WHOLE = (
    *(b"", b"\0", b"\0" * 5000, b"[]", b"{}", b"null", b"0", b'"x"', b"\n", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"["),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x03\x04", b"\x80\x02.", b"\xde\xff\xff"),
    *(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", b"<!doctype html><html></html>"),
)
ENCODINGS = ("utf-16", "utf-32", "utf-8-sig", "utf-16-le", "latin-1", "cp1252")
# Sizes, as the headers of binary files have them.
NUMBERS = [n.to_bytes(size, "little") for size in (1, 4, 8) for n in (0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)]
NUMBERS += [n.to_bytes(8, "little") for n in (10**9, 10**12, 1 << 40)]
MARK = "\ufdd0"


@st.composite
def damaged(draw, content: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """The bytes of a file after something has happened to them; `others` are files that it might be taken for."""
    kinds = [_flipped, _cut_off, _without, _filled, _overwritten, _encoded, _repeated]
    ways = [st.sampled_from(kinds).flatmap(lambda kind: kind(content)), st.sampled_from([*WHOLE, *others])]
    values = _json(content)
    if values is not None:
        ways.append(_changed(values, b"\n" if _is_lines(content) else b""))
    # Changed bytes seldom leave JSON whole, so its values are changed more often.
    return draw(st.sampled_from([0, 0, 0, 0, 1, *[2] * 10 * (values is not None)]).flatmap(ways.__getitem__))


def _json(content: bytes):
    try:
        if _is_lines(content):
            return [json.loads(line) for line in content.splitlines()]
        return json.loads(content)
    except ValueError:
        return None


def _is_lines(content: bytes) -> bool:
    return content.startswith(b"{") and content.count(b"\n{") > 0


@st.composite
def _flipped(draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for bit in draw(st.lists(st.integers(0, max(8 * len(content) - 1, 0)), min_size=1, max_size=6)) if content else ():
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@st.composite
def _cut_off(draw, content: bytes) -> bytes:
    return content[: draw(_place(content))]


@st.composite
def _without(draw, content: bytes) -> bytes:
    start = draw(_place(content))
    return content[:start] + content[start + draw(st.integers(1, 64)) :]


@st.composite
def _filled(draw, content: bytes) -> bytes:
    """As what a disk gives back for a page that was never written."""
    start = draw(_place(content))
    size = min(draw(st.sampled_from([1, 8, 512, 4096])), len(content) - start)
    return content[:start] + b"\0" * size + content[start + size :]


@st.composite
def _overwritten(draw, content: bytes) -> bytes:
    start, new = draw(_place(content)), draw(st.one_of(st.sampled_from(NUMBERS), st.binary(min_size=1, max_size=16)))
    return content[:start] + new + content[start + draw(st.sampled_from([0, len(new)])) :]


def _place(content: bytes):
    """Anywhere, and as often near the beginning and the end, where headers lie."""
    last = len(content)
    return st.one_of(st.integers(0, last), st.integers(0, min(64, last)), st.integers(max(last - 64, 0), last))


@st.composite
def _encoded(draw, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace").replace("�", "?")
    return text.encode(draw(st.sampled_from(ENCODINGS)), "replace")


@st.composite
def _repeated(draw, content: bytes) -> bytes:
    """Twice, or a part of it inserted again."""
    start, at = draw(_place(content)), draw(_place(content))
    return content[:at] + content[start : start + draw(st.sampled_from([1, 40, len(content)]))] + content[at:]


@st.composite
def _changed(draw, values, lines: bytes) -> bytes:
    """JSON in which one value, or two, is another, isn't there, comes under another name, or twice."""
    values, raw = copy.deepcopy(values), []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        parents = list(_containers(values))
        if not parents:
            break
        # Small ones as often as those with many values.
        parent = draw(st.sampled_from(parents))
        key = draw(st.sampled_from(range(len(parent)) if isinstance(parent, list) else sorted(parent)))
        match draw(st.sampled_from(["value"] * 6 + ["number", "gone", "name", "again", "raw", "deep", "other"])):
            case "value":
                parent[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "number" if isinstance(parent[key], int | float):
                parent[key] = draw(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
            case "gone":
                del parent[key]
            case "name" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["", "x", "-1", "0", "99999999999"]))] = parent.pop(key)
            case "again" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case "raw":
                parent[key] = f"{MARK}{len(raw)}"
                raw.append(draw(st.sampled_from(RAW)))
            case "deep":
                for _ in range(draw(st.sampled_from([1, 5, 300]))):
                    parent[key] = [parent[key]]
            case "other":
                parent[key] = copy.deepcopy(draw(st.sampled_from(list(_containers(values)))))
    rows = values if lines and isinstance(values, list) else [values]
    text = "".join(json.dumps(row) + lines.decode() for row in rows)
    for number, what in enumerate(raw):
        text = text.replace(json.dumps(f"{MARK}{number}"), what)
    return text.encode()


def _containers(values, within=100_000):
    """The lists and objects, but empty ones; of a long list the first and last items."""
    if isinstance(values, dict | list) and values:
        yield values
        inner = list(values.values()) if isinstance(values, dict) else values
        for one in inner if len(inner) < 40 else (*inner[:5], *inner[-5:]):
            yield from _containers(one)


def files_of(folder: Path, *patterns: str) -> list[Path]:
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]
    assert found, (folder, patterns)
    return found
