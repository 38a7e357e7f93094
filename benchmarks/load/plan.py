"""What the processes of load.py share: the plan, the histograms, the errors."""

from __future__ import annotations

import signal
from collections import defaultdict
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LoadError(Exception):
    """There is no result, and the text says why."""


class Closed(LoadError):
    """The server has closed connections: how many, and one of them."""

    def __init__(self, count: int, name: str):
        super().__init__(count, name)
        self.count, self.name = count, name


@dataclass(frozen=True)
class Plan:
    """What is asked for. The first `warm_up` seconds of the schedule are checked, not measured."""

    clients: int
    senders: int
    rate: float
    size: int
    warm_up: float
    duration: float
    deadline: float
    workers: int

    @property
    def warm_up_messages(self) -> int:
        return round(self.rate * self.warm_up)

    @property
    def messages(self) -> int:
        return round(self.rate * self.duration)

    @property
    def total(self) -> int:
        return self.warm_up_messages + self.messages

    def share(self, of: int, worker: int) -> int:
        """How many of the clients or senders one worker holds; sender s is at worker
        s % workers."""
        return of // self.workers + (worker < of % self.workers)

    def said_by(self, sender: int) -> int:
        """How many messages a sender has to say."""
        return self.total // self.senders + (sender < self.total % self.senders)


def histogram() -> HdrHistogram:
    """Microseconds, from 1 to a day, to three digits."""
    return HdrHistogram(1, 86_400_000_000, 3)


class Counts(defaultdict[int, int]):
    """Microseconds, counted in a dict, which costs a tenth of HdrHistogram.record_value(). Values
    are rounded down to the histogram's own buckets (11 bits), so that it stays small."""

    def __init__(self) -> None:
        super().__init__(int)

    def add(self, seconds: float) -> None:
        micro = int(seconds * 1e6)
        if micro >= 2048:
            shift = micro.bit_length() - 11
            micro = micro >> shift << shift
        self[micro] += 1

    def encode(self) -> bytes:
        result = histogram()
        for value, count in self.items():
            result.record_value(value, count)
        encoded: bytes = result.encode()
        return encoded
