"""What a script of this folder needs before it imports anything else of the project.

Until script.run() Ctrl-C ends it without a traceback, as nothing has begun. The packages of the
project are found from its root, those of this folder here.
"""

import importlib.util
import signal
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path[:1] = [str(FOLDER.parent), str(FOLDER)]
if not importlib.util.find_spec("tabulate"):
    sys.exit(f"{Path(sys.argv[0]).stem}: tabulate is not installed: pip install -e '.[dev]'")
