"""v5, the chat one would use.

Data flows one way:

    bytes      `codec` makes lines of them
    lines      `session` handles them: at the `door`, as `commands`, or as something to be said
    events     `room` collects those of a turn, and gives the turn to the `log`
    turn       the log gives it back, with positions, and the room tells its `audience`
    bytes      `codec` makes them of events, once for all

None of these modules knows a socket, a loop or a clock. What they need of the world is handed to
them: a connection is a `link`, what they ask for and have to wait for stands in `services`.

The world is `tcp` and `tls`, with `proxy` before them; `turns`, which says when a turn ends; the
`store` and the `storage` in it; and the `server` that has them all, which `launch` makes of the
`config`. What happens is counted in `counters`, and shown by `metrics`.
"""
