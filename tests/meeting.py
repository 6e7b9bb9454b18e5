"""A run's hub and members in one process, and whoever else connects to the hub."""

import asyncio
import socket

from bert_jax import __version__
from bert_jax.cluster import rendezvous, secret
from bert_jax.cluster.detection import Place
from bert_jax.cluster.peer import Peer
from bert_jax.cluster.rendezvous import Hub, Member


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
        while not (found := secret.known(self.workdir)):
            await asyncio.sleep(0.01)
        return found

    async def connect(self):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.01)

    async def peer(self, secret: bytes, hub: bool = False) -> Peer:
        """A connection to the hub that has shown the secret it has."""
        peer = Peer("hub", *await self.connect())
        await peer.meet(secret, hub)
        return peer

    def hello(self, process: int = 1, **changed) -> dict:
        hello = {"process": process, "processes": self.processes, "version": __version__, "host": "there"}
        return hello | changed


def new_run(tmp_path, monkeypatch) -> Run:
    """A run without a secret in the environment, whose members look for its hub often."""
    monkeypatch.delenv(secret.SECRET, raising=False)
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
