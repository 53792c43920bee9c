"""A list of entries in Redis, spoken to in its own protocol: RESP has few enough lines to need no library."""

import socket

KEY = "entries"
TIMEOUT_S = 3


class Store:
    def __init__(self, host: str, port: int = 6379) -> None:
        self._address = (host, port)

    def ping(self) -> None:
        self._call("PING")

    def add(self, text: str) -> None:
        self._call("RPUSH", KEY, text)

    def entries(self) -> list[str]:
        found = self._call("LRANGE", KEY, "0", "-1")
        return [entry.decode() for entry in found] if isinstance(found, list) else []

    def _call(self, *words: str):
        request = f"*{len(words)}\r\n".encode()
        for word in words:
            data = word.encode()
            request += b"$%d\r\n%s\r\n" % (len(data), data)
        with socket.create_connection(self._address, timeout=TIMEOUT_S) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                return _read(answer)


def _read(answer):
    line = answer.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise OSError(f"the store answered {rest.decode()}")
    if kind == b"*":
        return [_read(answer) for _ in range(int(rest))]
    if kind == b"$":
        data = answer.read(int(rest) + 2)
        return data[:-2]
    if kind in (b"+", b":"):
        return rest
    raise OSError(f"the store answered {line!r}")
