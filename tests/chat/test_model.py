"""Sessions in any order of lines, turns, answers and ends, against a model.

The log says in which order everything has happened. From it follows what each session has to have
got, to the line and in order: the past when it came into a room, then all that the others said
while it was there, and nothing of its own. Who is there it knows from the greeting and from who
enters, leaves and changes his name. What it said itself stands in the log in its order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sock_chat.events import Joined, Left, Said
from sock_chat.log import Author
from sock_chat.room import RECENT
from sock_chat.session import NEVER
from tests.chat.world import Client, World

SERVICES = ("log", "history", "names", "people")
NICKS = ("ana", "Ana", "аna", "bea", "carla", "dora", "eva")
clients = st.integers(0, 4)
SAID = re.compile(r"(?:\[.*?\] )?(\S+ dice: .*)")


WELCOME = re.compile(r"\* (?:Hola, \S+\. )?En \S+: (.*)\.")
CHANGE = re.compile(r"\* (\S+) (?:(ha entrado)\.|(ha salido)(?:\.|: .*)|ahora es (\S+)\.)")


def people(lines: list[str]) -> set[str]:
    """Who is in the room, by what somebody in it has been told."""
    present: set[str] = set()
    for line in lines:
        if match := WELCOME.fullmatch(line):
            present = set(match[1].split(", "))
        elif match := CHANGE.fullmatch(line):
            nick, enters, leaves, to = match.groups()
            assert (nick in present) == (not enters), line
            if not enters:
                present.remove(nick)
            if not leaves:
                present.add(to or nick)
    return present


class Chat(RuleBasedStateMachine):
    @initialize(size=st.integers(2, 5), late=st.sets(st.sampled_from(SERVICES)), rate=st.booleans())
    def begin(self, size: int, late: set[str], rate: bool) -> None:
        self.world = World(late, rate=5 if rate else 0, burst=3)
        self.numbers = count()
        self.sent: dict[Client, list[str]] = {}
        self.cut_off: set[Client] = set()
        for number in range(size):
            self.connect(NICKS[(0, 3, 4, 5, 6)[number]])

    def connect(self, nick: str) -> None:
        client = self.world.connect()
        client.send(nick)
        self.sent[client] = []

    def client(self, number: int) -> Client:
        return self.world.clients[-1 - number % min(5, len(self.world.clients))]

    @rule(nick=st.sampled_from(NICKS))
    def come(self, nick: str) -> None:
        if len(self.world.clients) < 9:
            self.connect(nick)

    @rule(number=clients, lines=st.integers(1, 3))
    def say(self, number: int, lines: int) -> None:
        client = self.client(number)
        for _ in range(lines):
            text = f"{next(self.numbers)}th"  # no nick, should it come to the door
            client.send(text)
            self.sent[client].append(text)

    @rule(
        number=clients,
        line=st.one_of(
            st.sampled_from(NICKS).map("/nick {}".format),
            st.sampled_from(NICKS).map("/pm {} psst".format),
            st.sampled_from(["cine", "café", "general"]).map("/join {}".format),
            st.sampled_from(["/list", "/rooms", "/nope", ""]),
        ),
    )
    def do(self, number: int, line: str) -> None:
        self.client(number).send(line)

    @rule(number=clients, how=st.sampled_from(["quit", "finish_input", "lost", "kick"]))
    def leave(self, number: int, how: str) -> None:
        client = self.client(number)
        if how == "quit":
            client.send("/quit adiós")
        elif how == "finish_input":
            client.session.finish_input()
        else:
            self.cut_off.add(client)
            client.session.kick("") if how == "kick" else client.session.lost()

    @rule()
    def run_sessions(self) -> None:
        self.world.run()

    @rule()
    def flush(self) -> None:
        self.world.rooms.flush()

    @rule(service=st.sampled_from(SERVICES))
    def answer(self, service: str) -> None:
        self.world.answer(service)

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock += seconds

    @invariant()
    def nobody_has_two_nicks_or_another_ones(self) -> None:
        if hasattr(self, "world"):
            holders = [client.session for client in self.world.clients if client.session.nick]
            folded = [s.nick.folded for s in holders if s.nick and not s.ended]
            assert len(folded) == len(set(folded))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.turn()
        while any(0 < wait < NEVER for wait in self.world.run()):
            self.world.clock += 1
            self.world.turn()
        expected, spoken = self.expected()
        for client in self.world.clients:
            lines = b"".join(client.writes).decode().split("\n")[:-1]
            messages = [match[1] for line in lines if (match := SAID.match(line))]
            wanted = expected[client.session]
            if client in self.cut_off:
                wanted = wanted[: len(messages)]
            assert messages == wanted
            own, sent = spoken[client.session], self.sent[client]
            first = sent.index(own[0]) if own else len(sent)  # what came before went to the door
            assert own == sent[first : first + len(own)]
            present = people(lines)
            if client.session.room and not client.session.ended:
                assert sorted(present) == sorted(client.session.room.names)
            if client.session.room and not client.session.ended:
                assert own == sent[len(sent) - len(own) :]
            assert not any("psst" in message.text for _, message in self.world.log.messages)

    def expected(self) -> tuple[dict[Author, list[str]], dict[Author, list[str]]]:
        """What each has to have heard, and what each has said, by the log."""
        members: dict[str, list[Author]] = defaultdict(list)
        past: dict[str, list[str]] = defaultdict(list)
        lines: dict[Author, list[str]] = defaultdict(list)
        spoken: dict[Author, list[str]] = defaultdict(list)
        for turn in self.world.log.turns:
            for author, event in turn.entries:
                if isinstance(event, Joined):
                    members[turn.room].append(author)
                    lines[author] += past[turn.room][-RECENT:]
                elif isinstance(event, Left):
                    members[turn.room].remove(author)
                elif isinstance(event, Said):
                    line = event.line().rstrip("\n")
                    past[turn.room].append(line)
                    spoken[author].append(event.text)
                    for member in members[turn.room]:
                        if member is not author:
                            lines[member].append(line)
        return lines, spoken


Chat.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
test_model = Chat.TestCase
