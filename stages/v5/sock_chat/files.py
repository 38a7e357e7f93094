"""The files of the page: read once, from the package, and served with what lets a browser keep
them and nothing else do anything in it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files

from sock_chat.heads import Answer

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable

INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def walk(folder: Traversable, path: str = "/") -> Iterator[tuple[str, Traversable]]:
    """The files below a folder, with their paths."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from walk(entry, f"{path}{entry.name}/")
        else:
            yield path + entry.name, entry


def load() -> Mapping[str, Answer]:
    """The answers, by path."""
    answers: dict[str, Answer] = {}
    for path, file in walk(files("sock_chat") / "page"):
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            answers[path] = Answer(200, body, {"Content-Type": kind, "ETag": tag, **HEADERS})
    answers["/"] = answers.pop(f"/{INDEX}")
    return answers


def revalidated(answer: Answer, known: str) -> Answer:
    """known: the tags of what the browser has. 304 when it has this."""
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    if answer.headers["ETag"] in tags or "*" in tags:
        return answer._replace(status=304, body=b"")
    return answer
