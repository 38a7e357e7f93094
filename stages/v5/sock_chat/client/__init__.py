"""The client of v5, the command `sock-chat`.

Lines come in from two sides, and each has a module that knows no socket, no terminal and no clock:

    the server's      `conversation` learns from them who is there, when a password is asked, and
                      what to do when the connection is lost
    the keyboard's    `keyboard` completes them, and knows what in them is secret

At a terminal `terminal` stands between them, with prompt-toolkit; `backoff` says when it connects
again. Where stdin or stdout is no terminal `pipe` passes bytes on, as the clients of the stages do.
"""
