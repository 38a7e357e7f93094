"""The `selectors` module as a back end: whatever the system has, behind one interface.

On Linux its DefaultSelector is epoll, level-triggered, under a table from descriptor to key that
every event is looked up in: that table, and the tuple made from it, is what the module costs
beyond `epoll_backend`. It reports HUP and ERR as whatever was asked about, so a handler that asked
about nothing would never hear of them; here everyone always asks about something.
"""

import selectors
from typing import List, Optional, Tuple

from lowlevel.reactor import READABLE, WRITABLE

FROM_SELECTORS = {
    selectors.EVENT_READ: READABLE,
    selectors.EVENT_WRITE: WRITABLE,
    selectors.EVENT_READ | selectors.EVENT_WRITE: READABLE | WRITABLE,
}
TO_SELECTORS = {ours: theirs for theirs, ours in FROM_SELECTORS.items()}


class SelectorsBackend:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, fd: int, interest: int) -> None:
        self._selector.register(fd, TO_SELECTORS[interest])

    def modify(self, fd: int, interest: int) -> None:
        self._selector.modify(fd, TO_SELECTORS[interest])

    def remove(self, fd: int) -> None:
        self._selector.unregister(fd)

    def wait(self, timeout: Optional[float]) -> List[Tuple[int, int]]:
        return [(key.fd, FROM_SELECTORS[mask]) for key, mask in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()
