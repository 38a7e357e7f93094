"""Scripts: coroutines that wait for answers and for lines, and the runner that drives them.

No event loop runs them. A script awaits a Wish; send() brings it to the runner; the runner puts the
question, and when the answer is there, an argument of send() is how the script gets it. It may be
there at once, before ask() returns, or any time later.

Whoever closes the runner does not wait for anything. The script ends where it stands, and an answer
that comes after that is undone: a nick that was taken for somebody who has gone is given back.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Wish(Generic[T]):
    """What a script waits for."""

    __slots__ = ()

    def __await__(self) -> Generator["Wish[Any]", T, T]:
        return (yield self)


Script = Coroutine[Wish[Any], Any, None]


class Line(Wish[str]):
    """The next line. secret: nothing but a line will do, and an empty one is one, too."""

    __slots__ = ("secret",)

    def __init__(self, secret: bool = False):
        self.secret = secret


class Late(Wish[T]):
    """An answer. ask: puts the question; what it is given is to be called with the answer, once.
    undo: called with an answer that nobody waits for any more."""

    __slots__ = ("ask", "undo")

    def __init__(
        self,
        ask: Callable[[Callable[[T], None]], None],
        undo: Callable[[T], None] = lambda answer: None,
    ):
        self.ask = ask
        self.undo = undo


class Runner:
    """Drives one script at a time.

    asked, answered: called when it begins and when it ends to wait for an answer.
    """

    __slots__ = ("_answered", "_asked", "_running", "_wish", "script")

    def __init__(self, asked: Callable[[], None], answered: Callable[[], None]):
        self._asked = asked
        self._answered = answered
        self.script: Script | None = None  # None: idle
        self._wish: Wish[Any] | None = None  # of the script
        self._running = False

    @property
    def waits_for_answer(self) -> bool:
        return isinstance(self._wish, Late)

    @property
    def waits_for_secret(self) -> bool:
        return isinstance(self._wish, Line) and self._wish.secret

    def start(self, script: Script) -> None:
        """Run a script, instead of what may be waiting for a line."""
        self.close()
        self.script = script
        self._send(script, None)

    def line(self, text: str) -> None:
        """The line that the script waits for."""
        script, self._wish = self.script, None
        assert script
        self._send(script, text)

    def close(self) -> None:
        """End the script where it waits. One that is running comes to its next wait first."""
        script, self.script, self._wish = self.script, None, None
        if script and not self._running:
            script.close()

    def _send(self, script: Script, value: object) -> None:
        self._running = True
        try:
            wish = script.send(value)
        except BaseException as end:
            if self.script is script:
                self.script = None
            if isinstance(end, StopIteration):
                return
            raise
        finally:
            self._running = False
        if self.script is not script:  # closed while it ran
            script.close()
            return
        self._wish = wish
        if isinstance(wish, Late):
            self._asked()
            wish.ask(partial(self._answer, script, wish))

    def _answer(self, script: Script, wish: Late[Any], answer: object) -> None:
        if self._wish is not wish:
            wish.undo(answer)
            return
        self._wish = None
        self._answered()
        self._send(script, answer)
