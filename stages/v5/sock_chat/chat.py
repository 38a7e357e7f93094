"""What all sessions share, and what each client brings with it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sock_chat.counters import Counters
from sock_chat.limits import TokenBucket
from sock_chat.log import Log
from sock_chat.rooms import GENERAL, Rooms
from sock_chat.services import Accounts, Names, People


@dataclass
class Chat:
    """clock: tells seconds that never go back. today: tells date and time, in UTC."""

    rooms: Rooms
    log: Log
    names: Names
    accounts: Accounts
    people: People
    counters: Counters
    clock: Callable[[], float]
    today: Callable[[], datetime]
    operators: frozenset[str] = frozenset()  # folded nicks
    naming_time: float = 30.0  # seconds that a client may take to name itself
    rate: float = 0.0  # lines per second; 0: no limit
    burst: int = 20

    def bucket(self) -> TokenBucket | None:
        return TokenBucket(self.rate, self.burst) if self.rate else None


@dataclass(frozen=True)
class Visit:
    """secure: nobody else can read what the client sends, by TLS or from loopback.
    room, since, epoch: where it wants to go on, if it comes back."""

    address: str
    secure: bool
    room: str = GENERAL
    since: int | None = None
    epoch: str = ""
