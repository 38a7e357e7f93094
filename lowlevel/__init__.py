"""The chat room on event loops built by hand: reactors on `selectors` and on raw epoll."""
