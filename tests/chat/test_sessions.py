"""Sessions that wait for answers: their lines keep their order, and whenever they end, nothing of
them stays behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sock_chat.codec import JSON, Resume
from sock_chat.link import LOW_WATER, Reason
from sock_chat.session import NEVER
from tests.chat.world import Client, World

SERVICES = ("log", "history", "names", "accounts", "people")
ENDS: dict[str, Callable[[Client], None]] = {
    "lost": lambda client: client.session.lost(),
    "kick": lambda client: client.session.kick("basta"),
    "stop": lambda client: client.session.stop(1.5),
    "quit": lambda client: client.session.quit(),
}
CONVERSATIONS = {
    "nick": ["zoe"],
    "owned nick": ["Rosa", "correct horse"],
    "login": ["/login Rosa correct horse"],
    "said": ["zoe", "hola", "hola"],
    "rename": ["zoe", "/nick eva", "/nick zoe", "/nick Zoe"],
    "takeover": ["zoe", "/nick Rosa", "correct horse"],
    "rooms": ["zoe", "/join cine", "hola", "/join general", "/join café"],
    "private": ["zoe", "/pm ana uno", "/pm zoe dos"],
    "past": ["zoe", "/history"],
    "accounts": ["zoe", "/register abcdefgh", "/password 12345678", "/unregister"],
    "quit": ["zoe", "hola", "/quit adiós"],
}


def leave_nothing(world: World, clients: list[Client]) -> None:
    """Whoever has ended holds no nick and is in no room; everybody else does and is."""
    world.turn()
    inside = {client.session for client in clients if not client.session.ended}
    assert set(world.names) == inside
    assert {held.holder for held in world.names._held.values()} == inside
    assert sum(count for _, count in world.rooms.counts()) == len(inside)
    assert len(world.rooms.counts()) == 1 + len(
        {client.session.room_name for client in clients if not client.session.ended} - {"general"}
    )
    for room in world.rooms._rooms.values():
        heard_by = [m for group in room._audience._groups.values() for m in group.values()]
        assert set(heard_by) <= {client for client in clients if not client.session.ended}
        assert not (room.places or room._arrivals or any(room._waiting.values()))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_session_may_end_at_any_moment(conversation: str, end: str) -> None:
    """After each turn of the sessions, of the rooms, and each answer; the answers that are left
    come afterwards."""
    for steps in range(120):
        world = World(SERVICES)
        world.own("Rosa")
        (ana,) = world.enter("ana")
        client = world.connect().send(*CONVERSATIONS[conversation])
        rested = False
        for step in range(steps):
            if step % 3 == 0:
                world.run()
            elif step % 3 == 1:
                world.rooms.flush()
            else:
                rested = not any(world.answer(service) for service in SERVICES)
        ENDS[end](client)
        leave_nothing(world, [ana, client])
        assert not ana.session.ended
        entered = sum(line.endswith("ha entrado.") for line in ana.new())
        assert entered <= 3
        if rested:
            return
    pytest.fail("it never came to rest")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_never_answers_holds_up_who_has_asked_and_nobody_else(service: str) -> None:
    world = World()
    world.own("Rosa")
    (ana, bea) = world.enter("ana", "bea")
    waiting = []
    for lines in CONVERSATIONS.values():
        client = world.connect()
        world.late = {service}
        client.send(*lines)
        world.run()
        world.rooms.flush()
        world.late = set()
        waiting.append(client)
    ana.new(), bea.new()
    bea.send("hola")
    world.run()
    world.rooms.flush()
    assert ana.new() == ["bea dice: hola"]
    for client in waiting:
        client.session.lost()
    while world.queues.get(service):
        world.answer(service)
    leave_nothing(world, [ana, bea, *waiting])


def test_lines_wait_for_the_answer_and_keep_their_order() -> None:
    world = World(SERVICES)
    (ana,) = world.enter("ana")
    zoe = world.connect().send(
        "zoe", "1", "/nick eva", "2", "/join cine", "3", "/join general", "4"
    )
    zoe.session.finish_input()
    world.turn()
    assert ana.new() == [
        "* zoe ha entrado.",
        "zoe dice: 1",
        "* zoe ahora es eva.",
        "eva dice: 2",
        "* eva ha salido.",
        "* eva ha entrado.",
        "eva dice: 4",
        "* eva ha salido.",
    ]
    assert zoe.closed is Reason.QUIT
    leave_nothing(world, [ana, zoe])


def test_the_last_words_of_others_are_heard_before_one_is_closed() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    bea.send("hola", "/quit")
    ana.send("adiós", "/quit")
    world.run()
    assert not any(client.closed for client in (ana, bea))
    world.turn()
    assert "ana dice: adiós" in bea.new()
    assert {client.closed for client in (ana, bea)} == {Reason.QUIT}


def test_a_nick_freed_and_taken_in_one_turn() -> None:
    world = World()
    ana, bea, carla = world.enter("ana", "bea", "carla")
    ana.send("/quit")
    bea.send("/nick Ana", "soy yo")
    world.turn()
    assert carla.new()[-3:] == ["* ana ha salido.", "* bea ahora es Ana.", "Ana dice: soy yo"]
    bea.session.lost()
    zoe = world.connect("bea", "/nick ana")
    assert zoe.new()[-1] == "* bea ahora es ana."
    leave_nothing(world, world.clients)


def test_a_renamed_one_gets_what_was_under_way_or_the_sender_hears_that_it_did_not() -> None:
    world = World(["people"])
    ana, bea = world.enter("ana", "bea")
    ana.send("/pm bea hola", "/pm beatriz hola")
    bea.send("/nick beatriz")
    world.turn()
    assert [line for line in bea.new() if "te dice" in line] == ["ana te dice: hola"]
    assert ana.new()[-1] == "* No hay nadie llamado bea."


def test_who_is_displaced_while_it_comes_in_does_not_come_in() -> None:
    """The nick is taken, which it has not heard yet, when the owner takes it over."""
    world = World(["names"])
    zoe = world.connect().send("zoe")
    world.run()
    world.own("zoe")
    owner = world.connect().send("/login zoe correct horse")
    world.turn()
    assert zoe.new()[-1] == "* Has entrado desde otro sitio."
    assert owner.new()[-1] == "* Hola, zoe. En general: zoe."
    leave_nothing(world, [zoe, owner])


def test_who_takes_over_a_nick_that_is_being_given_up_harms_nobody() -> None:
    world = World(["log"])
    world.own("eva")
    ana, bea = world.enter("ana", "bea")
    world.own("ana")
    ana.send("/nick Zoe")  # not heard by the others yet
    world.run()
    bea.send("/login ana correct horse")
    world.turn()
    assert ana.closed is None
    assert (ana.session.nick, bea.session.nick) != (None, None)
    ana.send("/list")
    world.turn()
    assert ana.new()[-1] == "* En general (2): ana, Zoe"
    leave_nothing(world, [ana, bea])


def test_at_the_door_the_clock_stands_while_the_server_is_asked() -> None:
    world = World(["accounts"])
    world.own("Rosa")
    zoe = world.connect().send("Rosa")
    world.turn()
    world.clock += 20
    zoe.send("correct horse")
    world.run()
    assert zoe.session.deadline == NEVER
    world.clock += 1000
    world.answer("accounts")
    assert zoe.session.deadline == NEVER, "it is in"
    eve = world.connect().send("Rosa", "incorrecta")
    world.run()
    world.clock += 1000
    world.answer("accounts")
    assert eve.session.deadline == world.clock + 30
    zoe.session.expire()
    assert zoe.closed is None


def test_what_makes_a_session_wait() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    ana.waiting = LOW_WATER + 1
    bea.send("uno", "dos")
    world.log.busy.add(bea.session)
    ana.send("tres")
    world.turn()
    assert ana.new() == bea.new() == []
    ana.waiting = LOW_WATER
    world.log.busy.clear()
    assert bea.session.run(1) == 0.0, "its turn is over"
    assert bea.session.run(1) == NEVER
    world.turn()
    assert ana.new() == ["bea dice: uno", "bea dice: dos"]


def test_resuming_waits_like_everything_else() -> None:
    world = World(SERVICES)
    ana = world.connect("ana", codec=JSON)
    token = ana.new_events()[-1]["resume"]
    for end in ("lost", "kick"):
        back = world.connect(codec=JSON).send(Resume(token), "hola")
        world.run()
        ENDS[end](back)
        world.turn()
        assert set(world.names) == set()
    leave_nothing(world, world.clients)


def test_the_reason_for_a_close_is_told() -> None:
    world = World()
    (ana,) = world.enter("ana", codec=JSON)
    ana.session.stop(2.5)
    assert ana.new_events() == [{"type": "closing", "retry_after": 2.5}]
    assert ana.closed is Reason.STOPPING
    zoe = Client(world, ana.session.visit, JSON)
    zoe.session.finish(Reason.CROWDED, "Demasiadas conexiones desde tu dirección.")
    assert zoe.new_events()[0]["text"] == "Demasiadas conexiones desde tu dirección."
    zoe.send("zoe")
    assert zoe.session.run(1) == NEVER
