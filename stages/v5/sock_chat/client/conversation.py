"""What a client knows of the chat, learnt from the lines that the server says, sans-IO.

Lines go in as receive(), what is typed as say(); both return the lines to send for it. A line that
begins with "* " is the server's own, and nobody can imitate it: no nick has a `*` or a space.

A connection may be lost and made anew: then the nick and the room are taken again.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from sock_chat.codec import TOO_LONG
from sock_chat.events import NICK_QUESTION
from sock_chat.naming import TOO_MANY_ATTEMPTS, WRONG_PASSWORD
from sock_chat.rooms import GENERAL
from sock_chat.table import find

# The last word of a connection after which it would be wrong to come back.
FINAL = re.compile(
    r"\* (?:Te han echado(?:\.|: .*)|Tienes prohibida la entrada\.|Has entrado desde otro sitio\."
    rf"|{re.escape(TOO_MANY_ATTEMPTS)})"
)
STILL_ASKED = (f"* {WRONG_PASSWORD}", f"* {TOO_LONG}")


class Conversation:
    def __init__(self) -> None:
        self.nick = ""  # that one has, or had when the connection was lost
        self.room = GENERAL
        self.nicks: set[str] = set()  # of the others, as far as one knows
        self.is_in = False  # past the door
        self.asks_password = False
        self.leaves = False  # /quit has been said
        self.wants_nick = False  # its own, which somebody has: perhaps a connection that was cut
        self._lists = False  # the next line of the server's goes on with names
        self._last = ""

    # From the server

    def receive(self, line: str) -> list[str]:
        self._last = line
        if self._lists and line.startswith("* "):
            self._add_names(line[2:])
            return []
        if self.asks_password and not self.is_in and line.startswith("* "):
            self.asks_password = line in STILL_ASKED
        for sentence in SENTENCES:
            if match := sentence.pattern.fullmatch(line):
                return sentence.learn(self, *match.groups()) or []
        return []

    def lost(self) -> bool:
        """The connection has ended. Whether to come back."""
        returns = bool(self.nick) and not self.leaves and not FINAL.fullmatch(self._last)
        self.is_in = self.asks_password = self.wants_nick = self._lists = False
        return returns

    def _welcomed(self) -> list[str]:
        return [self.nick] if self.nick else []

    def _asked(self) -> None:
        self.asks_password, self.wants_nick = True, False

    def _refused(self, nick: str) -> None:
        self.wants_nick = nick == self.nick and not self.is_in

    def _entered(self, nick: str | None, room: str, names: str) -> list[str]:
        returns, self.is_in = not self.is_in, True
        self.asks_password = self.wants_nick = False
        self.nick = nick or self.nick
        self.nicks.clear()
        self._add_names(names)
        if returns and room != self.room:
            return [f"/join {self.room}"]
        self.room = room
        return []

    def _add_names(self, text: str) -> None:
        """A list goes on in the next line where this one ends in a comma."""
        self._lists = text.endswith(",")
        names = re.sub(r"(?: y \d+ más)?[.,]?$", "", text).split(", ")
        self.nicks.update(name for name in names if " " not in name and name != self.nick)

    def _learn(self, nick: str) -> None:
        if nick != self.nick:
            self.nicks.add(nick)

    def _left(self, nick: str) -> None:
        self.nicks.discard(nick)

    def _renamed(self, nick: str, to: str) -> None:
        if nick == self.nick:
            self.nick = to
        else:
            self._left(nick)
            self._learn(to)

    # From the keyboard

    @property
    def prompt(self) -> str:
        if self.asks_password:
            return "Contraseña: "
        return f"{self.nick}> " if self.is_in else "> "

    def say(self, text: str) -> list[str]:
        """Several lines come of a paste. Of what is typed for a password only the first is sent:
        whatever the others are, they are not to be said aloud."""
        self.wants_nick = False
        if self.asks_password:
            password = text.partition("\n")[0]
            # Inside there is one try. At the door the answer says what comes next.
            self.asks_password = bool(password) and not self.is_in
            return [password]
        lines = [line for line in text.split("\n") if line]
        commands = [find(line) for line in lines if line.startswith("/")]
        self.leaves = any(command is not None and command.name == "quit" for command in commands)
        return lines


class Sentence(NamedTuple):
    pattern: re.Pattern[str]
    learn: Callable[..., list[str] | None]  # takes the conversation and the groups


SENTENCES = [
    Sentence(re.compile(pattern), learn)
    for pattern, learn in (
        (r"(?!\*)(\S+) (?:te )?dice: .*", Conversation._learn),
        (r"\* (\S+) ha entrado\.", Conversation._learn),
        (r"\* (\S+) ha salido(?:\.|: .*)", Conversation._left),
        (r"\* (\S+) ahora es (\S+)\.", Conversation._renamed),
        (r"\* (?:Hola, (\S+)\. )?En (\S+)(?: \(\d+\))?: (.*)", Conversation._entered),
        (r"\* El apodo \S+ tiene dueño\. ¿Contraseña\?", Conversation._asked),
        (r"\* El apodo (\S+) está en uso\.", Conversation._refused),
        (rf"\* Bienvenido a sock_chat\. {re.escape(NICK_QUESTION)}", Conversation._welcomed),
    )
]
