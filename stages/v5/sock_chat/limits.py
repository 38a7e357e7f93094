"""What one client, one address or one nick may do in a while. None of them has a clock: whoever
asks says what time it is, in seconds that never go back."""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Generic, TypeVar

THROTTLED = 10  # failed passwords of an address within THROTTLE_TIME
THROTTLE_TIME = 60.0

Value = TypeVar("Value")


def party(address: str) -> str:
    """Who is behind an address: of IPv6, one customer has a whole /64. Where it is no address (a
    name, a path), it stands for itself."""
    parsed = plain_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
    return str(parsed or address)


def is_loopback(address: str) -> bool:
    parsed = plain_address(address)
    return parsed is not None and parsed.is_loopback


def plain_address(address: str) -> IPv4Address | IPv6Address | None:
    """Without a zone, and IPv4 as IPv4. None: it is no address."""
    try:
        parsed = ip_address(address.partition("%")[0])  # fe80::1%eth0
    except ValueError:
        return None
    # A socket for both kinds shows IPv4 clients as ::ffff:192.0.2.1.
    return getattr(parsed, "ipv4_mapped", None) or parsed


class TokenBucket:
    """`burst` lines at once, and `rate` a second."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int):
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled = 0.0  # when it had so many

    def take(self, now: float) -> float:
        """Take a token; or, when there is none, how long until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 0.999:  # what rounding takes away would cost another wait
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class ConnectionLimiter:
    """How many connections an address may have. 0: any number."""

    def __init__(self, limit: int):
        self._limit = limit
        self._count: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Count one more, unless it is one too many. Whoever is admitted leaves once."""
        if not self._limit or is_loopback(address):
            return True
        key = party(address)
        if self._count[key] >= self._limit:
            return False
        self._count[key] += 1
        return True

    def leave(self, address: str) -> None:
        if not self._limit or is_loopback(address):
            return
        key = party(address)
        self._count[key] -= 1
        if not self._count[key]:
            del self._count[key]


class Throttle:
    """Passwords that an address may try. An attempt counts as failed from its beginning, or many
    at once would all pass before the first has failed."""

    def __init__(self, limit: int = THROTTLED, time: float = THROTTLE_TIME):
        self._limit = limit
        self._time = time
        self._failed: dict[str, deque[float]] = {}  # when, the oldest first; the last tried last

    def begin(self, address: str, now: float) -> bool:
        """Whether a password may be looked at. If so it has failed, until succeed() is called."""
        self._forget(now)
        key = party(address)
        failed = self._failed.pop(key, None) or deque()
        self._failed[key] = failed
        while failed and failed[0] <= now - self._time:
            failed.popleft()
        if len(failed) >= self._limit:
            return False
        failed.append(now)
        return True

    def succeed(self, address: str, began: float) -> None:
        """The attempt that began at that time has not failed."""
        failed = self._failed.get(party(address))
        if failed and began in failed:
            failed.remove(began)

    def _forget(self, now: float) -> None:
        for key, failed in list(islice(self._failed.items(), 2)):  # no more than come in
            if not failed or failed[-1] <= now - self._time:
                del self._failed[key]


class Recent(Generic[Value]):
    """Remembers what happened, each thing for `time` seconds from when it was last put in."""

    def __init__(self, time: float):
        self._time = time
        self._values: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()  # by their ends

    def get(self, key: Hashable, now: float) -> Value | None:
        while self._values and next(iter(self._values.values()))[0] <= now:
            self._values.popitem(last=False)
        known = self._values.get(key)
        return known[1] if known else None

    def drop(self, key: Hashable) -> None:
        self._values.pop(key, None)

    def put(self, key: Hashable, value: Value, now: float) -> None:
        self._values[key] = now + self._time, value
        self._values.move_to_end(key)
