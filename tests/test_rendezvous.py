"""How supervisors meet: who doesn't know the secret is neither believed nor in the way; what comes is checked."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import time

import pytest

from bert_jax.cluster import rendezvous
from bert_jax.cluster.detection import Place
from bert_jax.cluster.rendezvous import BAD_INPUT, FILE, LOST, SECRET, End, Hub, Member
from bert_jax.config import InputError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Run:
    """A run's hub and members, in one process."""

    def __init__(self, workdir, processes: int = 2, timeout: float = 5):
        self.workdir, self.processes, self.port, self.timeout = workdir, processes, free_port(), timeout

    def place(self, process: int) -> Place:
        return Place("127.0.0.1", self.port, self.processes, process)

    async def hub(self, number: int = 0) -> int:
        return await self._through(Hub(self.place(0), self.workdir, self.timeout), number)

    async def member(self, process: int = 1, number: int = 0) -> int:
        return await self._through(Member(self.place(process), self.workdir, self.timeout), number)

    async def _through(self, link, number: int) -> int:
        async with link:
            await link.release()
            return await link.finish(number)

    async def secret(self) -> bytes:
        """As soon as it is there."""
        while not (found := rendezvous._known(self.workdir)):
            await asyncio.sleep(0.01)
        return found

    async def connect(self):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.01)

    async def peer(self, secret: bytes, hub: bool = False) -> rendezvous._Peer:
        """A connection to the hub that has shown the secret it has."""
        peer = rendezvous._Peer("hub", *await self.connect())
        await peer.meet(secret, hub)
        return peer

    def hello(self, process: int = 1, **changed) -> dict:
        hello = {"process": process, "processes": self.processes, "version": rendezvous.__version__, "host": "there"}
        return hello | changed


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    monkeypatch.setattr(rendezvous, "RETRY", 0.05)
    return Run(tmp_path / "shared/run")


def together(*coroutines) -> list:
    """Their results, or what they raised; nothing else may have been said by asyncio."""
    said = []

    async def all_of_them():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        return await asyncio.wait_for(asyncio.gather(*coroutines, return_exceptions=True), 30)

    results = asyncio.run(all_of_them())
    assert not said
    return results


# ---- The secret -----------------------------------------------------------------------------------------------------


def test_processes_meet_by_a_file_of_its_owner_that_is_gone_when_all_have_come(run):
    run.workdir.mkdir(parents=True)
    (run.workdir / FILE).write_text("of a run that was killed")  # What a member may read first.
    (run.workdir / FILE).chmod(0o666)
    modes = []

    async def look():
        while (secret := await run.secret()) == b"of a run that was killed":
            await asyncio.sleep(0.01)
        modes.append((run.workdir / FILE).stat().st_mode & 0o777)
        assert len(secret) == 64

    async def later():
        await asyncio.sleep(0.3)
        return await run.member()

    assert together(run.hub(), look(), later()) == [0, None, 0]
    assert modes == [0o600] and not list(run.workdir.iterdir())


def test_the_environment_has_the_secret_and_nothing_is_written(run, monkeypatch):
    monkeypatch.setenv(SECRET, secrets.token_hex(16))
    assert together(run.hub(), run.member()) == [0, 0]
    assert not run.workdir.parent.exists()
    monkeypatch.setenv(SECRET, "short")
    found = together(run.hub(), run.member())
    assert [type(error) for error in found] == [InputError] * 2
    assert str(found[0]) == "BERT_JAX_SECRET: has 5 characters, must have 32 or more, as of openssl rand -hex 32"


def test_a_run_that_nobody_joins_leaves_nothing_behind(run):
    run.timeout = 0.2
    (end,) = together(run.hub())
    assert "process 1 of 2 didn't come within 0 seconds" in str(end) and end.code == LOST
    assert not run.workdir.parent.exists()


def test_another_workdir_is_named_by_both(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "SHARED", 0.5)
    run.timeout = 3
    other = Run(tmp_path / "other")
    other.port = run.port
    hub, member = together(run.hub(), other.member())
    assert "connections didn't know the run's secret" in str(hub)
    assert f"the secret of {tmp_path}/other/{FILE} (--workdir must be one that all share)" in str(member)
    assert (hub.code, member.code) == (LOST, BAD_INPUT)


def test_a_workdir_that_is_a_file_is_named(run):
    run.workdir.parent.mkdir()
    run.workdir.touch()
    (error,) = together(run.hub())
    assert str(error) == f"{run.workdir}: is a file; a --workdir is a folder"


# ---- Who doesn't know it --------------------------------------------------------------------------------------------

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
        line = rendezvous._code(peer._key, 0, content) + b" " + content + b"\n"
        reader, writer = await run.connect()
        writer.write(b"c" * 64 + b"\n" + line)
        await reader.readline()
        assert await reader.read() == b""
        back = rendezvous._Peer("hub", *await run.connect())
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
    assert str(hub) == "process 1 (there) was lost: something else came by its connection"


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


