"""Download Temporal's dev server as the Temporal SDK does, to the path given; exit 1 when that cannot be done."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

START_LIMIT_S = 110.0  # Below the limit of the step that runs this: the download is 50 MB.


async def download(destination: Path) -> None:
    """The SDK downloads only by starting a server: it is stopped at once, and the program kept."""
    with tempfile.TemporaryDirectory() as folder:
        async with asyncio.timeout(START_LIMIT_S):
            server = await WorkflowEnvironment.start_local(download_dest_dir=folder, dev_server_log_level="error")
            await server.shutdown()
        program = max(Path(folder).iterdir(), key=lambda file: file.stat().st_size)
        shutil.move(program, destination)
    destination.chmod(0o755)


def main() -> int:
    try:
        asyncio.run(download(Path(sys.argv[1])))
    except (RuntimeError, TimeoutError, OSError) as error:
        print(f"the SDK could not download Temporal's dev server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
