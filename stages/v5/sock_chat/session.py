"""A session: what one client does from the first line to the last, sans-IO.

It knows no socket, no loop and no clock of its own. What comes in are calls: feed() and run() with
its lines; finish_input() and lost() when its connection ends; expire(), displace(), kick(), ban()
and stop() when others want something of it. What goes out are calls, too: bytes to its link, events
to its room, questions to names, accounts, people and the log.

Answers to questions come late. What is to be done about a line is therefore written as a script,
a coroutine that waits for an answer or for the next line (`script`):

    verdict = await claim(session, nick)
    password = await Line(secret=True)

While an answer is awaited no line is handled, so that they keep their order, whatever they ask for.
While a line is awaited, the script gets it. That is so at the door, until the client has a nick
(`door`), and when a password is asked. Otherwise a line is said in the room, or is a command, which
is a script again (`commands`).

A session may end at any moment: what it waits for is undone when it comes.
"""

from collections.abc import Iterable

from msgspec import UNSET

from sock_chat import commands as commands  # it fills the table
from sock_chat import door
from sock_chat.chat import Chat, Visit
from sock_chat.codec import Control, Input, Marked, Refused, Resume
from sock_chat.events import NOT_YET, Closing, Error, Event, Left, Post, Said
from sock_chat.link import LOW_WATER, Link, Reason
from sock_chat.names import Nick, cut, cut_farewell
from sock_chat.room import Room
from sock_chat.script import Runner
from sock_chat.table import obey, obey_once

LINE_COST = 32  # of a turn, beside its length: what stands before it, and what it causes
FAREWELL = 5.0  # seconds that a leaving client waits for the room to hear of it
NEVER = float("inf")


