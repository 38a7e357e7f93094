#!/usr/bin/env python3
"""v5: the chat one would use, with names, rooms, commands, history, accounts and TLS.

Who waits, for what: uvloop, in epoll_pwait(), for everybody; a thread, for what is to be written to
    the database. What a client has asked for and not got yet stands in its session, not on a stack.
Changed since v4: protocols instead of streams, and a package, sock_chat, instead of a file, for
    most of it is no longer about sockets. This file starts it; `sock-chat-server` does the same.
Cost of an idle client: no wakeup, no turn made longer; a transport, a protocol, a session.
Try: python3 stages/v5/server.py, and in two other terminals: telnet 127.0.0.1 8080
"""

import sys

from sock_chat.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
