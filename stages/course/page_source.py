"""The sources as the pages need them: where a function is, what is new in a file, what is prose.

A function is named as in "Server.accept" and found by ast, so that nobody writes a line number by
hand. New in a server that has a predecessor are the functions that do not stand there to the byte,
and the lines outside of functions that do not stand there at all; elsewhere, everything.
"""

from __future__ import annotations

import ast
import difflib
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from page_inputs import Inputs, PageError

_BLOCK = re.compile(r"^<!-- begin: .*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"<!-- value: .*?<!-- end -->")
_FENCED = re.compile(r"^(```+|~~~+).*?^\1$", re.MULTILINE | re.DOTALL)
_ASIDE = re.compile(r"<!--.*?-->|(?<=\])\([^)]*\)", re.DOTALL)
_NO_CODE = (
    *(tokenize.ENCODING, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENDMARKER, tokenize.COMMENT),
)


@dataclass(frozen=True)
class Source:
    """One file of Python; lines are counted from 1.

    functions: the first and the last line of each, by qualified name, in order. header: the last
    line of the module's docstring, 0: it has none. code: the lines that have code on them. words:
    how many of docstrings and comments, by line.
    """

    lines: list[str]
    functions: dict[str, tuple[int, int]]
    header: int
    code: frozenset[int]
    words: dict[int, int]

    def line(self, number: int) -> str:
        return self.lines[number - 1]

    def text_of(self, name: str) -> list[str]:
        first, last = self.functions[name]
        return self.lines[first - 1 : last]

    def inside(self, number: int) -> str:
        """The function that a line belongs to; "": none."""
        found = (name for name, (first, last) in self.functions.items() if first <= number <= last)
        return next(found, "")


@functools.lru_cache(maxsize=None)
def source(inputs: Inputs, path: str) -> Source:
    """PageError: there is no such file, or it is not Python."""
    text = inputs.text(path)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise PageError(f"{path}:{error.lineno}: {error.msg}") from None
    docstrings = {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = text.splitlines()
    code: set[int] = set()
    words = {number: _words(lines[number - 1]) for number in docstrings}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        number = token.start[0]
        if token.type == tokenize.COMMENT:
            words[number] = words.get(number, 0) + _words(token.string)
        elif token.type not in _NO_CODE and number not in docstrings:
            code.update(range(number, token.end[0] + 1))
    functions = {
        name: (node.lineno, node.end_lineno or node.lineno) for name, node in definitions(tree)
    }
    header = 0 if ast.get_docstring(tree) is None else tree.body[0].end_lineno or 0
    return Source(lines, functions, header, frozenset(code), words)


def definitions(
    tree: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods, by qualified name, in order."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{prefix}{node.name}.")


def line_of(inputs: Inputs, path: str, function: str) -> int:
    """Where a function begins. PageError: there is none of this name."""
    found = source(inputs, path).functions
    if function not in found:
        raise PageError(f"{path} has no function {function}")
    return found[function][0]


def new_lines(new: Source, old: Source | None) -> set[int]:
    """The numbers of the lines that whoever knows `old` has not read yet."""
    if old is None:
        return set(range(1, len(new.lines) + 1))
    known = {line for number, line in enumerate(old.lines, 1) if not old.inside(number)}
    found = set()
    for number, line in enumerate(new.lines, 1):
        name = new.inside(number)
        if number <= new.header:
            is_new = True
        elif name:
            is_new = name not in old.functions or new.text_of(name) != old.text_of(name)
        else:
            is_new = line not in known
        if is_new:
            found.add(number)
    return found


def changed_lines(new: Source, old: Source) -> set[int]:
    """The header, and the lines of a diff: for a file that is read as a diff."""
    matcher = difflib.SequenceMatcher(None, old.lines, new.lines, autojunk=False)
    found = set(range(1, new.header + 1))
    for kind, _, _, first, last in matcher.get_opcodes():
        if kind != "equal":
            found.update(range(first + 1, last + 1))
    return found


def prose(markdown: str) -> int:
    """The words of a page, without its generated blocks and its code. A value is one word, whatever
    it is, so that making the page anew does not change this."""
    text = _VALUE.sub("0", _BLOCK.sub("", markdown))
    return _words(_ASIDE.sub("", _FENCED.sub("", text)))


def _words(text: str) -> int:
    return sum(any(map(str.isalnum, word)) for word in text.split())
