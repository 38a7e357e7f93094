"""The commands sock-chat-server, also as python -m sock_chat, and sock-chat: can they run here, and
if not, what is missing? This file is read by every Python 3, the rest of the package by 3.10 and
later."""

import sys
from importlib.util import find_spec
from typing import Dict, Optional, Union

PACKAGES = {  # of the extra `chat`, by the names of their modules
    "argon2": "argon2-cffi",
    "confusable_homoglyphs": "confusable-homoglyphs",
    "h11": "h11",
    "msgspec": "msgspec",
    "nats": "nats-py",
    "precis_i18n": "precis-i18n",
    "prometheus_client": "prometheus-client",
    "uvloop": "uvloop",
    "websockets": "websockets",
}
CLIENT_PACKAGES = {**PACKAGES, "prompt_toolkit": "prompt-toolkit"}


def missing(packages: Dict[str, str] = PACKAGES) -> Optional[str]:
    """Why it cannot run here, in one line."""
    if sys.version_info < (3, 10):
        version = ".".join(map(str, sys.version_info[:2]))
        return f"v5 necesita Python 3.10 o posterior, y este es {version}: apt-get install python3"
    if sys.platform != "linux":
        return "sock_chat solo funciona en Linux"
    absent = [package for module, package in packages.items() if not find_spec(module)]
    if absent:
        command = f"{sys.executable} -m pip install {' '.join(absent)}"
        return f"A v5 le falta el extra `chat`. Lo instala: {command}"
    return None


def main() -> Optional[str]:
    """Serve. Returns why it cannot, for sys.exit()."""
    reason = missing()
    if reason:
        return reason
    from sock_chat import config, launch

    return launch.main(config.parse())


def client() -> Union[int, str]:
    """The command sock-chat. Returns the exit status, or why it cannot talk, for sys.exit()."""
    reason = missing(CLIENT_PACKAGES)
    if reason:
        return reason
    from sock_chat.client import command

    return command.main()


if __name__ == "__main__":
    sys.exit(main())
