"""Who hears what of a turn, in how many writes, and which objects; and what programs are told."""

from __future__ import annotations

import pytest

from sock_chat.codec import JSON, LINES, Marked, Resume
from sock_chat.events import Joined, Left, Renamed, RoomEvent, Said
from sock_chat.link import HIGH_WATER, Reason
from sock_chat.log import Author, Turn
from tests.chat.world import START, World


def test_a_turn_is_one_write_for_each_and_one_object_for_the_silent() -> None:
    world = World()
    ana, bea, *silent = world.enter("ana", "bea", "carla", "dora", "eva")
    for client in world.clients:
        client.writes.clear()
    ana.send("uno", "dos")
    bea.send("tres")
    ana.send("cuatro")
    world.run()
    assert not any(client.writes for client in world.clients), "not before the turn ends"
    world.turn()
    log = b"ana dice: uno\nana dice: dos\nana dice: cuatro\nbea dice: tres\n"
    assert [client.writes for client in silent] == [[log]] * 3
    assert len({id(client.writes[0]) for client in silent}) == 1
    assert ana.writes == [b"bea dice: tres\n"]
    assert bea.writes == [b"ana dice: uno\nana dice: dos\nana dice: cuatro\n"]


def test_what_one_has_said_is_heard_before_what_one_whispers() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    ana.send("uno", "/pm bea dos", "tres")
    world.turn()
    assert bea.new() == ["ana dice: uno", "ana te dice: dos", "ana dice: tres"]


def message(number: int, nick: str = "ana") -> dict[str, object]:
    at = "2026-11-24T16:45:10Z"
    return {"type": "said", "position": number, "at": at, "nick": nick, "text": str(number)}


def ack(number: int, **extra: str) -> dict[str, object]:
    return {"type": "ack", "position": number, "at": "2026-11-24T16:45:10Z", **extra}


def test_programs_get_the_same_and_acks() -> None:
    world = World()
    ana, bea, *others = world.enter("ana", "bea", "carla", "dora", codec=JSON)
    (line,) = world.enter("eva")
    for client in world.clients:
        client.new()
    ana.send("1")
    bea.send("2", Marked("3", "x"))
    ana.send("4")
    line.send("5")
    world.turn()  # ana is handled first
    turn = [message(1), message(2), message(3, "bea"), message(4, "bea"), message(5, "eva")]
    for number, event in enumerate(turn):
        event["text"] = "14235"[number]
    assert others[0].writes[-1] is others[1].writes[-1]
    assert others[0].new_events() == turn
    assert ana.new_events() == [ack(1), ack(2), *turn[2:]]
    assert bea.new_events() == [*turn[:2], ack(3), ack(4, id="x"), turn[4]]
    assert line.new() == [
        "ana dice: 1", "ana dice: 4", "bea dice: 2", "bea dice: 3",
    ]  # fmt: skip
    bea.send(Marked("3", "x"), Marked("3", "x"), Marked("6", "y"), Marked("6", "y"))
    world.turn()
    assert [event.get("id") for event in bea.new_events()] == ["x", "x", "y", "y"]
    assert [event["text"] for event in ana.new_events()] == ["6"]
    world.clock += 120
    bea.send(Marked("3", "x"))
    world.turn()
    assert [event["text"] for event in ana.new_events()] == ["3"]


def test_what_the_log_refuses_is_not_said_and_may_be_said_again() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea", codec=JSON)
    world.log.refusing = True
    ana.send("1", Marked("2", "x"), Marked("2", "x"))
    world.turn()
    assert ana.new_events() == [{"type": "error", "text": "No se ha dicho: el bus no lo toma."}]
    world.log.refusing = False
    ana.send(Marked("2", "x"))
    world.turn()
    assert ana.new_events() == [ack(1, id="x")]
    assert [event["text"] for event in bea.new_events()] == ["2"]


@pytest.mark.parametrize(
    ("since", "epoch", "room", "history", "gap"),
    [
        (None, "", "cine", range(6, 26), False),  # the last 20
        (5, "epoch", "cine", range(6, 26), False),
        (24, "", "cine", range(25, 26), False),
        (26, "epoch", "cine", range(0), False),
        (27, "epoch", "cine", range(2, 26), True),  # beyond the newest
        (5, "another", "cine", range(2, 26), True),
        (0, "", "general", [1, 26], False),
        (0, "", "¡no!", [1, 26], False),
    ],
)
def test_who_comes_back_gets_what_it_has_missed(
    since: int | None, epoch: str, room: str, history: list[int], gap: bool
) -> None:
    world = World()
    (ana,) = world.enter("ana")
    ana.send("1", "/join cine", *[str(number) for number in range(2, 26)], "/join general", "26")
    world.turn()
    bea = world.connect("bea", codec=JSON, room=room, since=since, epoch=epoch)
    _, welcome = bea.new_events()
    assert [event["position"] for event in welcome["history"]] == list(history)
    assert (welcome["gap"], welcome["position"], welcome["epoch"]) == (gap, 26, "epoch")


def test_a_cut_session_is_resumed() -> None:
    world = World(late=["names"])
    ana = world.connect("ana", "/join cine", codec=JSON)
    token = ana.new_events()[-1]["resume"]
    again = world.connect(Resume(token), codec=JSON)
    ask, welcome = again.new_events()
    assert ask == {"type": "ask", "what": "nick"}
    assert (welcome["nick"], welcome["room"], welcome["resume"]) == ("ana", "cine", token)
    assert ana.closed is Reason.TAKEN_OVER
    again.session.lost()
    world.clock += 59
    third = world.connect(Resume(token), codec=JSON)
    assert third.new_events()[-1]["nick"] == "ana"
    third.send(Resume(token))
    world.turn()
    assert third.new_events()[-1]["type"] == "error", "only as the first frame"
    third.session.lost()
    (thief,) = world.enter("ana")
    fourth = world.connect(Resume(token), codec=JSON)
    assert fourth.new_events()[1:] == [{"type": "error", "text": "El apodo ana está en uso."}]
    fourth.send("zoe")
    world.turn()
    assert fourth.new_events()[-1]["room"] == "cine"
    world.clock += 61
    fifth = world.connect(Resume(token), codec=JSON)
    assert fifth.new_events() == [ask, ask]
    assert thief.closed is None


