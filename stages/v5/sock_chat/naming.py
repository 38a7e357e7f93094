"""How a session comes by a nick: at the door, by /nick and by /login."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sock_chat import names
from sock_chat.events import NICK_QUESTION, Ask
from sock_chat.link import Reason
from sock_chat.names import Nick, cut
from sock_chat.script import Late, Line
from sock_chat.services import Answer, Check, Verdict

if TYPE_CHECKING:
    from sock_chat.session import Session

MAX_FAILURES = 3  # wrong passwords of a session
MAX_FORMER = 8  # nicks that a session is known by beside its own
NAME_RULE = "de 1 a 24 letras, cifras, - o _; empieza por una letra."
BAD_NICK = f"Apodo no válido: {NAME_RULE}"
TLS_ONLY = "Solo por TLS."
WRONG_PASSWORD = "Contraseña incorrecta."
TOO_MANY_ATTEMPTS = "Demasiados intentos."


async def take_nick(session: Session, text: str) -> bool:
    """Take the nick that the text is, with its owner's password if it has one."""
    nick = _parse(session, text)
    if nick is None:
        return False
    verdict = await claim(session, nick)
    if verdict.answer is not Answer.OWNED:
        # Who only changes the case of an own nick stays its owner.
        owner = session.owner and session.nick is not None and session.nick.folded == nick.folded
        return await settle(session, nick, verdict, owner)
    return await take_with_password(session, nick)


async def take_with_password(session: Session, nick: Nick) -> bool:
    """At the door, until an empty line; inside, one try."""
    if not session.visit.secure:
        session.refuse(TLS_ONLY)
        return False
    session.tell(Ask("password", f"El apodo {nick.shown} tiene dueño. ¿Contraseña?"))
    while password := await Line(secret=True):
        if await prove(session, nick, password):
            return await take_as_owner(session, nick)
        if session.nick or session.ended:
            return False
    if session.nick is None:
        session.tell(Ask("nick", NICK_QUESTION))
    return False


async def log_in(session: Session, text: str, password: str) -> bool:
    """Nick and password at once."""
    if not session.visit.secure:
        session.refuse(TLS_ONLY)
        return False
    nick = _parse(session, text)
    if nick is None or not await prove(session, nick, password):
        return False
    return await take_as_owner(session, nick)


async def prove(session: Session, nick: Nick, text: str) -> bool:
    """Whether this is the password of the owner. If not, the client has been told."""
    password = names.parse_password(text) or ""  # which nobody has, but takes as long to check

    def ask(done: Callable[[Check], None]) -> None:
        def answer(check: Check) -> None:
            session.chat.counters.passwords[check] += 1  # whoever has left meanwhile counts, too
            done(check)

        session.chat.accounts.check(nick, password, session.address, answer)

    check = await Late(ask)
    if check is Check.NO_OWNER:
        session.refuse(f"El apodo {nick.shown} no tiene dueño.")
    elif check is Check.TOO_MANY:
        if session.nick:
            session.refuse(TOO_MANY_ATTEMPTS)
        else:
            session.finish(Reason.TRIES, TOO_MANY_ATTEMPTS)
    elif check is Check.WRONG:
        session.refuse(WRONG_PASSWORD)
        session.failures += 1
        if session.failures >= MAX_FAILURES:
            session.finish(Reason.TRIES, TOO_MANY_ATTEMPTS)
    return check is Check.RIGHT


async def take_as_owner(session: Session, nick: Nick) -> bool:
    return await settle(session, nick, await claim(session, nick, owner=True), owner=True)


def claim(session: Session, nick: Nick, owner: bool = False) -> Late[Verdict]:
    """Take a nick, beside the one that the session has; settle() comes next."""
    session.claimed = nick.folded

    def undo(verdict: Verdict) -> None:
        if verdict.answer is Answer.TAKEN:
            session.chat.names.release(nick, session)

    return Late(lambda done: session.chat.names.take(nick, session, owner, done), undo)


async def settle(session: Session, nick: Nick, verdict: Verdict, owner: bool) -> bool:
    """Show the nick, if it is the session's now, and give back the one before."""
    session.claimed = ""
    if verdict.answer is Answer.BANNED and not session.nick:
        session.ban()
    elif verdict.answer is not Answer.TAKEN:
        session.refuse(_refusal(nick, verdict))
    else:
        old, session.nick, session.owner = session.nick, nick, owner
        session.deadline = float("inf")
        if old:
            remember(session, old)
        if old and old.shown != nick.shown:
            await _rename(session, old, nick)
        return True
    return False


def remember(session: Session, nick: Nick) -> None:
    """What it has said under this nick is its own under the next as well."""
    session.former = tuple(dict.fromkeys([*session.former, nick.folded]))[-MAX_FORMER:]


async def _rename(session: Session, old: Nick, nick: Nick) -> None:
    room, release = session.room, session.chat.names.release
    assert room  # /nick and /login are commands
    await Late[None](
        lambda done: room.rename(session, old.shown, nick.shown, lambda: done(None)),
        lambda _: release(old, session),
    )
    release(old, session)


def _parse(session: Session, text: str) -> Nick | None:
    nick = names.parse(text)
    if nick is None:
        session.refuse(BAD_NICK)
    elif names.is_reserved(nick):
        session.refuse(f"El apodo {nick.shown} está reservado.")
        return None
    return nick


def _refusal(nick: Nick, verdict: Verdict) -> str:
    if verdict.answer is Answer.ALIKE:
        return f"El apodo {nick.shown} se parece demasiado a {cut(verdict.other)}."
    if verdict.answer is Answer.BANNED:
        return f"El apodo {nick.shown} tiene prohibida la entrada."
    return f"El apodo {nick.shown} está en uso."
