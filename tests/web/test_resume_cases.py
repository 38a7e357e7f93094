"""What an interrupted session comes back to, one case at a time (`test_resume` tries them all)."""

from __future__ import annotations

from typing import Any

import pytest

from sock_chat.codec import JSON, Marked, Resume
from sock_chat.link import HIGH_WATER
from tests.chat.world import Client, World


def came_in(client: Client) -> dict[str, Any]:
    """Its welcome."""
    return [event for event in client.new_events() if event["type"] == "welcome"][-1]


def acknowledged(client: Client) -> list[str]:
    return [event["id"] for event in client.new_events() if event["type"] == "ack"]


def test_the_minute_to_resume_begins_anew_with_each_cut() -> None:
    world = World()
    ana = world.connect("ana", codec=JSON)
    token = came_in(ana)["resume"]
    for _ in range(5):
        ana.session.lost()
        world.turn()
        world.clock += 40
        ana = world.connect(Resume(token), codec=JSON)
        assert came_in(ana)["nick"] == "ana"


@pytest.mark.parametrize("alive", [True, False])
def test_who_is_cut_while_it_resumes_can_resume(alive: bool) -> None:
    """Twice in a row before the answer is there, which a server far away takes its time for."""
    world = World(late=["names"])
    ana = world.connect("ana", "/join cine", codec=JSON)
    token = came_in(ana)["resume"]
    if not alive:
        ana.session.lost()
        world.turn()
    for _ in range(2):
        cut = world.connect(codec=JSON).send(Resume(token))
        world.run()
        if not alive:
            cut.session.lost()
    again = world.connect(Resume(token), codec=JSON)
    welcome = came_in(again)
    assert (welcome["nick"], welcome["room"]) == ("ana", "cine")
    assert list(world.names) == [again.session]


def test_a_position_is_for_the_room_that_it_comes_with() -> None:
    """ana has moved on to cine, and was cut before it knew: it has seen nothing there."""
    world = World()
    (bea,) = world.enter("bea", codec=JSON)
    bea.send("/join cine", "old")
    world.turn()
    ana = world.connect("ana", codec=JSON)
    position = came_in(ana)["position"]
    ana.send("/join cine")
    world.turn()
    again = world.connect(Resume(came_in(ana)["resume"]), codec=JSON, since=position)
    welcome = came_in(again)
    assert welcome["room"] == "cine"
    assert [message["text"] for message in welcome["history"]] == ["old"]


def test_a_line_is_known_by_its_id_under_the_next_nick_too() -> None:
    world = World()
    ana = world.connect("ana", codec=JSON)
    token = came_in(ana)["resume"]
    ana.send(Marked("hola", "1"), "/nick eva", "/nick zoe")
    world.turn()
    zoe = world.connect(Resume(token), Marked("hola", "1"), codec=JSON)
    assert acknowledged(zoe) == ["1"]
    zoe.session.lost()
    world.turn()
    world.connect("zoe")
    other = world.connect(Resume(token), "carla", Marked("hola", "1"), codec=JSON)
    assert acknowledged(other) == ["1"], "it is still the one that was zoe"
    stranger = world.connect("dora", Marked("hola", "1"), codec=JSON)
    assert acknowledged(stranger) == ["1"]
    assert [message.nick for _, message in world.log.messages] == ["ana", "dora"]


@pytest.mark.parametrize("text", ["x" * 4096, "\N{REPLACEMENT CHARACTER}" * 4096])
def test_what_was_missed_fits_into_what_may_wait_for_a_client(text: str) -> None:
    """Or it would be a slow reader each time that it comes back."""
    world = World()
    ana, bea = world.enter("ana", "bea", codec=JSON)
    bea.session.lost()
    ana.send(*[Marked(text, str(number)) for number in range(900)])
    world.turn()
    again = world.connect("bea", codec=JSON, since=0)
    size = len(b"".join(again.writes))
    assert HIGH_WATER // 3 < size < HIGH_WATER
    welcome = came_in(again)
    assert welcome["gap"]
    assert welcome["history"][-1]["position"] == 900


def test_a_line_that_comes_again_in_the_same_turn_is_said_once() -> None:
    world = World()
    ana = world.connect("eva", "/nick ana", codec=JSON)
    ana.send(Marked("hola", "1"), Marked("hola", "1"))
    world.turn()
    assert acknowledged(ana) == ["1", "1"]
    assert [message.text for _, message in world.log.messages] == ["hola"]