# ---- What a process of the run says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"process": 99}, "process 99 (there) isn't one of 1 to 1"),
        ({"process": 0}, "isn't one of 1 to 1"),
        ({"process": -1}, "isn't one of 1 to 1"),
        ({"processes": 3}, "was started with processes 3, process 0 with 2"),
        ({"version": "9\x1b[31m\u202e"}, "was started with version 9\\x1b[31m\\u202e, process 0 with"),
        ({"host": "\x1b]0;\x9b" + "h" * 5000}, "process 1 (\\x1b]0;\\x9bhhh"),
    ],
)
def test_a_hello_that_does_not_fit_is_told_so_and_the_run_waits_on(run, changed, message):
    async def misfit():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello(**{"version": "9"} | changed if "host" in changed else changed))
        answer = await peer.receive()
        peer.close()
        assert message in answer["end"] and answer["code"] == BAD_INPUT and len(answer["end"]) <= 500
        return await run.member()

    assert together(run.hub(), misfit()) == [0, 0]


@pytest.mark.parametrize(
    "hello", [{"process": [1]}, {"process": True}, {"process": "1"}, {"process": 1.0}, {"host": 1}]
)
def test_a_hello_of_other_types_is_none(run, hello):
    async def other():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello(**hello))
        with pytest.raises(End, match="its connection ended"):
            await peer.receive()
        peer.close()
        return await run.member()

    assert together(run.hub(), other()) == [0, 0]


def test_nobody_takes_the_place_of_another(run):
    run.processes = 3

    async def double():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello(1, host="first"))
        assert await peer.receive() == {"welcome": True}
        with pytest.raises(End, match=r"process 1 \(.*\) is there already, as process 1 \(first\)") as end:
            await run.member(1)
        assert end.value.code == BAD_INPUT
        other = asyncio.create_task(run.member(2))
        assert await peer.receive() == {"start": True}
        await peer.send(ended=0)
        assert await peer.receive() == {"stopped": 0}
        peer.close()
        return await other

    assert together(run.hub(), double()) == [0, 0]


GARBAGE = {
    "no code": b"garbage\n",
    "too long": b"x" * 100_000,
    "not ended": b"x",
    "nested": b"[" * 10_000,
    "a number too long": b'{"ended": ' + b"9" * 5000 + b"}",
    "no JSON": b"{",
    "no object": b"[1]",
    "an unknown field": b'{"shutdown": true}',
    "a wrong type": b'{"end": ["x"], "code": 2}',
    "an unknown signal": b'{"ended": 9000}',
    "no message of a process": b'{"welcome": true}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_after_the_hello_is_noticed(run, capfd, garbage):
    async def member():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello())
        assert [await peer.receive(), await peer.receive()] == [{"welcome": True}, {"start": True}]
        if garbage[:1] in b"[{":  # With a code, as of a process gone wrong.
            peer._writer.write(rendezvous._code(peer._key, peer._sent, garbage) + b" " + garbage + b"\n")
        else:
            peer._writer.write(garbage)
        if garbage == b"x":
            peer._writer.write_eof()
        end = await peer.receive()
        peer.close()
        return end

    hub, told = together(run.hub(), member())
    reason = "process 1 (there) was lost: something else came by its connection"
    assert (str(hub), hub.code, told) == (reason, LOST, {"end": reason, "code": LOST})
    assert capfd.readouterr() == ("", "")


def test_what_another_process_says_last_is_printed_harmlessly(run):
    async def member():
        peer = await run.peer(await run.secret())
        await peer.send(**run.hello())
        await peer.receive()
        await peer.send(end="\x1b[2J\u202eevil\n\ud800 ü" + "x" * 5000, code=BAD_INPUT)
        with pytest.raises(End):
            while True:
                await peer.receive()

    hub, _ = together(run.hub(), member())
    assert str(hub).startswith("\\x1b[2J\\u202eevil\\n\\ud800 üxxx") and len(str(hub)) < 600
    assert hub.code == BAD_INPUT


def test_a_clock_that_is_set_ends_nothing(run, monkeypatch):
    monkeypatch.setattr(rendezvous, "HEARTBEAT", 0.1)
    times = iter([0.0, 1e9, -1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(times))

    async def member():
        async with Member(run.place(1), run.workdir, run.timeout) as link:
            await asyncio.sleep(0.5)
            return await link.finish(0)

    assert together(run.hub(), member()) == [0, 0]


@pytest.mark.parametrize(("hub", "member", "stopped"), [(0, 0, 0), (15, 15, 15), (15, 2, 2), (2, 15, 2)])
def test_all_agree_on_the_signal_that_stopped_them(run, hub, member, stopped):
    assert together(run.hub(hub), run.member(number=member)) == [stopped] * 2


# ---- Where process 0 listens ----------------------------------------------------------------------------------------


def test_process_0_listens_where_it_is_looked_for():
    assert "127.0.0.1" in rendezvous.addresses("localhost")
    assert rendezvous.addresses("127.0.0.1") == ["127.0.0.1"]
    assert rendezvous.addresses("192.0.2.1") is None  # A service's, say: not this machine's.
    assert rendezvous.addresses(os.uname().nodename) is None  # Others may know it by another address.
