"""Which CPU does what: the server has one of its own, its load has another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def two_cpus() -> tuple[int | None, int | None]:
    """One CPU for the server and one for its load; (None, None) where there are not two."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """This thread, and whatever it starts meanwhile, on one CPU; None: nothing changes."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
