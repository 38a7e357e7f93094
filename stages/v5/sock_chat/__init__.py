"""v5, the chat that one would use. `server` starts it; `session` is where to begin reading."""
