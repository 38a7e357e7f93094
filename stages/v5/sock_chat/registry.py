"""Who holds which nick, where one process has them all, in its memory: the check and the taking are
one step, for nothing runs between them. Which nicks have an owner, and which are banned, is kept
elsewhere (`accounts`), and told here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from sock_chat.limits import Recent
from sock_chat.names import Nick
from sock_chat.services import Answer, Holder, Return, Verdict

RESUMED = 60.0  # seconds for which a session can be gone on with after its end


class Table:
    """Nicks, found by what they are and by what they look like."""

    def __init__(self) -> None:
        self._nicks: dict[str, Nick] = {}  # by their folded forms
        self._looks: dict[str, list[Nick]] = {}  # by a skeleton

    def add(self, nick: Nick) -> None:
        """In the place of the same one in another spelling, if there is one."""
        self.discard(nick)
        self._nicks[nick.folded] = nick
        for look in nick.skeletons:
            self._looks.setdefault(look, []).append(nick)

    def discard(self, nick: Nick) -> None:
        known = self._nicks.pop(nick.folded, None)
        if known is None:
            return
        for look in known.skeletons:
            self._looks[look].remove(known)
            if not self._looks[look]:
                del self._looks[look]

    def get(self, nick: Nick) -> Nick | None:
        """The nick as it is in here, maybe in another spelling."""
        return self._nicks.get(nick.folded)

    def alike(self, nick: Nick) -> Iterable[Nick]:
        """Others that look like it."""
        for look in nick.skeletons:
            for other in self._looks.get(look, ()):
                if other.folded != nick.folded:
                    yield other


class Held(NamedTuple):
    nick: Nick
    holder: Holder


class LocalNames:
    """services.Names, answered at once.

    owned: the nicks that have an owner, for `accounts` to keep.
    is_banned: whether a nick is, for `accounts` to say.
    clock: tells seconds that never go back. new_token: makes a word that nobody can guess.
    """

    def __init__(self, clock: Callable[[], float], new_token: Callable[[], str]):
        self.owned = Table()
        self.is_banned: Callable[[Nick], bool] = lambda nick: False
        self._clock = clock
        self._new_token = new_token
        self._taken = Table()
        self._held: dict[str, Held] = {}  # by the folded form
        self._tokens: dict[Holder, str] = {}  # of those who hold a nick
        self._holders: dict[str, Holder] = {}  # the same the other way round
        self._gone: Recent[Holder] = Recent(RESUMED)  # by token

    def __iter__(self) -> Iterator[Holder]:
        """All who hold a nick."""
        return iter({held.holder for held in self._held.values() if not held.holder.ended})

    def find(self, nick: Nick) -> Holder | None:
        """Who holds the nick. One who has ended does not, though its room may not know it yet."""
        held = self._held.get(nick.folded)
        return held.holder if held and not held.holder.ended else None

    def take(
        self, nick: Nick, holder: Holder, owner: bool, done: Callable[[Verdict], None]
    ) -> None:
        done(self._take(nick, holder, owner, ()))

    def _take(self, nick: Nick, holder: Holder, owner: bool, earlier: Sequence[Holder]) -> Verdict:
        """earlier: whose nick it may be as well."""
        if self.is_banned(nick):
            return Verdict(Answer.BANNED)
        own = (holder, *earlier)
        current = self.find(nick)
        if not owner:
            if current not in own:
                if self.owned.get(nick):
                    return Verdict(Answer.OWNED)
                if current:
                    return Verdict(Answer.IN_USE)
            others = ((other, self.find(other)) for other in self._taken.alike(nick))
            strangers = (other for other, who in others if who and who not in own)
            for other in chain(self.owned.alike(nick), strangers):
                return Verdict(Answer.ALIKE, other.shown)
        self._taken.add(nick)
        self._held[nick.folded] = Held(nick, holder)
        if current and current is not holder:
            current.displace(nick)
        return Verdict(Answer.TAKEN)

    def release(self, nick: Nick, holder: Holder) -> None:
        if self._held.get(nick.folded) == (nick, holder):
            self._taken.discard(nick)
            del self._held[nick.folded]
        if holder.nick in (nick, None) and (token := self._tokens.pop(holder, None)):
            del self._holders[token]
            if holder.nick:
                self._gone.put(token, holder, self._clock())

    def token(self, holder: Holder) -> str:
        if holder not in self._tokens:
            self._give(self._new_token(), holder)
        return self._tokens[holder]

    def resume(self, token: str, holder: Holder, done: Callable[[Return | None], None]) -> None:
        # Who has been given the token last may not know yet that it has, and end without a nick.
        # Then the one before is still the one to go on with.
        holders = (self._holders.get(token), self._gone.get(token, self._clock()))
        known = [each for each in holders if each]
        earlier = next((each for each in known if each.nick), None)
        if earlier is None or earlier.nick is None:
            done(None)
            return
        nick, room, owner = earlier.nick, earlier.room_name, earlier.owner
        verdict = self._take(nick, holder, owner, known)
        if verdict.answer is Answer.TAKEN:
            # The answer may be cut off as well, and the same token come once more.
            for each in known:
                self._tokens.pop(each, None)
            self._gone.put(token, earlier, self._clock())
            self._give(token, holder)
        done(Return(verdict, nick, room, owner, earlier.former))

    def _give(self, token: str, holder: Holder) -> None:
        self._tokens[holder] = token
        self._holders[token] = holder
