"""What the commands do. How they are found, and /help, is in `table`.

Each is a script (`script`) that gets its session and the words that its usage names. What it tells
is an answer, a Notice, or a refusal, an Error.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sock_chat import names
from sock_chat.door import enter, leave
from sock_chat.events import History, Notice, Private
from sock_chat.log import Past
from sock_chat.names import Nick, cut
from sock_chat.naming import NAME_RULE, TLS_ONLY, log_in, take_nick
from sock_chat.script import Late
from sock_chat.services import Ban
from sock_chat.table import command, number

if TYPE_CHECKING:
    from sock_chat.session import Session

HISTORY = 50
MAX_HISTORY = 200
BAN_MINUTES = 60
NOT_KEPT = "Ahora no se puede guardar."
BAD_PASSWORD = "Una contraseña tiene de 8 a 128 caracteres."


@command("/nick NUEVO", "cambia tu apodo")
async def nick(session: Session, text: str) -> None:
    await take_nick(session, text)


@command("/login APODO CONTRASEÑA", "entra con un apodo que es tuyo", at_door=True)
async def login(session: Session, text: str, password: str) -> None:
    await log_in(session, text, password)


@command("/list", "dice quién está en la sala")
async def list_(session: Session) -> None:
    room = session.room
    assert room
    session.tell(Notice(f"En {room.name} ({room.count}): {', '.join(room.names)}"))


@command("/pm APODO TEXTO", "dice algo a uno solo")
async def pm(session: Session, name: str, text: str) -> None:
    assert session.room and session.nick
    session.room.flush()  # what has been said before is heard before
    to, people = names.parse(name), session.chat.people
    event = Private(session.nick.shown, text, session.chat.today())
    if not (to and await Late[bool](lambda done: people.tell(to, event, done))):
        session.refuse(f"No hay nadie llamado {cut(name)}.")


@command("/quit [TEXTO]", "se va", at_door=True)
async def quit_(session: Session, text: str = "") -> None:
    session.quit(text)


@command("/join SALA", "pasa a otra sala, o hace una nueva")
async def join(session: Session, text: str) -> None:
    name, rooms = names.parse_room(text), session.chat.rooms
    assert session.room
    if name is None:
        session.refuse(f"Sala no válida: {NAME_RULE}")
    elif name == session.room.name:
        await list_(session)
    elif (room := rooms.open(name)) is None:
        session.refuse("No caben más salas.")
    else:
        try:
            await leave(session)
        except GeneratorExit:  # the session has ended on the way
            rooms.close(room)
            raise
        await enter(session, room)


@command("/rooms", "dice qué salas hay")
async def rooms_(session: Session) -> None:
    counts = [f"{name} ({count})" for name, count in session.chat.rooms.counts()]
    session.tell(Notice(f"Salas: {', '.join(counts)}"))


@command("/history [N]", "repite lo último que se ha dicho")
async def history(session: Session, count: str = str(HISTORY)) -> None:
    assert session.room
    session.room.flush()
    room, log = session.room.name, session.chat.log
    newest = min(number(count), MAX_HISTORY)
    past = await Late[Past](lambda done: log.latest(room, newest, log.position, done))
    session.tell(History(past.messages))


@command("/register CONTRASEÑA", "hace tuyo el apodo que llevas")
async def register(session: Session, text: str) -> None:
    nick, password, accounts = session.nick, names.parse_password(text), session.chat.accounts
    assert nick
    if not session.visit.secure:
        session.refuse(TLS_ONLY)
    elif session.owner:
        session.refuse(f"El apodo {nick.shown} ya es tuyo.")
    elif password is None:
        session.refuse(BAD_PASSWORD)
    else:
        fresh = await Late[bool | None](lambda done: accounts.register(nick, password, done))
        if fresh:
            session.owner = True
            session.tell(Notice(f"El apodo {nick.shown} es tuyo."))
        else:
            session.refuse(NOT_KEPT if fresh is None else f"El apodo {nick.shown} está en uso.")


@command("/password NUEVA", "cambia tu contraseña")
async def password_(session: Session, text: str) -> None:
    nick, password, accounts = session.nick, names.parse_password(text), session.chat.accounts
    assert nick
    if not session.visit.secure:
        session.refuse(TLS_ONLY)
    elif not session.owner:
        session.refuse(f"El apodo {nick.shown} no tiene dueño.")
    elif password is None:
        session.refuse(BAD_PASSWORD)
    else:
        changed = await Late[bool | None](lambda done: accounts.change(nick, password, done))
        _tell_owner(session, changed, "Contraseña cambiada.")
        session.owner = changed is not False


@command("/unregister", "deja de ser tuyo el apodo que llevas")
async def unregister(session: Session) -> None:
    nick, accounts = session.nick, session.chat.accounts
    assert nick
    removed: bool | None = False
    if session.owner:
        removed = await Late[bool | None](lambda done: accounts.unregister(nick, done))
    _tell_owner(session, removed, f"El apodo {nick.shown} ya no tiene dueño.")
    session.owner = removed is None


def _tell_owner(session: Session, answer: bool | None, success: str) -> None:
    assert session.nick
    if answer:
        session.tell(Notice(success))
    else:
        no_owner = f"El apodo {session.nick.shown} no tiene dueño."
        session.refuse(NOT_KEPT if answer is None else no_owner)


@command("/kick APODO [RAZÓN]", "echa a alguien", for_operators=True)
async def kick(session: Session, name: str, reason: str = "") -> None:
    who, people = names.parse(name), session.chat.people
    if not (who and await Late[bool](lambda done: people.kick(who, reason, done))):
        session.refuse(f"No hay nadie llamado {cut(name)}.")


@command("/ban APODO|DIRECCIÓN [MINUTOS]", "prohíbe la entrada", for_operators=True)
async def ban(session: Session, name: str, minutes: str = str(BAN_MINUTES)) -> None:
    who, people, count = _who(name), session.chat.people, number(minutes)
    bans = who and await Late[Sequence[Ban]](lambda done: people.ban(who, count, session, done))
    if bans:
        session.tell(Notice(_listed(bans)))
    else:
        session.refuse(f"No hay nadie llamado {cut(name)}.")


@command("/unban APODO|DIRECCIÓN", "la vuelve a permitir", for_operators=True)
async def unban(session: Session, name: str) -> None:
    who, people = _who(name), session.chat.people
    if who and await Late[bool](lambda done: people.unban(who, done)):
        session.tell(Notice(f"{cut(name)} puede entrar."))
    else:
        session.refuse(f"{cut(name)} no tiene prohibida la entrada.")


@command("/bans", "dice quién la tiene prohibida", for_operators=True)
async def bans(session: Session) -> None:
    bans = await Late[Sequence[Ban]](session.chat.people.bans)
    session.tell(Notice(_listed(bans) if bans else "Nadie tiene prohibida la entrada."))


def _who(text: str) -> Nick | str | None:
    """Whom a ban is for. An address has a `.` or a `:`, a nick has not. /bans shows some with the
    length of a prefix."""
    try:
        return str(ip_address(text.removesuffix("/64")))
    except ValueError:
        return names.parse(text)


def _listed(bans: Sequence[Ban]) -> str:
    return f"Prohibidos: {', '.join([f'{ban.who} ({ban.minutes} min)' for ban in bans])}"
