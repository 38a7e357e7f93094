#!/usr/bin/env python3
"""v5: the client. This file starts it; the package is in sock_chat/client, the command `sock-chat`.

Try: python3 stages/v5/client.py, with a server running
"""

import sys

from sock_chat.__main__ import client

if __name__ == "__main__":
    sys.exit(client())