class Session:
    __slots__ = (
        "_bucket", "_in_run", "_input", "_input_ended", "_limited", "_runner", "_started",
        "_time_left", "chat", "claimed", "deadline", "ended", "failures", "former", "link", "nick",
        "owner", "refusals", "room", "room_name", "visit",
    )  # fmt: skip

    def __init__(self, chat: Chat, link: Link, visit: Visit):
        self.chat = chat
        self.link = link
        self.visit = visit
        self.nick: Nick | None = None  # that it shows
        self.former: tuple[str, ...] = ()  # folded nicks that its ids may stand under as well
        self.owner = False  # whether it has given the password of its nick
        self.room: Room | None = None
        self.room_name = visit.room
        self.failures = self.refusals = 0  # wrong passwords; errors of any kind
        self.ended = False
        self._runner = Runner(self._asked, self._answered)
        self._input: list[Input] = []  # not handled yet; a deque takes 700 bytes of each client
        self._in_run = self._input_ended = self._started = False
        self.claimed = ""  # the folded form of a nick that it has asked for
        self._bucket = chat.bucket()
        self._limited = 0.0  # until when the rate limit has delayed it
        self.deadline = chat.clock() + chat.naming_time  # of expire(); NEVER: there is none

    @property
    def address(self) -> str:
        return self.visit.address

    @property
    def is_operator(self) -> bool:
        return self.owner and self.nick is not None and self.nick.folded in self.chat.operators

    # Input

    def start(self) -> None:
        """Ask for a nick. One that may not come in is ended instead, with finish()."""
        self._runner.start(door.come_in(self))

    def feed(self, lines: Iterable[Input]) -> None:
        if not self.ended:
            self._input.extend(lines)

    def run(self, budget: int) -> float:
        """Handle lines, until they have used up the budget, in characters, or what the limits
        allow, or one has to wait for an answer.

        When to call it again: after so many seconds, 0 being the next turn of the loop. NEVER: when
        there are new lines, when the link is woken, or when no more than LOW_WATER waits for it.
        """
        bucket, runner, lines = self._bucket, self._runner, self._input
        now = self.chat.clock()
        if self.link.waiting > LOW_WATER or (self.room and self.chat.log.full(self)):
            return NEVER
        self._in_run, index = True, 0
        try:
            # The end of the session clears the list.
            while index < len(lines) and not (runner.script and runner.waits_for_answer):
                if budget <= 0:
                    return 0.0
                if bucket and (delay := bucket.take(now)):
                    self._count_delay(now, delay)
                    return delay
                line = lines[index]
                index += 1
                if isinstance(line, str):
                    budget -= LINE_COST + len(line)
                    self._handle(line)
                else:
                    budget -= LINE_COST + len(line[0])
                    self._handle_object(line)
        finally:
            del lines[:index]
            self._in_run = False
        if self._input_ended and not runner.waits_for_answer:
            self.quit()
        return NEVER

    def _count_delay(self, now: float, delay: float) -> None:
        """Once, however often it is asked for before it is over."""
        self.chat.counters.limited += now + delay - max(now, self._limited)
        self._limited = now + delay

    @property
    def idle(self) -> bool:
        """Whether all its lines have been handled."""
        return not self._input

    def _handle(self, line: str, post_id: str = "") -> None:
        self._started = True
        if self._runner.script:
            if line or self._runner.waits_for_secret:
                self._runner.line(line)
        elif line.startswith("/") and not line.startswith("//"):
            self._runner.start(obey_once(self, line, post_id) if post_id else obey(self, line))
        elif line:
            assert self.room and self.nick
            text, nick = line.removeprefix("/"), self.nick.shown
            if post_id:
                post = Post(0, NOT_YET, nick, text, post_id)
                self.chat.rooms.post(self.room, self, self.link, post, self.former)
            else:
                self.room.say(self, Said(0, NOT_YET, nick, text))

    def _handle_object(self, line: Marked | Resume | Refused | Control) -> None:
        if isinstance(line, Marked):
            self._handle(line.text, line.id)
        elif isinstance(line, Refused):
            self.refuse(line.text)
        elif isinstance(line, Resume) and self._started:
            self.refuse("Solo se reanuda al entrar.")
        elif isinstance(line, Resume):
            self._started = True
            self._runner.start(door.resume(self, line.token))

    def wake(self) -> None:
        """What it has said has been written, and it can go on."""
        if not self.ended:
            self.link.wake()

    def finish_input(self) -> None:
        """The client sends no more. It leaves when all has been handled; call run()."""
        self._input_ended = True

    def tell(self, event: Event) -> None:
        data = self.link.codec.write(event)
        if data and not self.ended:  # an empty history has no lines
            self.link.write(data)

    def refuse(self, text: str) -> None:
        self.refusals += 1
        self.tell(Error(text))

    # The end

    def quit(self, farewell: str = "") -> None:
        """Leave, and go when all that was said before has been heard."""
        self._end(farewell, listens=True)

    def finish(self, reason: Reason, text: str = "") -> None:
        """Go at once, with a last word of the server's own."""
        if text:
            self.refuse(text)
        self._end("", listens=False)
        self.link.close(reason)

    def lost(self) -> None:
        """The connection has ended."""
        self._end("", listens=False)

    def expire(self) -> None:
        """The deadline is past."""
        if self.ended:
            self.deadline = NEVER
            self.link.close(Reason.QUIT)
        elif self.nick is None:
            self.finish(Reason.NO_NICK, f"Sin apodo en {self.chat.naming_time:g} s.")

    def displace(self, nick: Nick) -> None:
        """Its nick has been taken over by the owner, or by itself on another connection."""
        if self.nick is None or nick.folded in (self.nick.folded, self.claimed):
            self.finish(Reason.TAKEN_OVER, "Has entrado desde otro sitio.")

    def kick(self, reason: str) -> None:
        self.finish(Reason.KICKED, f"Te han echado{f': {cut(reason)}' if reason else '.'}")

    def ban(self) -> None:
        self.finish(Reason.BANNED, "Tienes prohibida la entrada.")

    def stop(self, retry_after: float) -> None:
        """The server stops."""
        self.tell(Closing(retry_after))
        self.finish(Reason.STOPPING)

    def _end(self, farewell: str, listens: bool) -> None:
        if self.ended:
            return
        self.ended = True
        self.deadline = NEVER
        self._input.clear()
        self._runner.close()
        nick, room = self.nick, self.room

        def gone() -> None:
            if nick:
                self.chat.names.release(nick, self)
            if listens:
                self.deadline = NEVER
                self.link.close(Reason.QUIT)

        if nick and room:
            if listens:  # a log that does not answer must not hold up who wants to leave
                self.deadline = self.chat.clock() + FAREWELL
            room.leave(self, Left(nick.shown, cut_farewell(farewell) or UNSET), listens, gone)
        else:
            gone()

    # At the door the clock stands while the client waits for the server.

    def _asked(self) -> None:
        self._time_left = self.deadline - self.chat.clock()
        self.deadline = NEVER

    def _answered(self) -> None:
        if self.nick is None:
            self.deadline = self.chat.clock() + self._time_left
        if not self._in_run:
            self.link.wake()
