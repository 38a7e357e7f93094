"""The place of the chat room on event loops built by hand, on `selectors` and on raw epoll."""
