"""Commands with an id, which a page that was cut sends once more."""

from __future__ import annotations

from sock_chat.codec import JSON, Marked, Resume
from tests.chat.test_rooms import ack
from tests.chat.world import World


def test_a_command_with_an_id_is_acknowledged_when_it_is_done_and_done_once() -> None:
    world = World()
    ana, bea = world.enter("ana", "bea", codec=JSON)
    ana.new_events()
    ana.send("hola", Marked("/pm bea psst", "1"), Marked("/list", "2"), Marked("/join cine", "3"))
    world.turn()
    position = 1
    answers = [event["type"] for event in ana.new_events()]
    assert answers == ["ack", "ack", "notice", "ack", "welcome", "ack"]
    ana.send(Marked("/pm bea psst", "1"), Marked("/pm bea psst", "4"), Marked("/join general", "3"))
    world.turn()
    assert ana.new_events() == [ack(position, id=each) for each in ("1", "4", "3")]
    whispers = [event["text"] for event in bea.new_events() if event["type"] == "private"]
    assert whispers == ["psst", "psst"]
    world.clock += 120
    ana.send(Marked("/join general", "3"))
    world.turn()
    assert [event["type"] for event in ana.new_events()] == ["welcome", "ack"]


def test_a_refused_command_is_not_acknowledged_and_is_done_when_it_comes_again() -> None:
    world = World()
    (ana,) = world.enter("ana", codec=JSON)
    ana.send(Marked("/pm bea psst", "1"), Marked("/pm", "2"), Marked("/foo", "3"))
    world.turn()
    assert [event["type"] for event in ana.new_events()] == ["error"] * 3
    (bea,) = world.enter("bea", codec=JSON)
    ana.new_events()
    ana.send(Marked("/pm bea psst", "1"))
    world.turn()
    assert ana.new_events() == [ack(0, id="1")]
    assert [event["text"] for event in bea.new_events()] == ["psst"]


def test_a_command_is_the_same_after_a_new_nick_and_after_a_cut() -> None:
    world = World()
    (ana,) = world.enter("ana", codec=JSON)
    bea = world.connect("bea", codec=JSON)
    token = bea.new_events()[-1]["resume"]
    bea.send(Marked("/nick eva", "1"), Marked("/pm ana psst", "2"))
    world.turn()
    bea.session.lost()
    world.turn()
    again = world.connect(Resume(token), codec=JSON)
    again.new_events()
    again.send(Marked("/nick eva", "1"), Marked("/pm ana psst", "2"))
    world.turn()
    assert again.new_events() == [ack(0, id="1"), ack(0, id="2")]
    whispers = [event["text"] for event in ana.new_events() if event["type"] == "private"]
    assert whispers == ["psst"]


def test_a_command_that_the_end_of_its_session_has_cut_off_may_come_again() -> None:
    world = World(late=["people"])
    ana = world.connect("ana", codec=JSON)
    token = ana.new_events()[-1]["resume"]
    (bea,) = world.enter("bea", codec=JSON)
    ana.send(Marked("/pm bea psst", "1"))
    world.run()
    ana.session.lost()
    world.queues["people"].clear()
    again = world.connect(Resume(token), codec=JSON)
    again.new_events()
    again.send(Marked("/pm bea psst", "1"))
    world.turn()
    assert again.new_events() == [ack(0, id="1")]
    whispers = [event["text"] for event in bea.new_events() if event["type"] == "private"]
    assert whispers == ["psst"]
