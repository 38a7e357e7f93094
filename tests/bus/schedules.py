"""Random faults while people talk, and what has to hold of what they have heard."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Sequence

from benchmarks.harness.broker import Nats
from sock_chat.log import Past
from tests.bus.node import INTERVALS, Client, Node

STEPS = 25
NODES = 3
REFUSED = "* No se ha dicho: el bus no lo toma."


class Schedule:
    """A chat of its own, three servers, and a random number generator that says what happens."""

    def __init__(self, seed: int, port: int, name: str = ""):
        self.random = random.Random(seed)
        self.name = f"{name}s{seed}"
        self.port = port
        self.nodes: list[Node] = []
        self.clients: list[Client] = []
        self.said: dict[str, Client] = {}  # by the text
        self.count = 0
        self.log: list[str] = []

    async def run(self) -> None:
        try:
            await self.play()
        finally:  # nats-py's tasks end by that only
            for node in self.nodes:
                await node.die()

    async def play(self) -> None:
        self.nodes = [await Node.begin(self.name, self.port) for _ in range(NODES)]
        for node in self.nodes:
            await self.come(node)
        for _ in range(STEPS):
            self.talk()
            await self.step()
            await asyncio.sleep(self.random.uniform(0, 0.1))
        for node in self.nodes:
            node.link.open()
        await self.settle()
        await self.gather()
        self.check(await self.history(self.nodes[0]), await self.history(self.nodes[1]))

    async def come(self, node: Node) -> None:
        self.count += 1
        self.clients += [node.connect(f"g{self.count}")]

    def talk(self) -> None:
        for client in self.clients:
            if client.closed is None and client.session.room and self.random.random() < 0.7:
                self.say(client)

    def say(self, client: Client) -> str:
        self.count += 1
        text = f"t{self.count}."
        self.said[text] = client
        client.say(text)
        return text

    async def step(self) -> None:
        chance = self.random.random()
        index = self.random.randrange(NODES)
        node = self.nodes[index]
        if chance < 0.15:
            self.note(f"{index} cut")
            node.link.cut()
        elif chance < 0.25:
            self.note(f"{index} shut")
            node.link.shut()
        elif chance < 0.35:
            self.note(f"{index} black hole")
            node.link.passes.clear()
        elif chance < 0.55:
            self.note(f"{index} open")
            node.link.open()
        elif chance < 0.65:
            self.note(f"{index} slow")
            node.link.delay = self.random.uniform(0.0, 0.1)
        elif chance < 0.7:
            self.note(f"{index} dies")
            await node.die()
            self.nodes[index] = await Node.begin(self.name, self.port)
            await self.come(self.nodes[index])
        elif chance < 0.8:
            await self.come(node)
        elif chance < 0.85:
            inside = [each for each in self.clients if each.closed is None and each.session.room]
            if len(inside) > NODES:
                self.note("somebody quits")
                self.random.choice(inside).say("/quit")
        elif chance < 0.9:
            self.note("time passes")
            await asyncio.sleep(INTERVALS.lease * self.random.uniform(0.5, 1.5))

    def note(self, what: str) -> None:
        self.log.append(f"after {self.count}: {what}")

    async def settle(self) -> None:
        """All who are there hear one another again."""
        for node in self.nodes:
            await node.storage._bus.wait()
        for node in self.nodes:
            await self.come(node)
        for client in self.clients:
            if client.closed is None:
                await client.wait("* Hola, ")
        last = [self.say(client) for client in self.clients if client.closed is None]
        for client in self.clients:
            await client.wait(*[f" dice: {text}" for text in last if self.said[text] is not client])

    # What has to hold

    def check(self, *histories: Sequence[str]) -> None:
        heard = {client: self.heard(client) for client in self.clients}
        for client, lines in heard.items():
            texts = [line for line in lines if " dice: " in line]
            assert len(set(texts)) == len(texts), f"{client.nick} heard something twice"
            self.check_senders(client, texts)
            self.check_people(client, lines)
        kept = [client for client in self.clients if client.closed is None]
        assert kept, "everybody was closed"
        for one in heard:
            for other in heard:
                self.check_order(one, other, heard[one], heard[other])
        self.check_nothing_lost(kept, heard)
        assert histories[0] == histories[1], f"two histories: {histories}"
        self.check_history(kept, heard, histories[0])

    async def gather(self) -> None:
        """Until all servers agree about who is there, and that those are who has not been closed:
        the lease of one that has died is over by then."""
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            kept = sorted(client.nick for client in self.clients if client.closed is None)
            names = [sorted(node.chat.rooms.general.names) for node in self.nodes]
            if all(each == kept for each in names):
                return
            assert asyncio.get_running_loop().time() < deadline, f"members: {names}, not {kept}"
            await asyncio.sleep(0.02)

    def heard(self, client: Client) -> Sequence[str]:
        """From its greeting on: what all hear, but who says it themselves."""
        lines = client.lines
        start = next((i for i, line in enumerate(lines) if line.startswith("* Hola, ")), None)
        rest = lines[start + 1 :] if start is not None else []
        return [
            line
            for line in rest
            if " dice: " in line or line.endswith((" ha entrado.", " ha salido."))
        ]

    def check_senders(self, client: Client, texts: Sequence[str]) -> None:
        newest: dict[str, int] = {}
        for line in texts:
            nick, _, text = line.partition(" dice: ")
            number = int(text.strip("t."))
            assert newest.get(nick, 0) < number, f"{client.nick} heard {nick} in disorder: {line}"
            newest[nick] = number

    def check_people(self, client: Client, lines: Sequence[str]) -> None:
        """Whoever enters was not there; nobody speaks or leaves who has left."""
        there: dict[str, bool] = {}
        for line in lines:
            nick = line.removeprefix("* ").split()[0]
            entered = line.endswith(" ha entrado.")
            if nick in there:
                assert there[nick] != entered, f"{client.nick} heard: {line}"
            there[nick] = not line.endswith(" ha salido.")

    def check_order(
        self, one: Client, other: Client, heard: Sequence[str], others: Sequence[str]
    ) -> None:
        common = set(heard) & set(others)
        first, second = ([line for line in each if line in common] for each in (heard, others))
        differ = next((pair for pair in zip(first, second) if pair[0] != pair[1]), None)
        assert first == second, (
            f"{one.nick} and {other.nick} heard it in different orders: {differ} {first} {second}"
        )

    def check_nothing_lost(
        self, kept: Sequence[Client], heard: dict[Client, Sequence[str]]
    ) -> None:
        """Who is still there has heard all that anybody has heard since it came in."""
        for client in kept:
            mine = {*heard[client], f"* {client.nick} ha entrado."}
            for other, lines in heard.items():
                start = f"* {client.nick} ha entrado."
                if start in lines:
                    lines = lines[lines.index(start) :]
                elif f"* {other.nick} ha entrado." not in mine:
                    continue
                own = f"{client.nick} dice: "
                missing = [line for line in lines if line not in mine and not line.startswith(own)]
                assert not missing, f"{client.nick}, not as {other.nick}, misses {missing[:5]}"

    def check_history(
        self, kept: Sequence[Client], heard: dict[Client, Sequence[str]], history: Sequence[str]
    ) -> None:
        """It has what has been heard, in that order, and what anybody said who is still there."""
        assert len(set(history)) == len(history), "something stands twice in the history"
        for lines in heard.values():
            texts = [line for line in lines if " dice: " in line]
            same = [line for line in history if line in set(texts)]
            assert texts == same, f"history: {same}, not {texts}"
        for text, client in self.said.items():
            if client in kept and REFUSED not in client.text:
                assert f"{client.nick} dice: {text}" in history, f"{client.nick} said {text}"

    async def history(self, node: Node) -> Sequence[str]:
        past: asyncio.Future[Past] = asyncio.get_running_loop().create_future()
        log = node.chat.log
        log.latest("general", 10_000, log.position, past.set_result)
        return [f"{each.nick} dice: {each.text}" for each in (await past).messages]


async def disturb(nats: Nats, chance: random.Random) -> None:
    """Kill it, and start it on the same store."""
    while True:
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        nats.kill()
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await asyncio.to_thread(nats.start)


async def run(seeds: Sequence[int], nats: Nats, restarts: bool = False) -> None:
    """All of them at once. restarts: nats-server is killed now and then."""

    async def one(seed: int) -> None:
        schedule = Schedule(seed, nats.port)
        try:
            await asyncio.wait_for(schedule.run(), 60)
        except (Exception, asyncio.CancelledError) as error:
            where = "".join(traceback.format_exception(error))
            raise AssertionError(f"seed {seed}: {where}; {schedule.log}") from error

    disturbing = asyncio.ensure_future(disturb(nats, random.Random(seeds[0]))) if restarts else None
    ends = await asyncio.gather(*[one(seed) for seed in seeds], return_exceptions=True)
    if disturbing:
        disturbing.cancel()
    errors = [end for end in ends if end]
    assert not errors, "\n".join(map(str, errors))
