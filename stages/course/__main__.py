"""Write into the Markdown pages what is made of results and of the source.

    python -m stages.course              # rewrites the pages that have changed
    python -m stages.course --check      # writes nothing; a diff, and status 5, if it would

It is cog, with the functions of blocks.py, and for v5 of chat.py and scale.py. A block has lines of
its own:

    <!-- [[[cog print(cost("v4", "v3")) ]]] -->
    ...
    <!-- [[[end]]] -->

Besides, within a line, the value of an expression, and in the link of a function its line:

    A delivery takes <!-- value: cpu("flood 100", "v4") -->4.38 µs<!-- end -->.
    See [`Server.send`](server.py#L232).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cogapp.cogapp import Cog, CogError

from benchmarks.harness.files import ROOT
from stages.course import blocks, scale

PROLOGUE = "; ".join(f"from stages.course.{name} import *" for name in ("blocks", "chat", "scale"))
VALUE = re.compile(r"(<!-- value: (.+?) -->).*?(<!-- end -->)")
PLACE = re.compile(r"(\[`([\w.]+)`\]\(([\w./-]+\.py)#L)\d+")


class Pages(Cog):  # type: ignore[misc]
    def process_string(self, input: str, fname: str) -> str:  # what cog calls for each file
        """The text of a page with its blocks, values and lines made anew."""
        folder = (ROOT / fname).parent

        def value(match: re.Match[str]) -> str:
            return f"{match[1]}{eval(match[2], {**vars(scale), **vars(blocks)})}{match[3]}"

        def place(match: re.Match[str]) -> str:
            path = os.path.normpath(folder / match[3])
            return f"{match[1]}{blocks.functions(path)[match[2]][0]}"

        def relative(match: re.Match[str]) -> str:
            return f"]({os.path.relpath(ROOT / match[1], folder)}"

        try:
            text = PLACE.sub(place, VALUE.sub(value, input))
        except (ArithmeticError, LookupError, NameError, OSError, SyntaxError, TypeError) as error:
            raise CogError(f"{type(error).__name__}: {error}", fname) from None
        return re.sub(r"\]\(/([^)#]+)", relative, super().process_string(text, fname))


def pages() -> list[str]:
    """Every page that somebody has written: all but the results."""
    command = ["git", "-C", str(ROOT), "ls-files", "*.md"]
    paths = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [str(ROOT / path) for path in paths if "results" not in Path(path).parts]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    mode = ["--check", "--diff"] if arguments else ["-r"]
    return int(Pages().main(["cog", *mode, "--verbosity=1", "-P", "-p", PROLOGUE, *pages()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
