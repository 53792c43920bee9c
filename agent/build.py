"""One build: the exact commit, one Dockerfile stage, one architecture, pushed by digest.

The image leaves the Engine's BuildKit for the registry without being unpacked or tagged first, through the builder of
agent/buildkit.py. zstd layers and the build cache of the project go the same way.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # BuildKit's events, as in agent/rawjson.py.

from agent import git, rawjson
from agent.buildkit import BUILDER
from agent.paths import OutsideTree, beneath
from agent.protocol import Build, Failure
from agent.rawjson import Decoder, Progress
from agent.registry import credentials
from agent.report import Reporter, StepFailed
from agent.run import Program, TookTooLong, run
from agent.streams import LogStream

_PLAIN = re.compile(r"[A-Za-z0-9./:@_\[\]-]*")
_NOISE = re.compile("http2: server connection error from localhost")  # buildx says so whenever it hangs up.


@dataclass(frozen=True, slots=True)
class Places:
    """What a build needs of the file system, all inside the work folder of this command."""

    tree: Path
    context: Path
    dockerfile: Path
    metadata: Path


class Builder:
    """`variables` let buildx find the builder."""

    def __init__(self, work_dir: Path, run_dir: Path, variables: Mapping[str, str]) -> None:
        self._work_dir = work_dir / "builds"
        self._run_dir = run_dir
        self._variables = variables

    def remove_leftovers(self) -> None:
        """Delete the work trees of builds that a killed agent did not finish."""
        shutil.rmtree(self._work_dir, ignore_errors=True)

    async def build(self, order: Build, report: Reporter) -> str:
        """The digest of what was pushed. Raises StepFailed."""
        report.hide(order.repo_token, order.registry_token, *(secret.value for secret in order.secrets))
        _refuse_odd(order)
        self._work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=self._work_dir))
        stream = report.stream(f"build/{order.target}")
        try:
            places = await self._clone(order, folder, report, stream)
            with credentials(self._run_dir, order.push_to, order.registry_token) as variables:
                await self._buildx(order, places, report, stream, variables)
            return _digest(order, places.metadata)
        finally:
            stream.close()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _clone(self, order: Build, folder: Path, report: Reporter, stream: LogStream) -> Places:
        tree = folder / "tree"
        with report.step("clone"):
            stream.line(f"Cloning {order.repo} at {order.sha}")
            await git.checkout(order.repo, order.sha, git.Clone(tree, folder / "git"), order.repo_token)
        try:
            context = beneath(tree, order.context)
            places = Places(tree, context, beneath(tree, order.context, order.dockerfile), folder / "metadata.json")
        except OutsideTree as error:
            raise StepFailed(Failure("build", f"target {order.target}: {error}", order.target)) from error
        _require(places, order)
        return places

    async def _buildx(
        self, order: Build, places: Places, report: Reporter, stream: LogStream, variables: Mapping[str, str]
    ) -> None:
        secrets = {f"STAGELY_SECRET_{i}": secret.value for i, secret in enumerate(order.secrets)}
        env = {**variables, **self._variables, **secrets}
        program = Program(command(order, places), order.timeout_s, places.tree, env)
        output = _Output(stream, lambda: report.begin("push"))
        with report.step("build"):
            try:
                exit_code = await run(program, output.feed_stdout, output.feed)
            except TookTooLong as error:
                raise StepFailed(_too_long(order, output.progress, stream)) from error
            finally:
                output.finish()
                _move_push_seconds(report, output.progress)
        if exit_code:
            raise StepFailed(_why(order, output, exit_code, stream))
        cached, steps = output.progress.cached_steps
        if steps:  # A Dockerfile that only names a base has none.
            stream.line(f"Built {order.target}: {cached} of {steps} steps came from the build cache")


class _Output:
    """buildx's stderr: progress events into lines of the stream, other text as it is. `on_push` is called once."""

    def __init__(self, stream: LogStream, on_push: Callable[[], None]) -> None:
        self.progress = Progress()
        self.last_text = ""
        self._stream = stream
        self._on_push = on_push
        self._is_pushing = False
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = Decoder()

    def feed(self, chunk: bytes) -> None:
        for event, line in self._decoder.feed(self._text.decode(chunk)):
            if event is not None:
                self._event(event)
            elif line is not None:
                self._plain(line)

    def _event(self, event: dict[str, Any]) -> None:
        for said in self.progress.event(event):
            self._stream.line(said)
        if not self._is_pushing and self.progress.is_exporting:
            self._is_pushing = True
            self._on_push()

    def feed_stdout(self, chunk: bytes) -> None:
        for line in chunk.decode(errors="replace").splitlines():
            self._plain(line)

    def finish(self) -> None:
        rest = self._decoder.finish()
        if rest:
            self._plain(rest)

    def _plain(self, line: str) -> None:
        if _NOISE.search(line):
            return
        self.last_text = line.strip() or self.last_text
        self._stream.line(line)


