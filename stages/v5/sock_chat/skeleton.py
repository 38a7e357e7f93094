"""What a name looks like: its skeleton, after Unicode TS 39. Names that look alike have the same.

The standard's table gives for each confusable character the sequence it looks like. The package
confusable-homoglyphs has that table in another form, which has lost the direction: for each
character all those that it may be taken for, 900 KB of JSON with their names. Only the classes are
in it, so one member of each has to stand for the others: the smallest. Where a member is a
sequence, that one does, or `m` would never meet `rn`, which no table finds in `rn` itself.

Characters that no name can have (see `names`) are left out. What stays are some thousand entries
of str.translate()'s kind, made once, in a few hundredths of a second.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from unicodedata import category, is_normalized, normalize

import msgspec

LEFT_TO_RIGHT = "\u200e"  # stands around what is written from right to left


class Homoglyph(msgspec.Struct):
    """One of the characters, or sequences, that another one may be taken for."""

    c: str


def skeleton(text: str) -> str:
    return normalize("NFD", normalize("NFD", text).translate(TABLE))


def classes(pairs: Iterable[tuple[str, str]]) -> Iterable[set[str]]:
    """The sets of all that are taken for one another, directly or by way of others."""
    parents: dict[str, str] = {}

    def root(member: str) -> str:
        while (parent := parents.setdefault(member, member)) != member:
            parents[member] = parents[parent]  # the next search has half the way
            member = parents[member]
        return member

    for one, other in pairs:
        parents[root(one)] = root(other)
    members = defaultdict(set)
    for member in parents:
        members[root(member)].add(member)
    return members.values()


def may_be_named(char: str) -> bool:
    """Whether a name can have this character, once it is decomposed."""
    return category(char)[0] in "LMN" and is_normalized("NFKC", char)


def load() -> Mapping[int, str]:
    data = (files("confusable_homoglyphs") / "confusables.json").read_bytes()
    homoglyphs = msgspec.json.decode(data, type=dict[str, list[Homoglyph]])
    pairs = (
        (char.strip(LEFT_TO_RIGHT), other.c.strip(LEFT_TO_RIGHT))
        for char, others in homoglyphs.items()
        for other in others
    )
    table: dict[int, str] = {}
    for members in classes(pairs):
        chosen = min([member for member in members if len(member) > 1] or members)
        for char in members - {chosen}:
            if len(char) == 1 and may_be_named(char):
                table[ord(char)] = sys.intern(chosen)
    # A sequence that stands for others has members of other classes in it.
    while changed := {
        char: mapped for char, text in table.items() if (mapped := text.translate(table)) != text
    }:
        table.update(changed)
    return table


TABLE = load()
