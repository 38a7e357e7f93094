"""v5 with other intervals, so that tests are short:

python tests/bus/serve.py '{"lease": 2}' OPTIONS
"""

from __future__ import annotations

import json
import sys

from sock_chat import __main__, intervals

if __name__ == "__main__":
    intervals.INTERVALS = intervals.INTERVALS._replace(**json.loads(sys.argv.pop(1)))
    sys.exit(__main__.main())
