"""Run a Python program as it is, and let it say where it is, so that strace tells whose calls.

    strace ... python -S profiling/calls/marks.py FLAG PYTHON [-S] PROGRAM ARGUMENTS...

As soon as the first byte of the file FLAG is not 0, each step of the program is also written to a
descriptor of its own, which leads to /dev/null: a call of a function, of Python's or of C's, its
return, a new line. A system call is made where the last mark of its thread says. Before that
nothing is written, and the program only runs slower.

    {"at": ["stages/v3/server.py", 284, "turn"], "c": "select", ...}

at: the innermost Python frame. ours: the innermost one in this repository, None: there is none.
c: the C function that is being called there. resumed: a coroutine or a function of ours that has
just been entered.

It runs under every Python that the servers do, and imports nothing from elsewhere in the
repository, but rings.py, when the program has rings. What is not a Python program is run without
marks.
"""

import fcntl
import json
import mmap
import os
import resource
import runpy
import sys
import threading
from types import CodeType, FrameType
from typing import Any, Dict, List, Optional

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DESCRIPTOR = 500
"""Where the marks go. So high that the program's own descriptors have the numbers they always
have, and below FD_SETSIZE and the usual limit."""
NAMES: Dict[CodeType, Optional[str]] = {}


def name_of(code: CodeType) -> Optional[str]:
    """Its file, from ROOT on; None: it is not one of ours."""
    if code not in NAMES:
        path = os.path.abspath(code.co_filename)
        inside = path.startswith(ROOT + os.sep) and "site-packages" not in path
        inside = inside and not code.co_filename.startswith("<")  # compiled from a string
        inside = inside and not path.startswith(OWN)
        NAMES[code] = os.path.relpath(path, ROOT) if inside else None
    return NAMES[code]


OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep


def place(frame: FrameType) -> List[Any]:
    code = frame.f_code
    return [name_of(code) or code.co_filename, frame.f_lineno, code.co_name]


def ours(frame: Optional[FrameType]) -> Optional[List[Any]]:
    while frame is not None:
        if name_of(frame.f_code):
            return place(frame)
        frame = frame.f_back
    return None


class Marker:
    """Both of what sys.setprofile() and sys.settrace() call."""

    def __init__(self, flag: mmap.mmap, descriptor: int):
        self.flag = flag
        self.descriptor = descriptor

    def write(self, frame: Optional[FrameType], **more: Any) -> None:
        if frame is not None and not frame.f_code.co_filename.startswith(OWN):
            self.write_mark({"at": place(frame), "ours": ours(frame), **more})

    def write_mark(self, mark: Dict[str, Any]) -> None:
        if self.flag[0]:
            os.write(self.descriptor, json.dumps(mark).encode())

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if not self.flag[0]:
            return
        if event == "c_call":
            self.write(frame, c=getattr(arg, "__name__", "?"))
        elif event == "c_return" or event == "c_exception":
            self.write(frame)
        elif event == "call":
            self.write(frame, **({"resumed": True} if name_of(frame.f_code) else {}))
        else:
            self.write(frame.f_back)

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and self.flag[0]:
            self.write(frame)
        return self.trace


def main() -> None:
    flag_path, command = sys.argv[1], sys.argv[2:]
    if not os.path.basename(command[0]).startswith("python"):
        os.execvp(command[0], command)
    with open(flag_path, "rb") as file:
        flag = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
    null = os.open(os.devnull, os.O_WRONLY)
    descriptor = min(DESCRIPTOR, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1)
    marker = Marker(flag, fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, descriptor))
    os.close(null)
    arguments = command[1:]
    if arguments[0] == "-S":
        arguments = arguments[1:]
    else:
        import site

        site.main()
    if arguments[:3] == ["-m", "lowlevel", "uring"]:
        sys.path[:1] = ["", ROOT, os.path.join(ROOT, "profiling")]
        from calls.rings import Recorder

        del sys.path[1:3]
        Recorder(place, marker.write_mark).watch()
    threading.setprofile(marker.profile)
    threading.settrace(marker.trace)
    sys.setprofile(marker.profile)
    sys.settrace(marker.trace)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
