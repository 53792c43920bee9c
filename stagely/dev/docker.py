"""The few things asked of the Docker Engine: the VM network of an installation, and what carries its label."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stagely.dev.folder import StateFolder, write_json
from stagely.dev.refusal import Refused

LABEL = "stagely.installation"
COMMAND_TIMEOUT_S = 60.0  # Creating or listing takes 0.1 to 0.3 s; removing a VM with a running app 1.2 s.
REMOVE_TIMEOUT_S = 180.0
_SETUP = "Run: make setup"


class DockerFailed(Exception):
    """The docker command ended with an error; the text is its own."""


@dataclass(frozen=True, slots=True)
class VmNetwork:
    """Docker network of an installation's VMs. `gateway`: the host's address on it, where VMs reach our programs."""

    name: str
    subnet: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the Engine holds of one installation."""

    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


async def docker(*arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Output of one docker command. Raises DockerFailed, and Refused when there is no docker command at all."""
    try:
        process = await asyncio.create_subprocess_exec(
            "docker", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise Refused(f"Docker is not installed: there is no docker command on PATH. {_SETUP}") from None
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    except TimeoutError:
        raise DockerFailed(f"docker {arguments[0]} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise DockerFailed(errors.decode(errors="replace").strip() or f"exit code {process.returncode}")
    return output.decode(errors="replace").strip()


async def refuse_missing_engine(vm_image: str) -> None:
    """Raises Refused when the Engine does not answer or the image of local VMs is not there."""
    try:
        await docker("version", "--format", "{{.Server.Version}}")
    except DockerFailed as error:
        raise Refused(f"Docker Engine does not answer ({error}). Start it, or install it. {_SETUP}") from error
    try:
        await docker("image", "inspect", "--format", "{{.Id}}", vm_image)
    except DockerFailed as error:
        raise Refused(f"The local VM's image {vm_image} is not in Docker Engine. {_SETUP}") from error


async def ensure_network(folder: StateFolder, installation: str) -> VmNetwork:
    """Find or make the installation's network, at the addresses it had before if they are still free.

    Raises:
        Refused: the Engine will not make one; its own words say why (often: all its address pools are used up).
    """
    name = f"stagely-{installation}"
    found = await _inspect(name)
    if found is None:
        try:
            found = await _create(name, installation, _remembered(folder.network))
        except DockerFailed as error:
            raise Refused(
                f"Docker would not make the network {name} ({error}). "
                "Remove networks that nothing uses: docker network prune"
            ) from error
    write_json(folder.network, {"subnet": found.subnet, "gateway": found.gateway})
    return found


async def labelled(installation: str) -> Labelled:
    """Names of everything with the installation's label; VMs of a running `docker rm` may still be among them."""
    wanted = f"label={LABEL}={installation}"
    containers, volumes, networks = await asyncio.gather(
        docker("ps", "--all", "--filter", wanted, "--format", "{{.Names}}"),
        docker("volume", "ls", "--filter", wanted, "--format", "{{.Name}}"),
        docker("network", "ls", "--filter", wanted, "--format", "{{.Name}}"),
    )
    return Labelled(tuple(containers.split()), tuple(volumes.split()), tuple(networks.split()))


async def remove(found: Labelled) -> None:
    """Remove these, containers first. Raises DockerFailed when one stays."""
    if found.containers:
        await docker("rm", "--force", "--volumes", *found.containers, timeout_s=REMOVE_TIMEOUT_S)
    if found.volumes:
        await docker("volume", "rm", "--force", *found.volumes, timeout_s=REMOVE_TIMEOUT_S)
    if found.networks:
        await docker("network", "rm", *found.networks)


async def _inspect(name: str) -> VmNetwork | None:
    try:
        found = await docker("network", "inspect", "--format", "{{json (index .IPAM.Config 0)}}", name)
    except DockerFailed:
        return None
    config = json.loads(found)
    return VmNetwork(name, str(config["Subnet"]), str(config["Gateway"]))


async def _create(name: str, installation: str, addresses: Sequence[str]) -> VmNetwork:
    # Without icc VMs cannot reach one another; the host's ports stay reachable (reference: local-vm.md, trap 14).
    fixed = ("--label", f"{LABEL}={installation}", "--opt", "com.docker.network.bridge.enable_icc=false", name)
    try:
        await docker("network", "create", *addresses, *fixed)
    except DockerFailed:
        if not addresses:
            raise
        await docker("network", "create", *fixed)  # Another network took the addresses meanwhile.
    made = await _inspect(name)
    if made is None:
        raise DockerFailed(f"network {name} is not there after it was made")
    return made


def _remembered(path: Path) -> tuple[str, ...]:
    """Arguments for the addresses of last time; repository URLs of pull requests hold the gateway's address."""
    try:
        known = json.loads(path.read_text())
        return ("--subnet", str(known["subnet"]), "--gateway", str(known["gateway"]))
    except (OSError, ValueError, KeyError):
        return ()
