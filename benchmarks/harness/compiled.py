"""Programs in C and in Go, compiled when they are first used.

They are kept in `sock_chat` in the user's cache folder, under a name made of the source, of the
headers beside it and of the compiler: when one of these changes, it is compiled again, and what was
there stays usable.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

C_COMPILERS = ("cc", "gcc", "clang")
C_FLAGS = ("-O2", "-Wall", "-Wextra")
GO_ENVIRONMENT = {"GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
"""One file on the standard library: nothing to download, whatever the user has set."""


class CompileError(Exception):
    """There is no program; the text says why, with the compiler's own words."""


def no_compiler(source: Path) -> str | None:
    """What it takes to run a source and is not there, in one line."""
    if source.suffix == ".c" and not c_compiler():
        return "no C compiler: apt-get install gcc libc6-dev"
    if source.suffix == ".go" and not shutil.which("go"):
        return "no Go: apt-get install golang-go"
    if source.suffix == ".js" and not shutil.which("node"):
        return "no Node: apt-get install nodejs"
    return None


def c_compiler() -> str:
    return next(filter(shutil.which, C_COMPILERS), "")


def version_of(source: Path) -> str:
    """What the compiler of a source says of itself, or what interprets it."""
    commands = {".c": (c_compiler(), "--version"), ".go": ("go", "version")}
    return _version(*commands.get(source.suffix, ("node", "--version")))


def age_of_go() -> str:
    """When the Go that there is was released; it says so itself since Go 1.21."""
    root = _version("go", "env", "GOROOT").strip()
    released = re.search(r"^time (\d+-\d+)", Path(root, "VERSION").read_text(), re.MULTILINE)
    return f"of {released[1]}" if released else "older than 2023-08"


@functools.lru_cache(maxsize=None)
def _version(*command: str) -> str:
    return _run(command)


def program(source: Path) -> Path:
    """The program made of a source: the one in the cache, if source and compiler are the same.

    It is compiled under another name and then renamed, which is atomic: of two processes that
    race, either finds a whole program, and the same one.
    """
    missing = no_compiler(source)
    if missing:
        raise CompileError(missing)
    compiler = [c_compiler(), *C_FLAGS] if source.suffix == ".c" else ["go", "build"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sock_chat"
    sources = [source, *sorted(source.parent.glob("*.h"))]
    parts = [*compiler, version_of(source), *(path.read_text("utf-8") for path in sources)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    compiled = cache / f"{source.stem}-{key}"
    if not compiled.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fresh = Path(folder) / source.stem
            _run([*compiler, "-o", str(fresh), str(source)])
            fresh.replace(compiled)
    return compiled


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **GO_ENVIRONMENT},
        check=False,
    )
    if done.returncode:
        raise CompileError(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout
