"""Whoever connects without knowing the run's secret is neither believed nor in the way."""

import asyncio
import contextlib
import json

import pytest
from meeting import new_run, together

from bert_jax.cluster import peer as peers
from bert_jax.cluster import rendezvous
from bert_jax.cluster.peer import End, Peer
from bert_jax.cluster.rendezvous import Hub
from bert_jax.cluster.secret import SECRET


@pytest.fixture
def run(tmp_path, monkeypatch):
    return new_run(tmp_path, monkeypatch)


STRANGE = {
    "nothing": b"",
    "a browser": b"GET / HTTP/1.1\r\n\r\n",
    "the hello of before": b'{"process": 1, "processes": 2, "version": "0.1.0", "host": "there"}\n',
    "nested": b"[" * 100_000 + b"\n",
    "a list for a number": b"0" * 64 + b'\n{"process": [1]}\n',
    "a line without an end": b"1" * 1_000_000,
    "no text": bytes(range(256)) * 10 + b"\n",
    "a nonce alone": b"a" * 64 + b"\n",
    "a code of another key": b"a" * 64 + b"\n" + b"b" * 64 + b' {"end": "\\u001b[31mpwned", "code": 2}\n',
}


@pytest.mark.parametrize("sent", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("hangs_up", [True, False])
def test_strangers_neither_end_a_run_nor_stay(run, monkeypatch, capfd, sent, hangs_up):
    monkeypatch.setattr(rendezvous, "HELLO", 0.3)

    async def stranger():
        reader, writer = await run.connect()
        writer.write(sent)
        with contextlib.suppress(OSError):
            if hangs_up:
                writer.close()
            else:
                await asyncio.wait_for(reader.read(), 5)  # Until the hub hangs up.
        writer.close()

    async def member():
        await stranger()
        return await run.member()

    assert together(run.hub(), stranger(), member())[::2] == [0, 0]
    assert capfd.readouterr() == ("", "")


def test_a_flood_of_connections_keeps_nobody_out(run, monkeypatch):
    monkeypatch.setattr(rendezvous, "STRANGERS", 20)
    held = []

    async def flood():
        for _ in range(100):
            held.append(await run.connect())

    async def member():
        await flood()
        return await run.member()

    async def hub():
        link = Hub(run.place(0), run.workdir, 5)
        async with link:
            assert len(link._strangers) <= 20
            await link.release()
            return await link.finish(0)

    assert together(hub(), member()) == [0, 0]
    for _, writer in held:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            writer.close()


def test_what_was_overheard_is_of_no_use(run, monkeypatch):
    """Said again on another connection, sent back to its sender, or a second time on the same connection."""

    async def replay():
        secret = await run.secret()
        peer = await run.peer(secret)
        content = json.dumps(run.hello()).encode()
        line = peers.code(peer._key, 0, content) + b" " + content + b"\n"
        reader, writer = await run.connect()
        writer.write(b"c" * 64 + b"\n" + line)
        await reader.readline()
        assert await reader.read() == b""
        back = Peer("hub", *await run.connect())
        back._writer.write(await back._line())  # The hub's own nonce, and then whatever it sends.
        assert await asyncio.wait_for(back._line(), 15) == b""
        for one in (peer, back):
            one.close()
        writer.close()
        return await run.member()

    monkeypatch.setattr(rendezvous, "HELLO", 0.5)
    assert together(run.hub(), replay()) == [0, 0]

    async def twice():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello())
        await peer.receive()
        peer._sent = 0
        await peer.send(ended=0)
        with pytest.raises(End):
            await peer.receive() and await peer.receive()

    hub, _ = together(run.hub(), twice())
    assert str(hub) == "process 1 (there) was lost: its connection carried something unexpected"


def test_a_member_believes_no_hub_that_does_not_know_the_secret(run, monkeypatch):
    monkeypatch.setattr(rendezvous, "SHARED", 0.5)
    monkeypatch.setenv(SECRET, "s" * 32)
    answers = [
        b"",
        b"x\n",
        b"d" * 64 + b'\n{"end": "you are done", "code": 2}\n',
        b"d" * 64 + b"\n" + b"e" * 99 + b"\n",
    ]

    async def impostor():
        async def answer(reader, writer):
            writer.write(answers[0])
            answers.append(answers.pop(0))
            await asyncio.sleep(0.1)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", run.port):
            await asyncio.sleep(1.5)

    _, end = together(impostor(), run.member())
    assert "didn't show that it knows the secret of BERT_JAX_SECRET" in str(end) and "you are" not in str(end)
