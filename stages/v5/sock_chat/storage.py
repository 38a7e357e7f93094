"""What a server that is alone keeps: history, accounts and bans in one database, and in its memory
who holds which nick."""

import os
import secrets
import time
from collections.abc import Callable
from errno import ENOENT
from typing import cast

from sock_chat import accounts, names
from sock_chat.accounts import LocalAccounts
from sock_chat.config import Config
from sock_chat.counters import Counters
from sock_chat.memory_log import MemoryLog
from sock_chat.people import LocalPeople
from sock_chat.registry import LocalNames
from sock_chat.sqlite_log import SqliteLog
from sock_chat.store import MEMORY, Post, Store, StoreError


class Storage:
    """healthy: whether it can be used now.
    post: calls a function in the loop, from another thread. later: calls it after so many
    seconds. report: takes a line for the operator. Raises StoreError."""

    healthy = True

    def __init__(
        self,
        config: Config,
        post: Post,
        later: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], None],
        counters: Counters,
    ):
        self._store = Store(config.db, post, counters)
        self.log = (
            MemoryLog(secrets.token_hex(8))
            if config.db == MEMORY
            else SqliteLog(self._store, later, config.keep, report)
        )
        self.names = LocalNames(time.monotonic, lambda: secrets.token_urlsafe(16))
        self.accounts = LocalAccounts(self._store, self.names.owned, time.monotonic, post)
        self.people = LocalPeople(self._store, self.names, time.monotonic, time.time, report)

    async def start(self) -> None:
        """In the loop, before anybody is let in. Raises StoreError."""

    async def finish(self, timeout: float) -> None:
        """When all sessions have been stopped."""

    def close(self) -> None:
        """After the loop: write what there is to be written."""
        self.accounts.close()
        self.log.close()
        self._store.close()


def storage_class(config: Config) -> type[Storage]:
    """Where the log and all else that is kept is chosen."""
    if not config.bus:
        return Storage

    from sock_chat.bus_storage import BusStorage  # NATS takes time to import

    return cast("type[Storage]", BusStorage)  # it has the same methods


def forget(path: str, shown: str) -> str | None:
    """Remove the owner of a nick from the database of a server that does not run. Returns why it
    cannot, or, when there is none, that."""
    nick = names.parse(shown)
    assert nick
    if not os.path.exists(path):  # a server would make it
        return f"No se puede usar {path}: {os.strerror(ENOENT)}"
    try:
        store = Store(path, post=lambda call: None)
        count = store.wait(accounts.forget(nick))
        store.close()
    except StoreError as error:
        return str(error)
    return None if count else f"El apodo {shown} no tiene dueño."
