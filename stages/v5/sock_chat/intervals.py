"""How often and how long, between a server and NATS."""

from typing import NamedTuple


class Intervals(NamedTuple):
    """In seconds. Away is noticed within 5 s: see `ping` and `heartbeat`."""

    connect: float = 4.0  # at the start, then it gives up
    start: float = 20.0  # to come to know all that there is
    ping: float = 1.0
    heartbeat: float = 1.0
    answer: float = 1.0  # what NATS is waited for
    grace: float = 1.0  # an outage that nobody hears of
    retry: float = 0.25
    renew: float = 5.0  # the lease
    lease: float = 20.0
    members: float = 3.0  # what others are waited for at the start
    resume: float = 60.0  # for which a session can be gone on with


INTERVALS = Intervals()  # of this process
