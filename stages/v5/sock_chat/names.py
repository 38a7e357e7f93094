"""What may be a name, when two names are too much alike, and what text may reach a terminal.

A nick has three forms. It is shown as its owner has written it, but for the width of characters
(PRECIS, RFC 8265, UsernameCasePreserved). It is compared, sorted and remembered without regard to
case (UsernameCaseMapped). And nobody may have one that looks like it: it blocks every nick that
shares a skeleton with it, and it has two, for case changes looks: `lris` looks like `Iris`, though
not like `iris`.

Rooms have names of the same kind, the folded form only.
"""

from typing import NamedTuple
from unicodedata import category, normalize

from precis_i18n import get_profile

from sock_chat.skeleton import skeleton

MAX_NAME = 24  # code points
MAX_MARKS = 2  # for one letter: more would climb over the lines above and below
MAX_QUOTE = 64  # characters of a user's text in a line of the server's own
MAX_FAREWELL = 200  # bytes of the text of /quit
PASSWORD_LENGTH = range(8, 129)
MAX_DECOMPOSITION = 4  # code points at most that NFC makes into one
REPLACEMENT = "\ufffd"
ELLIPSIS = "…"

_preserved = get_profile("UsernameCasePreserved")
_mapped = get_profile("UsernameCaseMapped")
_opaque = get_profile("OpaqueString")


class Nick(NamedTuple):
    shown: str
    folded: str
    skeletons: frozenset[str]


def parse(text: str) -> Nick | None:
    """The nick that the text is, or None: it is none."""
    if len(text) > MAX_NAME * MAX_DECOMPOSITION:
        return None  # the profiles' time grows with the length
    try:
        shown, folded = _preserved.enforce(text), _mapped.enforce(text)
    except UnicodeEncodeError:  # what the profiles raise for a character that they do not allow
        return None
    if len(shown) > MAX_NAME or not _is_well_formed(shown):
        return None
    return Nick(shown, folded, frozenset({skeleton(shown), skeleton(folded)}))


def _is_well_formed(name: str) -> bool:
    """A letter, then letters, digits, `-` and `_`; marks after letters only, and not too many."""
    marks = MAX_MARKS  # that the character before does not have
    for position, char in enumerate(name):
        kind = category(char)
        if kind[0] == "M":
            marks += 1
            if marks > MAX_MARKS:
                return False
        elif kind[0] == "L":
            marks = 0
        elif position and (kind == "Nd" or char in "-_"):
            marks = MAX_MARKS
        else:
            return False
    return True


_reserved = [nick for name in ("servidor", "sistema", "admin") if (nick := parse(name))]


def is_reserved(nick: Nick) -> bool:
    return any(nick.skeletons & other.skeletons for other in _reserved)


def fold(shown: str) -> str:
    """The folded form of a nick that is known to be one, from its shown form."""
    return normalize("NFC", shown.lower())


def parse_room(text: str) -> str | None:
    nick = parse(text)
    return nick.folded if nick else None


def parse_password(text: str) -> str | None:
    """The password in the form that is hashed and compared (OpaqueString), or None: it is none."""
    if len(text) > PASSWORD_LENGTH.stop * MAX_DECOMPOSITION:
        return None
    try:
        password = _opaque.enforce(text)
    except UnicodeEncodeError:
        return None
    return password if len(password) in PASSWORD_LENGTH else None


class _Hidden(dict[int, str]):
    """For str.translate(): U+FFFD for what a terminal would obey or not show."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            return char
        self[code] = REPLACEMENT
        return REPLACEMENT


# Tab is a space to a terminal; ZWNJ and ZWJ make letters and emoji what they are.
_hidden = _Hidden({ord(char): char for char in "\t\u200c\u200d"})


def clean(text: str) -> str:
    """The text with U+FFFD for every character that could do something to a terminal."""
    return text if text.isprintable() else text.translate(_hidden)


def cut(text: str) -> str:
    """The text as it is quoted in a line of the server's own."""
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + ELLIPSIS


def cut_farewell(text: str) -> str:
    """The text of /quit as the others get it."""
    data = text.encode()
    if len(data) <= MAX_FAREWELL:
        return text
    end = MAX_FAREWELL - len(ELLIPSIS.encode())
    return data[:end].decode("utf-8", "ignore") + ELLIPSIS
