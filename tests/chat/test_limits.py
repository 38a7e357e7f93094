"""Rates and counts, on a clock that the test turns."""

from __future__ import annotations

import pytest

from sock_chat.limits import ConnectionLimiter, Recent, Throttle, TokenBucket, party
from tests.chat.world import World


def test_a_bucket_gives_a_burst_and_then_a_rate() -> None:
    bucket, now = TokenBucket(5, 20), 1e9
    times: list[float] = []
    while len(times) < 200:
        if wait := bucket.take(now):
            assert wait <= 0.2 + 1e-6
            now += wait
        else:
            times.append(now - 1e9)
    assert times[:20] == [0.0] * 20
    assert times[20:] == pytest.approx([0.2 * (i + 1) for i in range(180)], abs=1e-3)
    assert bucket.take(now + 1e6) == 0.0


def test_a_paste_arrives_whole_in_order_and_slower() -> None:
    world = World(rate=5, burst=20)
    ana, bea = world.enter("ana", "bea")
    ana.send(*[f"{number}" for number in range(200)])
    lines: list[str] = []
    seconds: list[float] = []
    while len(lines) < 200:
        world.turn()
        lines += bea.new()
        seconds.append(world.clock - 1000)
        wait = ana.session.run(1 << 14)
        assert 0 < wait <= 0.201 or len(lines) == 200
        world.clock += wait
    assert lines == [f"ana dice: {number}" for number in range(200)]
    assert 180 / 5 - 1 < seconds[-1] < 180 / 5 + 1
    assert bea.session.run(1 << 14) == float("inf"), "nobody else is slowed down"


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_party(address: str, who: str) -> None:
    assert party(address) == who


def test_connections_of_an_address() -> None:
    limiter = ConnectionLimiter(2)
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1", "127.0.0.1"]
    assert [limiter.admit(address) for address in addresses] == [True, True, False, True, True]
    assert all(limiter.admit("::1") and limiter.admit("127.9.9.9") for _ in range(9))
    limiter.leave("2001:db8::1")
    assert limiter.admit("2001:db8::4")
    assert not limiter.admit("2001:db8::1")
    limiter.leave("127.0.0.1")
    assert all(ConnectionLimiter(0).admit("192.0.2.1") for _ in range(99))


def test_attempts_under_way_count_as_failed() -> None:
    throttle = Throttle(limit=3, time=60)
    assert [throttle.begin("127.0.0.1", 1.0 + i) for i in range(4)] == [True, True, True, False]
    assert throttle.begin("192.0.2.1", 5.0)
    throttle.succeed("127.0.0.1", 2.0)
    assert [throttle.begin("127.0.0.1", 6.0) for _ in range(2)] == [True, False]
    assert [throttle.begin("127.0.0.1", 61.5) for _ in range(2)] == [True, False]
    for number in range(1000):
        throttle.begin(f"10.0.{number // 250}.{number % 250}", 200.0 + number)
    assert len(throttle._failed) < 100, "what is over is forgotten"


def test_recent_things_are_forgotten() -> None:
    recent: Recent[str] = Recent(10)
    recent.put("a", "one", 0)
    recent.put("b", "two", 9)
    recent.put("a", "three", 9.5)
    assert (recent.get("a", 18.9), recent.get("b", 18.9)) == ("three", "two")
    assert (recent.get("a", 19.4), recent.get("b", 19.4)) == ("three", None)
    recent.put("b", "four", 19.4)
    assert recent.get("a", 19.5) is None
    recent.drop("b")
    assert recent.get("b", 19.5) is None
    assert not recent._values
