"""Who asks: API keys, and what each of them may do.

This module knows names, keys and headers; it knows no routes and no engine.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hexad.errors import BadRequest, ConfigError, Forbidden, Unauthorized

log = logging.getLogger("hexad.server")

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
KEY = re.compile(r"[!-9;-~]{16,512}")
MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Client:
    """Whoever holds a key; several keys may have one name. The anonymous client is the only one without a name."""

    name: str = ""
    admin: bool = False

    def salt(self, given: str) -> str:
        """The cache salt of a request that gave `given`: named clients never share cached pages, nor their timing."""
        return f"{self.name}\n{given}" if self.name else given

    def check_priority(self, priority: int) -> None:
        """Raises Forbidden for a key that wants to be served before everybody else."""
        if priority < 0 and self.name and not self.admin:
            raise Forbidden(f"priority is {priority}; below 0 takes an admin's key; give 0 or more", param="priority")

    def keep_alive(self, asked: float | None, present: float | None) -> float | None:
        """What becomes of a model's `keep_alive`, which holds for everybody: a key can only make it longer, and to a
        day at most. Raises Forbidden."""
        if asked is None or not self.name or self.admin:
            return asked
        if not 0 < asked <= 86_400:
            what = f"keep_alive is {asked:g} s, for everybody; 0, less and more than a day take an admin's key"
            raise Forbidden(f"{what}: give up to 24h, or leave it out", param="keep_alive")
        return present if present is None else max(asked, present)


ANONYMOUS = Client()


class Keys:
    """The keys of a server. Without any, everybody is the anonymous client, and nobody an admin."""

    def __init__(self, clients: Mapping[bytes, Client]) -> None:
        self._clients = dict(clients)

    @property
    def needed(self) -> bool:
        return bool(self._clients)

    @property
    def has_admin(self) -> bool:
        return any(client.admin for client in self._clients.values())

    @classmethod
    def load(cls, path: str | None) -> Keys:
        """A file of `NAME:KEY` or `NAME:KEY:admin` a line, and # comments. Raises ConfigError, without the key."""
        if path is None:
            return cls({})
        try:
            lines = Path(path).read_text("ascii").splitlines()
            open_to = Path(path).stat().st_mode & 0o007
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise ConfigError(f"cannot read --api-keys {path}: {why}; give a file", param="api_keys") from None
        if open_to:
            log.warning("every user of this machine can read %s; chmod 600 it", path)
        clients: dict[bytes, Client] = {}
        for number, line in enumerate(lines, 1):
            if not (line := line.strip()) or line.startswith("#"):
                continue
            name, _, rest = line.partition(":")
            key, colon, role = rest.partition(":")
            if not (NAME.fullmatch(name) and KEY.fullmatch(key) and (role == "admin" if colon else True)):
                raise _bad_line(path, number, "is not NAME:KEY or NAME:KEY:admin with a key of 16 characters or more")
            if (digest := _digest(key.encode())) in clients:
                raise _bad_line(path, number, "holds a key that another line has; give each client its own")
            clients[digest] = Client(name, bool(colon))
        if not 0 < len(clients) <= MAX_KEYS:
            raise ConfigError(f"--api-keys {path} has {len(clients)} keys; give 1 to {MAX_KEYS}", param="api_keys")
        return cls(clients)

    def client(self, headers: Iterable[tuple[bytes, bytes]]) -> Client:
        """Whose key the headers hold (`Authorization: Bearer`, `x-api-key`). Raises Unauthorized.

        Keys are compared as hashes, all of them each time, so that the time taken tells nothing.
        """
        if not self.needed:
            return ANONYMOUS
        given = [_digest(key) for name, value in headers if (key := _key_in(name, value))]
        found = None
        for digest in given[:2]:
            for known, client in self._clients.items():
                if hmac.compare_digest(known, digest):
                    found = client
        if found is None:
            what = "an API key that this server does not know" if given else "no API key"
            raise Unauthorized(f"the request has {what}; send one as Authorization: Bearer KEY or as x-api-key")
        return found


def _key_in(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value
    scheme, _, key = value.partition(b" ")
    return key.strip() if name == b"authorization" and scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _bad_line(path: str, number: int, what: str) -> ConfigError:
    return ConfigError(f"--api-keys {path}: line {number} {what}", param="api_keys")


def parse_timeout(text: str) -> float:
    """The header `X-Request-Timeout`, in seconds. Raises BadRequest."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or not float(text):
        raise BadRequest(f"X-Request-Timeout is {text[:40]!r}; give a number of seconds", param="X-Request-Timeout")
    return float(text)