def test_a_resumed_owner_is_still_the_owner() -> None:
    world = World(operators=["op"])
    world.own("op")
    op = world.connect("op", "correct horse", codec=JSON)
    token = op.new_events()[-1]["resume"]
    op.session.lost()
    again = world.connect(Resume(token), "/bans", codec=JSON)
    assert again.new_events()[-1]["text"] == "Nadie tiene prohibida la entrada."
    # A guest's session is not resumed when its nick has got an owner meanwhile.
    guest = world.connect("guest", codec=JSON)
    token = guest.new_events()[-1]["resume"]
    guest.session.lost()
    world.own("guest")
    back = world.connect(Resume(token), codec=JSON)
    assert back.new_events()[-1] == {"type": "ask", "what": "password"}


def test_what_other_servers_tell() -> None:
    """Their sessions are in the log by other names than ours, and so is their order."""
    world = World()
    ana, bea = world.enter("ana", "bea", codec=JSON)
    ana.new()

    def tell(*entries: tuple[Author, RoomEvent]) -> list[str]:
        world.log.give_back(Turn("general", START, entries))
        return [str(event["type"]) for event in ana.new_events()]

    assert tell(("far", Joined("zoe")), ("far", Said(0, START, "zoe", "hola"))) == [
        "joined",
        "said",
    ]
    assert tell(("far", Renamed("zoe", "eva"))) == ["renamed"]
    # The holder of a nick and the next one may cross.
    assert tell(("else", Joined("eva")), ("far", Left("eva"))) == ["joined", "left"]
    ana.send("/list", "/rooms")
    world.turn()
    assert [event["text"] for event in ana.new_events()] == [
        "En general (3): ana, bea, eva",
        "Salas: general (3)",
    ]
    tell(("else", Left("eva")), (bea.session, Said(0, START, "bea", "from before")))
    world.log.give_back(Turn("far away", START, [("far", Joined("zoe"))]))
    assert world.rooms.counts() == [("far away", 1), ("general", 2)]
    world.log.give_back(Turn("far away", START, [("far", Left("zoe"))]))
    assert world.rooms.counts() == [("general", 2)]


@pytest.mark.parametrize("codec", [LINES, JSON])
def test_a_newcomer_misses_nothing_and_hears_nothing_twice(codec: object) -> None:
    """Its history comes late, and what is said meanwhile waits for it."""
    world = World(late=["history"])
    (ana,) = world.enter("ana", codec=LINES)
    bea = world.connect(codec=codec)  # type: ignore[arg-type]
    ana.send("1", "2")
    bea.send("bea")
    ana.send("3")
    world.run()
    ana.send("4")
    world.run()
    world.rooms.flush()
    ana.send("5")
    world.run()
    world.rooms.flush()
    assert len(bea.writes) == 1, "the question only"
    world.turn()
    text = b"".join(bea.writes).decode()
    order = [
        text.index(f'"{number}"' if codec is JSON else f"dice: {number}") for number in "12345"
    ]
    assert order == sorted(order)
    assert all(text.count(f'"text":"{n}"' if codec is JSON else f"dice: {n}") == 1 for n in "12345")
    greeting = text.index('"welcome"' if codec is JSON else "Hola, bea")
    assert (greeting < order[3]) if codec is LINES else greeting < order[0]


def test_a_newcomer_that_a_room_is_too_fast_for_is_aborted() -> None:
    world = World(late=["history"])
    (ana,) = world.enter("ana")
    bea = world.connect().send("bea")
    world.run()
    world.rooms.flush()
    for _ in range(HIGH_WATER // 4000 + 2):
        ana.send("x" * 4000)
        world.run()
        world.rooms.flush()
    assert bea.closed is Reason.SLOW
    world.turn()
    ana.send("/list")
    world.turn()
    assert ana.new()[-1] == "* En general (1): ana"


def test_a_long_turn_does_not_wait_for_its_end() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    ana.send(*["x" * 4000] * 20)
    while ana.session.run(READ := 16384) == 0.0:
        assert READ
    assert len(bea.new()) == 17
    world.turn()
    assert len(bea.new()) == 3


def test_who_enters_leaves_or_has_a_new_name_does_not_wait_for_a_log_that_refuses() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea")
    world.log.refusing = True
    ana.send("hola", "/nick eva", "/join cine", "/list")
    bea.send("/quit")
    zoe = world.connect("zoe")
    assert ana.new() == [
        "* No se ha dicho: el bus no lo toma.",
        "* ana ahora es eva.",
        "* bea ha salido.",
        "* zoe ha entrado.",
        "* En cine: eva.",
        "* En cine (1): eva",
    ]
    assert bea.closed is Reason.QUIT
    assert "* Hola, zoe. En general: eva, zoe." in zoe.new()


def test_who_leaves_waits_only_for_a_while_for_a_log_that_does_not_answer() -> None:
    world = World(late=["log"])
    ana = world.connect("ana")
    ana.send("/quit")
    world.run()
    world.rooms.flush()
    assert ana.closed is None
    world.clock = ana.session.deadline
    ana.session.expire()
    assert ana.closed is Reason.QUIT
    world.turn()
    assert not world.rooms.general.count
    assert list(world.names) == []
