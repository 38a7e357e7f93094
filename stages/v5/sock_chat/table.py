"""The table of commands: how a line that begins with "/" is taken apart, and who may say it.

The words of a usage are the grammar. A word is a word of the line, [one in brackets] may be
missing, and one of REST is all that is left of the line, spaces included.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from sock_chat.events import Ack, Notice
from sock_chat.names import cut

if TYPE_CHECKING:
    from sock_chat.session import Session

REST = {"TEXTO", "RAZÓN", "CONTRASEÑA", "NUEVA"}
MAX_DIGITS = 7

Handler = Callable[..., Coroutine[Any, Any, None]]


class BadUsage(Exception):
    """Too few words, too many, or a bad number."""


class Command(NamedTuple):
    name: str
    arguments: str
    help: str
    handler: Handler  # takes the session and the arguments
    at_door: bool
    for_operators: bool

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()

    def split(self, text: str) -> list[str]:
        """The arguments in what stands after the name and a space."""
        values = []
        for word in self.arguments.split():
            if word.strip("[]") in REST:
                value, text = text, ""
            else:
                value, _, text = text.lstrip(" ").partition(" ")
            if value.strip():
                values.append(value)
            elif not word.startswith("["):
                raise BadUsage
        if text.strip():
            raise BadUsage
        return values


TABLE: dict[str, Command] = {}


def command(
    usage: str, help: str, at_door: bool = False, for_operators: bool = False
) -> Callable[[Handler], Handler]:
    """Put the function in the table."""
    name, _, arguments = usage.removeprefix("/").partition(" ")

    def add(handler: Handler) -> Handler:
        TABLE[name] = Command(name, arguments, help, handler, at_door, for_operators)
        return handler

    return add


def find(line: str) -> Command | None:
    return TABLE.get(line.partition(" ")[0].removeprefix("/").lower())


def is_for_the_door(line: str) -> bool:
    command = find(line) if line.startswith("/") else None
    return command is not None and command.at_door


async def obey(session: Session, line: str) -> None:
    """Do what a line that begins with "/" says."""
    name, _, text = line.partition(" ")
    command = find(line)
    if command is None:
        session.refuse(f"No conozco {cut(name)}. /help dice lo que hay.")
    elif command.for_operators and not session.is_operator:
        session.refuse("Solo para operadores.")
    else:
        try:
            await command.handler(session, *command.split(text))
        except BadUsage:
            session.refuse(f"Uso: {command.usage}")


async def obey_once(session: Session, line: str, command_id: str) -> None:
    """The same, for a line with an id: what has been done without a refusal is acknowledged."""
    assert session.nick
    repeats, nick = session.chat.rooms.repeats, session.nick.folded
    if not repeats.begin((nick, *session.former), command_id, session.link):
        return
    refusals, ack = session.refusals, None
    try:
        await obey(session, line)
        if session.refusals == refusals:
            ack = Ack(session.chat.log.position, session.chat.today(), command_id)
    finally:  # the session may have ended on the way
        if ack:
            repeats.finish(nick, ack)
            session.tell(ack)
        else:
            repeats.drop(nick, command_id)


def number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text)):
        raise BadUsage
    return int(text)


@command("/help", "dice lo que hay", at_door=True)
async def help_(session: Session) -> None:
    lines = [f"{command.usage}: {command.help}" for command in TABLE.values()]
    session.tell(Notice("\n".join(lines)))
