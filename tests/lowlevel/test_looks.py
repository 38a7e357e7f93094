"""Looking again, on a back end that plays back what it is given: what one turn gathers."""

from __future__ import annotations

from collections.abc import Callable

from lowlevel.reactor import CROWDED, READABLE, WRITABLE, Reactor

Events = list[tuple[int, int]]


class Playback:
    """A back end whose waits return, one after the other, what it is given."""

    def __init__(self) -> None:
        self.waits: list[Events] = []
        self.timeouts: list[float | None] = []

    def add(self, fd: int, interest: int) -> None: ...

    def modify(self, fd: int, interest: int) -> None: ...

    def remove(self, fd: int) -> None: ...

    def wait(self, timeout: float | None) -> Events:
        self.timeouts.append(timeout)
        return self.waits.pop(0) if self.waits else []

    def close(self) -> None: ...


class Speaker:
    """A handler of a made-up descriptor."""

    def __init__(self, fd: int, record: list[object]):
        self.fd = fd
        self.record = record
        self.action: Callable[[], None] = lambda: None

    def fileno(self) -> int:
        return self.fd

    def handle(self, mask: int) -> None:
        self.record.append((self.fd, mask))
        self.action()


ANA, BEA, CARLA = 1001, 1002, 1003


class Stage:
    """A reactor whose turns are recorded: who was called, and when the turn was sent."""

    def __init__(self, looks: int):
        self.backend = Playback()
        self.reactor = Reactor(self.backend, looks)
        self.record: list[object] = []
        self.reactor.before_wait = lambda: self.record.append("sent")
        self.speakers = {fd: Speaker(fd, self.record) for fd in (ANA, BEA, CARLA)}
        for speaker in self.speakers.values():
            self.reactor.register(speaker, READABLE)

    def turn(self, *waits: Events) -> list[object]:
        """The record of a turn in which the back end has this to say, wait for wait."""
        self.backend.waits = list(waits)
        self.record.clear()
        self.backend.timeouts.clear()
        self.reactor.poll(None)
        return list(self.record)

    def close(self) -> None:
        self.reactor.close()


def ready(*fds: int) -> Events:
    return [(fd, READABLE) for fd in fds]


def called(*fds: int) -> list[object]:
    return [(fd, READABLE) for fd in fds]


def test_who_answers_during_a_turn_is_sent_with_it() -> None:
    stage = Stage(looks=2)
    record = stage.turn(ready(ANA, BEA), ready(CARLA), ready(ANA), ready(BEA))
    assert record == [*called(ANA, BEA, CARLA, ANA), "sent"], "two more looks, and not three"
    assert stage.backend.timeouts == [None, 0, 0]
    assert stage.turn(ready(BEA)) == [*called(BEA), "sent"]
    stage.close()


def test_a_look_that_brings_nobody_is_the_last() -> None:
    stage = Stage(looks=8)
    assert stage.turn(ready(ANA, BEA), [], ready(CARLA)) == [*called(ANA, BEA), "sent"]
    assert stage.backend.timeouts == [None, 0]
    stage.close()


def test_no_looks_where_none_are_wanted() -> None:
    stage = Stage(looks=0)
    assert stage.turn(ready(ANA, BEA), ready(CARLA)) == [*called(ANA, BEA), "sent"]
    assert stage.backend.timeouts == [None]
    stage.close()


def test_a_message_that_comes_alone_is_waited_for_once() -> None:
    """Some turns after the last one in which several spoke, and from the start."""
    stage = Stage(looks=2)
    stage.turn(ready(ANA))
    assert stage.backend.timeouts == [None]
    stage.turn(ready(ANA, BEA))
    for _ in range(CROWDED):
        stage.turn(ready(ANA))
        assert stage.backend.timeouts == [None, 0], "others may be about to answer"
    stage.turn(ready(ANA))
    assert stage.backend.timeouts == [None]
    stage.close()


def test_answers_that_only_looking_again_finds_keep_it_looking() -> None:
    stage = Stage(looks=2)
    stage.turn(ready(ANA, BEA))
    for _ in range(3 * CROWDED):
        assert stage.turn(ready(ANA), ready(BEA)) == [*called(ANA, BEA), "sent"]
    stage.close()


def test_a_wait_that_ends_for_a_timer_looks_at_nobody() -> None:
    stage = Stage(looks=2)
    stage.turn(ready(ANA, BEA))
    stage.reactor.call_later(0, lambda: stage.record.append("timer"))
    assert stage.turn([], ready(CARLA)) == ["timer", "sent"]
    stage.close()


def test_timers_come_after_the_looks_and_before_what_is_sent() -> None:
    stage = Stage(looks=1)
    stage.reactor.call_later(0, lambda: stage.record.append("timer"))
    assert stage.turn(ready(ANA, BEA), ready(CARLA)) == [*called(ANA, BEA, CARLA), "timer", "sent"]
    stage.close()


def test_who_is_requeued_waits_for_the_next_turn_and_keeps_its_edge() -> None:
    """Or one that floods would use up a turn of its own in each look."""
    stage = Stage(looks=2)
    ana = stage.speakers[ANA]
    ana.action = lambda: stage.reactor.requeue(ana, READABLE)
    record = stage.turn(ready(ANA, BEA), [(ANA, WRITABLE), (CARLA, READABLE)], ready(ANA, BEA))
    assert record == [*called(ANA, BEA, CARLA, BEA), "sent"]
    ana.action = lambda: None
    assert stage.turn(ready(BEA)) == [(ANA, READABLE | WRITABLE), *called(BEA), "sent"]
    assert stage.backend.timeouts[0] == 0, "who is requeued is not waited for"
    stage.close()


def test_a_stop_in_a_look_ends_the_turn() -> None:
    stage = Stage(looks=2)
    stage.speakers[CARLA].action = stage.reactor.stop
    assert stage.turn(ready(ANA, BEA), ready(CARLA, ANA), ready(BEA)) == called(ANA, BEA, CARLA)
    stage.close()


def test_who_has_left_before_a_look_is_not_called_in_it() -> None:
    stage = Stage(looks=1)
    stage.speakers[BEA].action = lambda: stage.reactor.unregister(stage.speakers[ANA])
    assert stage.turn(ready(ANA, BEA), ready(ANA, CARLA)) == [*called(ANA, BEA, CARLA), "sent"]
    stage.close()
