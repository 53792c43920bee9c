"""The registry's token, where the Docker command line looks for it and nowhere else."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.files import write_private


@contextmanager
def credentials(run_dir: Path, reference: str, token: str) -> Iterator[dict[str, str]]:
    """Variables that let a Docker command use this token for the registry of `reference`; gone afterwards.

    `run_dir` is in memory.
    """
    if not token:
        yield {}
        return
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="docker-", dir=run_dir))
    try:
        auth = base64.b64encode(f"stagely:{token}".encode()).decode()
        host = reference.split("/", 1)[0]
        write_private(folder / "config.json", json.dumps({"auths": {host: {"auth": auth}}}))
        yield {"DOCKER_CONFIG": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a killed agent could not."""
    for folder in run_dir.glob("docker-*"):
        shutil.rmtree(folder, ignore_errors=True)
