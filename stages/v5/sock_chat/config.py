"""What the operator has chosen: options of the command line and SOCK_CHAT_* of the environment, in
one object that nothing changes afterwards.

Each field of Config is an option, and each option a variable, as --port is SOCK_CHAT_PORT. The
command line wins. A switch is `1` in the environment, and what may be given several times is
separated by spaces there.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from sock_chat import names
from sock_chat.system import port_number

PREFIX = "SOCK_CHAT_"
LOOPS = ("uvloop", "asyncio")
LOGS = ("text", "json")


def option(
    default: Any,
    help: str,
    type: Callable[[str], Any] = str,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """A field. A default of False makes it a switch, an empty tuple one that may be repeated."""
    metadata = {"help": help, "type": type, "metavar": metavar, "choices": choices}
    return field(default=default, metadata=metadata)


def from_zero(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"not a number from 0 on: {text!r}")
    return int(text)


def from_one(text: str) -> int:
    number = from_zero(text)
    if not number:
        raise argparse.ArgumentTypeError(f"not a number from 1 on: {text!r}")
    return number


def rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9 or 0 < number < 1e-3:  # nan, and what would wait for hours
        raise argparse.ArgumentTypeError(f"neither 0 nor a number from 0.001 on: {text!r}")
    return number


def nick(text: str) -> str:
    if names.parse(text) is None:
        raise argparse.ArgumentTypeError(f"not a nick: {text!r}")
    return text


def network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def bus_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("nats", "tls", "ws", "wss") or not url.hostname:
        raise argparse.ArgumentTypeError(f"not like nats://HOST:4222: {text!r}")
    return text


def bus_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text):
        raise argparse.ArgumentTypeError(f"not letters, digits, - and _: {text!r}")
    return text


def origin(text: str) -> str:
    """As browsers write it."""
    known = re.fullmatch(r"(https?://[^/?#\s@]+)/?", text.lower())
    if not known:
        raise argparse.ArgumentTypeError(f"not like https://example.org: {text!r}")
    return known[1]


@dataclass(frozen=True)
class Config:
    host: str = option("127.0.0.1", "address or name (%(default)s)")
    port: int = option(8080, "0: any (%(default)s)", port_number)
    db: str = option(
        "sock_chat.db", "history and accounts; :memory: keeps nothing (%(default)s)", metavar="FILE"
    )
    keep: int = option(100_000, "messages kept (%(default)s)", from_zero, "N")
    bus: tuple[str, ...] = option(
        (), "NATS: several processes or hosts become one chat; repeatable", bus_url, "URL"
    )
    bus_name: str = option(
        "chat", "parts several chats on one NATS (%(default)s)", bus_name, "NAME"
    )
    bus_replicas: int = option(1, "servers of NATS that keep it (%(default)s)", from_one, "N")
    reuse_port: bool = option(False, "several processes behind one port; needs --bus")
    rate: float = option(
        5.0, "lines per second of one client, of any kind; 0: no limit (5)", rate, "N"
    )
    burst: int = option(20, "lines that it may send at once (%(default)s)", from_one, "N")
    operator: tuple[str, ...] = option(
        (), "whose owner has the operators' commands; repeatable", nick, "NICK"
    )
    forget: str = option("", "remove the owner of a nick (a lost password), and exit", nick, "NICK")
    tls_cert: str | None = option(None, "certificate, with its chain, in PEM", metavar="FILE")
    tls_key: str | None = option(None, "its key, in PEM", metavar="FILE")
    tls_port: int = option(
        8443, "lines over TLS, if there is a certificate; 0: any (%(default)s)", port_number, "PORT"
    )
    web_port: int = option(
        8081, "the page and the WebSocket; 0: any (%(default)s)", port_number, "PORT"
    )
    no_web: bool = option(False, "neither page nor WebSocket")
    metrics_port: int | None = option(
        None, "/metrics for whoever reaches it; 0: any", port_number, "PORT"
    )
    origin: tuple[str, ...] = option(
        (), "whose pages may open the WebSocket, beside the server's own; repeatable", origin, "URL"
    )
    trust_proxy: Sequence[IPv4Network | IPv6Network] = option(
        (),
        "from there the PROXY protocol and X-Forwarded-* are believed; repeatable",
        network,
        "CIDR",
    )
    per_address: int = option(
        64, "connections of one address, or of one /64; 0: no limit (%(default)s)", from_zero, "N"
    )
    log: str = option("text", "a line for each event, or a JSON object (%(default)s)", choices=LOGS)
    log_messages: bool = option(False, "what is said is in the log, too")
    loop: str = option("uvloop", "event loop (%(default)s)", choices=LOOPS)
    quiet: bool = option(False, "no line per client")


def parse(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ
) -> Config:
    """arguments: without the name of the program; None: those of this process. Ends the process,
    with exit status 2 and a line on stderr that says why, if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="sock-chat-server",
        description="Chat server with names, rooms, commands and history.",
        epilog=f"Each option is also a variable of the environment: --port is {PREFIX}PORT. "
        "Switches are 1 there, and several values are separated by spaces.",
        allow_abbrev=False,
    )
    for each in fields(Config):
        _add(parser, each)
    given = vars(parser.parse_args(arguments))
    for each in fields(Config):
        variable = PREFIX + each.name.upper()
        if each.name not in given and (text := environment.get(variable)):
            try:
                given[each.name] = _converted(each, text)
            except (argparse.ArgumentTypeError, ValueError) as error:
                parser.error(f"{variable}: {error}")
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    config = Config(**{**given, **lists})
    if (config.tls_cert is None) != (config.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    if config.reuse_port and not config.bus:
        parser.error("--reuse-port needs --bus")
    return config


def _flag(option: Field[Any]) -> str:
    return "--" + option.name.replace("_", "-")


def _add(parser: argparse.ArgumentParser, option: Field[Any]) -> None:
    assert option.default is not MISSING
    more: dict[str, Any] = {"default": argparse.SUPPRESS}
    text = option.metadata["help"] % {"default": option.default}
    if option.default is False:
        more |= {"action": "store_true"}
    else:
        more |= {key: option.metadata[key] for key in ("type", "metavar", "choices")}
    if option.default == ():
        more |= {"action": "append"}
    parser.add_argument(_flag(option), help=text.replace("%", "%%"), **more)


def _converted(option: Field[Any], text: str) -> Any:
    """The value that a variable of the environment has."""
    if option.default is False:
        if text not in ("0", "1"):
            raise ValueError(f"neither 0 nor 1: {text!r}")
        return text == "1"
    convert, choices = option.metadata["type"], option.metadata["choices"]
    values = [convert(part) for part in (text.split() if option.default == () else [text])]
    for value in values:
        if choices and value not in choices:
            raise ValueError(f"not one of {', '.join(choices)}: {value!r}")
    return values if option.default == () else values[0]
