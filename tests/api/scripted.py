"""Copied onto an agent's PATH as `git` and `docker`: writes down what it carried out, and asks before it goes on.

The standard library only, and little of it: it is started some ten times for one command.
"""

from __future__ import annotations

import json
import os
import socket
import sys

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
LINES = 200
CARRIED_OUT = "carried-out"
POINTS = "points.sock"
DRIVEN_BUILD = "driven-build"


def line(attempt: int, part: str, number: int) -> str:
    return f"attempt {attempt}, {part}, line {number:04}: something long enough to be one\n"


def says(attempt: int, *parts: str) -> str:
    """What is written in these parts of an attempt."""
    return "".join(line(attempt, part, number) for part in parts for number in range(LINES))


def git(verb: str) -> int:
    folder = os.environ["GIT_DIR"]
    fetched = os.path.join(folder, "fetched")
    if verb == "init":
        _touch(os.path.join(folder, "HEAD"))
    elif verb == "cat-file":
        return 0 if os.path.exists(fetched) else 1
    elif verb == "fetch":
        _at("clone")
        _touch(fetched)
    elif verb == "checkout":
        _at("checkout")
        tree = os.environ["GIT_WORK_TREE"]
        os.makedirs(os.path.join(tree, "api"), exist_ok=True)
        _touch(os.path.join(tree, "api", "Dockerfile"))
        _touch(os.path.join(tree, "docker-compose.yml"))
    return 0


def docker(arguments: list[str]) -> int:
    if "buildx" in arguments:
        return _build(arguments[arguments.index("--metadata-file") + 1])
    if "config" in arguments:
        print(json.dumps({"services": {"api": {"build": {"context": "api"}}}}))
    elif "pull" in arguments:
        _at("pull")
    elif "up" in arguments:
        _up()
    else:
        return 1
    return 0


def _build(metadata: str) -> int:
    attempt = _begin("build")
    driver = os.path.join(FOLDER, DRIVEN_BUILD)
    if os.path.exists(driver):
        _be_driven(driver)
    else:
        for part in ("build", "push", "end"):
            _say(says(attempt, part))
            _at(part)
    with open(metadata, "w") as file:
        json.dump({"containerimage.digest": "sha256:" + "d" * 64}, file)
    _note("build ended")
    return 0


def _be_driven(driver: str) -> None:
    """Write a part for every byte that comes from the address in this file; the hash of all is left beside it."""
    import hashlib

    with open(driver) as file:
        port, lines = map(int, file.read().split())
    said, number = hashlib.sha256(), 0
    with socket.create_connection(("127.0.0.1", port)) as socket_:
        while socket_.recv(1):
            text = "".join(line(1, "driven", number + i) for i in range(lines))
            number += lines
            said.update(text.encode())
            _say(text)
    with open(driver + ".hash", "w") as file:
        file.write(said.hexdigest())


def _up() -> None:
    attempt = _begin("up")
    _say(says(attempt, "up"))
    _at("up")
    _say(says(attempt, "end"))
    _at("started")
    _note("up ended")


def _begin(what: str) -> int:
    """Which attempt this is, from 1."""
    _note(f"{what} began")
    with open(os.path.join(FOLDER, CARRIED_OUT)) as file:
        return file.read().splitlines().count(f"{what} began")


def _note(what: str) -> None:
    with open(os.path.join(FOLDER, CARRIED_OUT), "a") as file:
        file.write(what + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _at(point: str) -> None:
    with socket.socket(socket.AF_UNIX) as test:
        test.connect(os.path.join(FOLDER, POINTS))
        test.sendall(f"{point} {os.getpid()}\n".encode())
        if test.recv(1) != b".":
            sys.exit(1)


def _touch(path: str) -> None:
    open(path, "w").close()


if __name__ == "__main__":
    sys.exit(git(sys.argv[1]) if sys.argv[0].endswith("git") else docker(sys.argv[1:]))
