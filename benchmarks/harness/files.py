"""Results come into their folder whole or not at all."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of the project."""


class OutputError(Exception):
    """A folder cannot be written to; the text is one line that says why."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: what begins in it ends in it."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: seen.append(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:  # whatever else came of it: on a terminal a child heard Ctrl-C, too
            raise KeyboardInterrupt


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for the files of a run. At the end of the block they are moved into `folder`,
    over what is there; if it is left by an exception, none is.

    OutputError, before the block begins: one cannot write there. What has been made for nothing,
    the folder itself too, is removed again. Folders in it are for the run alone.
    """
    fresh = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In the same file system, so that rename(2) can put them in their place.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as staging:
            yield Path(staging)
            with held_back():
                for file in sorted(path for path in Path(staging).iterdir() if path.is_file()):
                    file.replace(folder / file.name)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(folder)):
            raise
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
    finally:
        for path in fresh:
            with contextlib.suppress(OSError):  # ENOTEMPTY: it is needed
                path.rmdir()
