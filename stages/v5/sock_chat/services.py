"""What a session asks for and has to wait for: names, accounts, other people's sessions, bans.

Every question takes `done`, which is called once with the answer: at once, where all is in the
memory of this process, or much later, when a password has been hashed or another server has
answered. The session may have ended by then.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from sock_chat.events import Private
from sock_chat.names import Nick


class Holder(Protocol):
    """Who holds a nick: a session."""

    @property
    def address(self) -> str: ...

    @property
    def ended(self) -> bool:
        """Whether it has gone. It has its nick until it releases it, but not against others."""

    @property
    def nick(self) -> Nick | None:
        """Which it shows; of one that has ended, the last."""

    @property
    def owner(self) -> bool:
        """Whether it has given the password of its nick."""

    @property
    def room_name(self) -> str:
        """Where it is; of one that has ended, where it was."""

    @property
    def former(self) -> tuple[str, ...]:
        """Folded nicks that it had before."""

    def displace(self, nick: Nick) -> None:
        """It holds this nick no more: the owner has come in from elsewhere."""


class Answer(Enum):
    TAKEN = auto()
    IN_USE = auto()
    ALIKE = auto()  # too much like another one, in use or with an owner
    OWNED = auto()  # takes its owner's password
    BANNED = auto()


class Verdict(NamedTuple):
    answer: Answer
    other: str = ""  # the nick that it is too much like


class Return(NamedTuple):
    """A session that goes on where an earlier one was cut."""

    verdict: Verdict
    nick: Nick
    room: str
    owner: bool
    former: tuple[str, ...] = ()  # folded nicks that it had before


class Names(Protocol):
    """Who holds which nick. The check and the taking are one step."""

    def take(
        self, nick: Nick, holder: Holder, owner: bool, done: Callable[[Verdict], None]
    ) -> None:
        """Take a nick, beside what the holder has. owner: it has proved to be; whoever else holds
        the nick is displaced. A holder may take its own nick in another spelling."""

    def release(self, nick: Nick, holder: Holder) -> None:
        """Give back a nick; nothing happens if it is not the holder's in this spelling."""

    def token(self, holder: Holder) -> str:
        """What resume() takes, until a while after the holder has released its nick."""

    def resume(self, token: str, holder: Holder, done: Callable[[Return | None], None]) -> None:
        """Take the nick of the session that was given the token. Should it still be there, it is
        displaced. If it was the owner, so is this one. None: it is nobody's,
        or has been for too long."""


class Check(Enum):
    RIGHT = auto()
    WRONG = auto()
    NO_OWNER = auto()
    TOO_MANY = auto()  # attempts from this address: the password was not looked at


class Accounts(Protocol):
    """Which nicks have an owner. Passwords come in names.parse_password()'s form. None: it cannot
    be kept now, and all stays as it was."""

    def check(
        self, nick: Nick, password: str, address: str, done: Callable[[Check], None]
    ) -> None: ...

    def register(self, nick: Nick, password: str, done: Callable[[bool | None], None]) -> None:
        """False: it has an owner already."""

    def change(self, nick: Nick, password: str, done: Callable[[bool | None], None]) -> None:
        """False: it has no owner any more."""

    def unregister(self, nick: Nick, done: Callable[[bool | None], None]) -> None: ...


class Ban(NamedTuple):
    who: str  # a nick, or an address
    minutes: int  # that are left


class People(Protocol):
    """Those who are in, wherever they are connected. A banned one is a nick or an address, which
    is text. False and an empty list: nobody is meant."""

    def tell(self, nick: Nick, event: Private, done: Callable[[bool], None]) -> None: ...

    def kick(self, nick: Nick, reason: str, done: Callable[[bool], None]) -> None:
        """Call Session.kick() of who holds the nick."""

    def ban(
        self,
        who: Nick | str,
        minutes: int,
        by: Holder,
        done: Callable[[Sequence[Ban]], None],
    ) -> None:
        """Ban an address; or, for a nick, the address of its holder, and the nick itself if it has
        an owner. Session.ban() is called of all whom that meets, but of who gave the order."""

    def unban(self, who: Nick | str, done: Callable[[bool], None]) -> None: ...

    def bans(self, done: Callable[[Sequence[Ban]], None]) -> None: ...

    def bars(self, address: str) -> bool:
        """Whether nobody may come in from there."""