def command(order: Build, places: Places) -> list[str]:
    """buildx's argument list. Secrets are named here and stand in the environment. Pure."""
    argv = ["docker", "buildx", "build", "--builder", BUILDER, "--progress", "rawjson", "--provenance=false"]
    argv += ["--platform", f"linux/{order.arch}", "--metadata-file", str(places.metadata)]
    argv += ["--file", str(places.dockerfile)]
    argv += ["--target", order.stage] if order.stage else []
    for key, value in sorted(order.args.items()):
        argv += ["--build-arg", f"{key}={value}"]
    for i, secret in enumerate(order.secrets):
        argv += ["--secret", f"id={secret.key},env=STAGELY_SECRET_{i}"]
    return [*argv, *_outputs(order), "--", str(places.context)]


def _refuse_odd(order: Build) -> None:
    """buildx reads some arguments as lists of settings: a comma in one of these would add a setting to it."""
    fields = {"push_to": order.push_to, "cache": order.cache, "arch": order.arch}
    fields |= {f"secrets[{i}].key": secret.key for i, secret in enumerate(order.secrets)}
    for field, text in fields.items():
        if not _PLAIN.fullmatch(text):
            message = f"target {order.target}: {field} must be of letters, digits and ./:@_-, got {text[:80]!r}."
            raise StepFailed(Failure("build", message, order.target))


def _outputs(order: Build) -> list[str]:
    # oci-mediatypes is not decoration: zstd layers under Docker's media types can be pushed but never pulled (trap 7).
    coding = "oci-mediatypes=true,compression=zstd"
    cache = f"type=registry,ref={order.cache}"
    uses = ["--cache-from", cache, "--cache-to", f"{cache},mode=max,{coding},ignore-error=true"] if order.cache else []
    return [*uses, "--output", f"type=image,name={order.push_to},push=true,push-by-digest=true,store=false,{coding}"]


def _require(places: Places, order: Build) -> None:
    if not places.context.is_dir():
        named = order.context or "."
        message = (
            f"target {order.target}: the build context {named!r} is no folder of {order.repo} at {order.sha[:12]}."
        )
        raise StepFailed(Failure("build", message, order.target))
    if not places.dockerfile.is_file():
        named = str(Path(order.context) / order.dockerfile)
        message = f"target {order.target}: commit {order.sha[:12]} has no file {named}. Check `dockerfile`."
        raise StepFailed(Failure("build", message, order.target))


def _digest(order: Build, metadata: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        digest = json.loads(metadata.read_text())["containerimage.digest"]
        if isinstance(digest, str) and digest.startswith("sha256:"):
            return digest
    message = f"target {order.target} was built, but buildx named no digest in its metadata file. Build again."
    raise StepFailed(Failure("push", message, order.target))


def _move_push_seconds(report: Reporter, progress: Progress) -> None:
    """Count the seconds of the export as "push". Runs inside the step "build", whose own seconds are added after."""
    seconds = progress.export_seconds()
    if seconds:
        report.add_seconds("push", seconds)
        report.add_seconds("build", -seconds)


def _too_long(order: Build, progress: Progress, stream: LogStream) -> Failure:
    at = f" It was at: {progress.current}." if progress.current else ""
    message = f"target {order.target} was not built within {order.timeout_s:g} s and was stopped.{at}"
    return Failure("build", message, order.target, tail=stream.tail)


def _why(order: Build, output: _Output, exit_code: int, stream: LogStream) -> Failure:
    vertex = output.progress.failed
    if vertex is None:
        said = output.last_text.removeprefix("ERROR: ") or f"docker buildx ended with exit code {exit_code}"
        return Failure("build", f"target {order.target}: {said}", order.target, exit_code, stream.tail)
    step = "push" if rawjson.is_export(vertex) else "build"
    code = rawjson.exit_code(vertex.error)
    base = vertex.name.removeprefix(rawjson.METADATA_OF)
    if base != vertex.name:
        said = f"the base image {base} could not be read: {vertex.error}. Check its name and whether it is public"
    elif code is not None:
        said = f"{vertex.name} ended with exit code {code}"
    else:
        said = f"{vertex.name} failed: {vertex.error}"
    tail = tuple(vertex.tail[-rawjson.TAIL_LINES :]) or stream.tail
    return Failure(step, f"target {order.target}: {said}.", order.target, code or exit_code, tail)
