"""Write into the Markdown pages what is made of results and of the source.

    python stages/course/pages.py               # rewrites what has changed, and says which pages
    python stages/course/pages.py --check       # writes nothing; a diff, and status 1, if it would
    python stages/course/pages.py stages/v3/README.md

A page has its own text, and between markers what is generated. A block stands on lines of its own,
a value within a line:

    <!-- begin: cost v4 v3 -->
    ...
    <!-- end -->

    A wait beside 1,000 takes <!-- value: readiness_us/select/1000 -->39.5 µs<!-- end -->.

In code, between fences or backquotes, a marker is text. The blocks are those in BLOCKS below, the
values are explained in page_values.py.

Nothing is measured: the tables come from benchmarks/results/comparison.json (compare.py),
profiling/results/syscalls.json (syscalls.py) and rounds.json (roundtrip.py), links and listings
from the sources. The same inputs give the same bytes, on any machine.

Exit status: 0; 1: --check has found a difference, or one line on stderr says what is wrong with a
page or a result, and then nothing is written; 2: bad arguments.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT_FOLDER = FOLDER.parents[1]
sys.path[:1] = [
    str(ROOT_FOLDER),
    str(FOLDER),
    str(ROOT_FOLDER / "profiling"),
]  # benchmarks is in the first

import page_code  # noqa: E402
import page_places  # noqa: E402
import page_results  # noqa: E402
from benchmarks.harness.environment import ROOT  # noqa: E402
from page_inputs import Inputs, Page, PageError  # noqa: E402
from page_values import value  # noqa: E402

BLOCKS: dict[str, Callable[..., str]] = {
    **page_results.BLOCKS,
    "reading": page_code.reading,
    "diff": page_code.diff,
    "places": page_places.places,
}
END = "<!-- end -->"
_BEGIN = re.compile(r"<!-- begin: (.*) -->")
_MARKER = re.compile(r"<!--\s*(begin|value)\s*:|<!--\s*(end)\s*-->")
_VALUE = re.compile(r"<!-- value: ((?:(?!-->).)+) -->((?:(?!<!--).)*)<!-- end -->")
_CODE = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def made(page: Page, text: str) -> str:
    """The text of a page with all its blocks and values made anew. PageError: "LINE: ..."."""
    lines: list[str] = []
    begun = 0  # the line that the open block begins in
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            marker = _MARKER.search(line)
            if begun:
                if line == END:
                    lines.append(line)
                    begun = 0
                elif marker:
                    raise PageError(f"a marker in the block that begins in line {begun}")
                continue
            lines.append(line)
            if fence:
                if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                    fence = ""
            elif opening := _FENCE.match(line):
                fence = opening[1]
            elif begin := _BEGIN.fullmatch(line):
                lines += ["", block(page, begin[1]), ""]
                begun = number
            elif marker:
                lines[-1] = with_values(page, line)
        except PageError as error:
            raise PageError(f"{number}: {error}") from None
    if begun:
        raise PageError(f"{begun}: the block has no {END}")
    return "\n".join(lines)


def block(page: Page, words: str) -> str:
    try:
        name, *arguments = shlex.split(words)
    except ValueError as error:
        raise PageError(f"{words!r}: {error}") from None
    if name not in BLOCKS:
        raise PageError(f"no block is called {name!r}, only {', '.join(BLOCKS)}")
    signature = inspect.signature(BLOCKS[name])
    try:
        signature.bind(page, *arguments)
    except TypeError:
        wanted = [
            parameter.name.upper()
            if parameter.default is parameter.empty
            else f"[{parameter.name.upper()}]"
            for parameter in list(signature.parameters.values())[1:]
        ]
        raise PageError(f"{words!r}: wanted is {' '.join([name, *wanted])!r}") from None
    return BLOCKS[name](page, *arguments)


def with_values(page: Page, line: str) -> str:
    """A line with its values made anew. What stands in backquotes stays as it is."""
    found, at = "", 0
    while marker := _MARKER.search(line, at):
        code = _CODE.search(line, at)
        if code and code.start() < marker.start():
            found, at = found + line[at : code.end()], code.end()
            continue
        whole = _VALUE.match(line, marker.start())
        if not whole:
            what = marker[1] or marker[2]
            raise PageError(
                f"a value has no {END} in its line, or is not written as one"
                if what == "value"
                else f"{what!r} is not alone in its line, or ends nothing"
            )
        text = value(page.inputs, whole[1])
        found += f"{line[at : marker.start()]}<!-- value: {whole[1]} -->{text}{END}"
        at = whole.end()
    return found + line[at:]


def pages(root: Path) -> Iterator[Path]:
    """Every page of the repository that somebody has written: all but the results."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error)
        raise PageError(f"git cannot list the pages: {said.strip()}") from None
    for name in sorted(set(done.stdout.split("\0")) - {""}):
        if "results" not in Path(name).parts and (root / name).is_file():
            yield root / name


def shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def remade(paths: Sequence[Path], inputs: Inputs) -> Iterator[tuple[Path, str, str]]:
    """(page, its text, what it should be)."""
    for path in paths:
        name = shown(path, inputs.root)
        try:
            old = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PageError(f"{name}: {getattr(error, 'strerror', '') or error}") from None
        try:
            yield path, old, made(Page(path, inputs), old)
        except PageError as error:
            raise PageError(f"{name}:{error}") from None


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, "utf-8")
        fresh.chmod(path.stat().st_mode & 0o7777)
        fresh.replace(path)
    except OSError as error:
        raise PageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)


def unified(name: str, old: str, new: str) -> Iterator[str]:
    """What would change in a page."""
    lines = old.split("\n"), new.split("\n")
    return difflib.unified_diff(lines[0], lines[1], name, f"{name}, made anew", lineterm="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all")
    parser.add_argument("--check", action="store_true", help="write nothing; show what differs")
    args = parser.parse_args(argv)
    try:
        paths = [path.resolve() for path in args.pages] or list(pages(ROOT))
        changed = [page for page in remade(paths, Inputs()) if page[1] != page[2]]
        for path, old, new in changed:
            name = shown(path, ROOT)
            if args.check:
                print("\n".join(unified(name, old, new)))
            else:
                write(path, new)
                print(name)
    except PageError as error:
        print(f"pages: {error}", file=sys.stderr)
        return 1
    return int(args.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
