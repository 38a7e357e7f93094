"""lowlevel's room without any socket: who is told what, in how many sends, and which objects. What
newcomers are told: test_transcript.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lowlevel.room import Flush, Room, without


class Guest:
    """A member that takes what it is given, or no more than `takes`, or raises."""

    def __init__(self, name: str):
        self.name = name
        self.takes = 1 << 30
        self.error: OSError | None = None
        self.told: list[bytes] = []
        self.kept: list[tuple[bytes, int, OSError | None]] = []
        self.on_transmit: Callable[[], None] = lambda: None

    def transmit(self, data: bytes) -> int:
        self.on_transmit()
        if self.error:
            raise self.error
        self.told.append(data)
        return min(len(data), self.takes)

    def fell_short(self, data: bytes, sent: int, error: OSError | None = None) -> None:
        self.kept.append((data, sent, error))

    def close(self, reason: str = "") -> None:
        raise AssertionError(reason)


def fill(flush: Flush, count: int) -> tuple[Room, list[Guest]]:
    room, guests = Room(flush, None), [Guest(f"g{number}") for number in range(count)]
    for guest in guests:
        room.enter(guest)
    return room, guests


def test_a_turn_is_one_send_for_each_and_one_object_for_the_silent() -> None:
    room, (ana, bea, *silent) = fill(Flush.TURN, 6)
    room.say(ana, b"one\ntwo\n")
    room.say(bea, b"three\n")
    room.say(ana, b"four\n")
    assert not any(guest.told for guest in (ana, bea, *silent)), "not before the turn ends"
    room.flush()
    log = b"g0 dice: one\ng0 dice: two\ng1 dice: three\ng0 dice: four\n"
    assert [guest.told for guest in silent] == [[log]] * 4
    assert len({id(guest.told[0]) for guest in silent}) == 1
    assert ana.told == [b"g1 dice: three\n"]
    assert bea.told == [b"g0 dice: one\ng0 dice: two\ng0 dice: four\n"]
    room.flush()
    assert len(ana.told) == 1


def test_a_message_is_a_send_for_each() -> None:
    room, (ana, bea, carla) = fill(Flush.MESSAGE, 3)
    room.say(ana, b"one\ntwo \x0b\x0c\x1c three\n")
    assert bea.told == carla.told == [b"g0 dice: one\n", b"g0 dice: two \x0b\x0c\x1c three\n"]
    assert ana.told == []


@pytest.mark.parametrize("flush", Flush)
def test_who_has_left_is_heard_and_told_nothing(flush: Flush) -> None:
    room, (ana, bea, carla) = fill(flush, 3)
    room.say(ana, b"goodbye\n")
    room.leave(ana)
    room.say(bea, b"where is she\n")
    room.flush()
    assert ana.told == []
    assert b"".join(carla.told) == b"g0 dice: goodbye\ng1 dice: where is she\n"
    assert b"".join(bea.told) == b"g0 dice: goodbye\n"


@pytest.mark.parametrize("flush", Flush)
def test_who_takes_less_or_nothing_keeps_nobody_from_the_rest(flush: Flush) -> None:
    room, guests = fill(flush, 7)
    message = b"g0 dice: hello\n"
    failures: list[OSError] = [BlockingIOError(11, ""), ConnectionResetError(104, "")]
    guests[1].error, guests[4].error = failures
    guests[3].takes = 4
    guests[6].takes = 0
    room.say(guests[0], b"hello\n")
    room.flush()
    assert [len(guest.told) for guest in guests] == [0, 0, 1, 1, 0, 1, 1]
    assert [guest.kept for guest in guests] == [
        [],
        [(message, 0, failures[0])],
        [],
        [(message, 4, None)],
        [(message, 0, failures[1])],
        [],
        [(message, 0, None)],
    ]


@pytest.mark.parametrize("before", [0, 1, 7, 1000])
def test_extend_keeps_what_came_before_an_exception(before: int) -> None:
    """Of list.extend() and map() in CPython, and no promise of the language: send_each counts on
    it to know whose send raised, and goes on with the next."""
    numbers = iter([*range(1, before + 1), 0, 5])
    taken: list[float] = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(map((1).__truediv__, numbers))
    assert taken == [1 / number for number in range(1, before + 1)]
    taken.extend(map((1).__truediv__, numbers))
    assert taken[before:] == [1 / 5]


@pytest.mark.parametrize("flush", Flush)
def test_members_may_leave_while_the_others_are_told(flush: Flush) -> None:
    room, guests = fill(flush, 5)
    guests[2].on_transmit = lambda: room.leave(guests[2])
    room.say(guests[0], b"one\n")
    room.flush()
    guests[2].told.clear()
    room.say(guests[0], b"two\n")
    room.flush()
    assert [len(guest.told) for guest in guests] == [0, 2, 0, 2, 2]


def test_the_cost_of_a_line_is_what_telling_it_takes() -> None:
    room, (ana, *_) = fill(Flush.TURN, 11)
    assert room.cost(ana) == len(b"g0 dice: ")
    room, (ana, *_) = fill(Flush.MESSAGE, 11)
    assert room.cost(ana) == 32 * 10


def test_log_without_parts() -> None:
    assert without(b"0123456789", [(0, 2), (2, 3), (5, 10)]) == b"34"
    assert without(b"0123456789", [(4, 5)]) == b"012356789"
