"""How supervisors meet: by a secret that all of them know, and what comes from a process of the run is checked."""

import asyncio
import os
import secrets
import time

import pytest
from meeting import Run, new_run, together

from bert_jax.cluster import peer as peers
from bert_jax.cluster import rendezvous
from bert_jax.cluster.peer import End
from bert_jax.cluster.rendezvous import Member
from bert_jax.cluster.secret import FILE, SECRET
from bert_jax.config import InputError
from bert_jax.files.errors import BAD_INPUT, LOST


@pytest.fixture
def run(tmp_path, monkeypatch):
    return new_run(tmp_path, monkeypatch)


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
    assert str(found[0]) == "BERT_JAX_SECRET: has 5 characters, must have 32 or more; openssl rand -hex 32 makes one"


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
        with pytest.raises(End, match=r"process 1 \(.*\) has already come, as process 1 \(first\)") as end:
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
            peer._writer.write(peers.code(peer._key, peer._sent, garbage) + b" " + garbage + b"\n")
        else:
            peer._writer.write(garbage)
        if garbage == b"x":
            peer._writer.write_eof()
        end = await peer.receive()
        peer.close()
        return end

    hub, told = together(run.hub(), member())
    reason = "process 1 (there) was lost: its connection carried something unexpected"
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
    monkeypatch.setattr(peers, "HEARTBEAT", 0.1)
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
