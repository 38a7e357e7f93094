"""How a session gets into a room, and out of it: first by the door, where it needs a nick."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sock_chat import names, table
from sock_chat.events import NICK_QUESTION, Ask, Greeting, Left, Welcome
from sock_chat.naming import remember, settle, take_nick, take_with_password
from sock_chat.room import Arrival, Room
from sock_chat.rooms import GENERAL
from sock_chat.script import Late, Line
from sock_chat.services import Answer, Return

if TYPE_CHECKING:
    from sock_chat.session import Session


async def come_in(session: Session) -> None:
    if session.chat.people.bars(session.address):
        session.ban()
        return
    session.tell(Ask("nick", f"Bienvenido a sock_chat. {NICK_QUESTION}"))
    await _name(session)
    await _enter(session, session.visit.room)


async def resume(session: Session, token: str) -> None:
    """Come in as an earlier session of the same client, to where it was."""

    def undo(back: Return | None) -> None:
        if back and back.verdict.answer is Answer.TAKEN:
            session.chat.names.release(back.nick, session)

    back = await Late(lambda done: session.chat.names.resume(token, session, done), undo)
    if back:
        session.former = back.former
        remember(session, back.nick)
    if back is None:
        session.tell(Ask("nick", NICK_QUESTION))
    elif back.verdict.answer is Answer.OWNED:
        await take_with_password(session, back.nick)
    else:
        await settle(session, back.nick, back.verdict, back.owner)
    await _name(session)
    await _enter(session, back.room if back else session.visit.room)


async def _name(session: Session) -> None:
    while not (session.nick or session.ended):
        line = await Line()
        if table.is_for_the_door(line):
            await table.obey(session, line)
        else:
            await take_nick(session, line)


async def _enter(session: Session, wanted: str) -> None:
    if session.chat.people.bars(session.address):  # since it came to the door
        session.ban()
    if not session.ended:
        rooms = session.chat.rooms
        room = rooms.open(names.parse_room(wanted) or GENERAL) or rooms.open(GENERAL)
        assert room  # there is always a place in this one
        await enter(session, room, Greeting)


async def enter(session: Session, room: Room, greeting: type[Welcome] = Welcome) -> None:
    """Enter a room that has been opened. Over when the welcome has been written."""
    assert session.nick
    session.room, session.room_name = room, room.name
    visit, link, token = session.visit, session.link, ""
    if link.codec.resumes:
        token = session.chat.names.token(session)
    arrival = Arrival(session.nick.shown, greeting, token=token)
    if greeting is Greeting and room.name == names.parse_room(visit.room):
        arrival = arrival._replace(since=visit.since, epoch=visit.epoch)
    await Late[None](lambda done: room.enter(session, link, arrival, lambda: done(None)))


async def leave(session: Session) -> None:
    """Leave the room. Over when all have heard of it."""
    room, nick = session.room, session.nick
    assert room and nick
    session.room = None
    event = Left(nick.shown)
    await Late[None](lambda done: room.leave(session, event, True, lambda: done(None)))
