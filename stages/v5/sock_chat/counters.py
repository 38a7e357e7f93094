"""What is counted while the server works: plain numbers, an addition each where something happens,
which `metrics` reads when somebody asks for them. They only grow, and what they are counted by is
known beforehand: no client can add a key.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from sock_chat.link import Kind, Reason
from sock_chat.services import Check

COMMIT_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


class Histogram:
    """bounds: the upper ends of the buckets, growing; what is beyond has one of its own."""

    def __init__(self, bounds: Sequence[float]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class Counters:
    """Of one server. The thread of the database counts commits, the loop all the rest."""

    accepted: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    closed: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    tls_handshakes: int = 0  # begun
    tls_failures: int = 0
    websocket_handshakes: int = 0  # begun
    websocket_failures: int = 0
    passwords: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))
    turns: int = 0
    messages: int = 0
    deliveries: int = 0
    limited: float = 0.0  # seconds
    commits: Histogram = field(default_factory=lambda: Histogram(COMMIT_TIMES))
    refused_commits: int = 0
    lost: int = 0  # messages that the history does not have
    errors: int = 0  # of the server's own
