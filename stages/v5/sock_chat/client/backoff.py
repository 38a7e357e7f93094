"""When to connect again, after a connection is lost or could not be made.

Each failure doubles the longest wait. How much of it is waited is a matter of chance: after a
restart of the server all clients would come back in the same instant, and again after each wait.
"""

from collections.abc import Callable

SHORTEST = 1.0  # seconds: the longest first wait
LONGEST = 60.0
STABLE = 10.0  # a connection that has lasted so long is a success; else its end is one more failure

NEVER = float("inf")


class Backoff:
    """random: a number from 0 to 1, 1 excluded. Times are the caller's, of a monotonic clock."""

    def __init__(self, random: Callable[[], float]):
        self._random = random
        self._longest = SHORTEST  # wait that comes next
        self._since = NEVER  # when the connection was made

    def connected(self, now: float) -> None:
        self._since = now

    def failed(self, now: float) -> float:
        """The connection is lost, or was not made. The seconds to wait before the next attempt."""
        if now - self._since >= STABLE:
            self._longest = SHORTEST
        self._since = NEVER
        longest, self._longest = self._longest, min(LONGEST, 2 * self._longest)
        return longest * (1 + self._random()) / 2
