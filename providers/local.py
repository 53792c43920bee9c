"""Provider `local`: a VM is a container with systemd, real cloud-init and a Docker Engine of its own.

It boots in a second or two from an image that setup made, reads the very user-data of a cloud VM, and is no security
boundary: it holds nearly every capability, so it is for trusted repositories on one's own machine.
The flags, and why each is needed, stand in `container_spec`; the image is made from deploy/local-vm/.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from pydantic import BaseModel, TypeAdapter

from providers import docker_engine
from providers.base import PowerState, Provider, Vm, VmOrder
from providers.cloud_init import MAX_BYTES, early_daemon_json
from providers.docker_engine import Answer, Engine
from providers.errors import ProviderUnavailable, VmRejected
from stagely.settings import Settings

ADOPT_LIMIT_S = 20.0  # Between reserving a name and listing the container the Engine writes its folders.
ADOPT_POLL_S = 0.1
DEFAULT_MEMORY_GIB = 4  # A ceiling, not a reservation: a preview of three services was seen to peak at 0.7 GiB.

_VM_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,58}\Z")  # With "stg-" a DNS label, and safe as a folder's name.
_SIZE = re.compile(r"([1-9][0-9]{0,2})g\Z")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_POWER = {"created": PowerState.PENDING, "running": PowerState.RUNNING, "restarting": PowerState.RUNNING}
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
# All containers together weigh as one ordinary process by default on cgroup v1, so that VMs starve beside a busy
# host: one pull took 12 s for 5 CPU seconds. 20 times the weight was seen to be enough.
_CPU_WEIGHT = Path("/sys/fs/cgroup/cpu/docker/cpu.shares")
_DEFAULT_WEIGHT, _WEIGHT = "1024", "20480"

log = structlog.get_logger()


def open_provider(settings: Settings) -> Provider:
    """For providers.catalog. DOCKER_HOST is Docker's own variable; only a Unix socket makes sense for bind mounts."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not host.startswith("unix://"):
        raise VmRejected(f"DOCKER_HOST is {host!r}: the provider local needs an Engine on this machine (unix://...)")
    return LocalProvider(
        engine=Engine(host.removeprefix("unix://")),
        installation=settings.installation,
        image=settings.local_vm_image,
        network=settings.local_network,
        seeds=settings.state.resolve() / "vms",
    )


class _Network(BaseModel):
    IPAddress: str = ""


class _NetworkSettings(BaseModel):
    Networks: dict[str, _Network] = {}


class _Listed(BaseModel):
    """One element of the Engine's GET /containers/json."""

    Id: str
    Created: int
    State: str
    Status: str = ""
    Labels: dict[str, str] = {}
    NetworkSettings: _NetworkSettings = _NetworkSettings()


_LIST = TypeAdapter(list[_Listed])


class LocalProvider:
    """The container's name is the idempotency key; labels say whose it is; `seeds` holds each VM's user-data."""

    name: str = "local"

    def __init__(self, *, engine: Engine, installation: str, image: str, network: str, seeds: Path) -> None:
        self._engine = engine
        self._installation = installation
        self._image = image
        self._network = network
        self._seeds = seeds

    async def create(self, order: VmOrder) -> Vm:
        """As Provider.create. A name that is taken is adopted, and started if the one before us did not get to it.

        Raises VmRejected also for a VM that was made before and is off: it is never started a second time, because
        its agent switched it off for a reason.
        """
        _check(order, self._installation)
        folder = self._write_seed(order)
        spec = container_spec(order, image=self._image, network=self._network, folder=folder)
        answer = await self._create_container(order.vm_id, spec)
        if answer.status == 404:
            raise VmRejected(f"the image {self._image!r} of local VMs is not there ({answer.message}). Run: make setup")
        if answer.status not in (201, 409):
            raise docker_engine.refused(f"create VM {order.vm_id}", answer)
        await self._start_if_new(order.vm_id)
        return await self._running(order.vm_id)

    async def find(self, vm_id: str) -> Vm | None:
        found = await self._list(f"stagely.vm={vm_id}")
        return self._vm(found[0]) if found else None

    async def destroy(self, vm_id: str) -> None:
        for listed in await self._list(f"stagely.vm={vm_id}"):
            await self._remove(vm_id, listed.Id)
        if _VM_ID.match(vm_id):
            _remove_folder(self._seeds / vm_id)

    async def list_owned(self) -> Sequence[Vm]:
        return [self._vm(listed) for listed in await self._list("stagely.vm")]

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def _create_container(self, vm_id: str, spec: Mapping[str, object]) -> Answer:
        call = self._engine.call(
            "POST",
            "/containers/create",
            params={"name": container_name(vm_id)},
            body=spec,
            deadline_s=docker_engine.CREATE_S,
        )
        creating = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            # The Engine makes the container though nobody listens any more. Wait for it, or the destroy that comes
            # next would find nothing, and the VM would appear after it.
            await asyncio.wait([creating])
            raise

    async def _start_if_new(self, vm_id: str) -> None:
        vm = await self._listed_soon(vm_id)
        if vm.State != "created":
            return
        answer = await self._engine.call("POST", f"/containers/{vm.Id}/start", deadline_s=docker_engine.START_S)
        if answer.status == 404 and "network" in answer.message:  # The sentence is the Engine's only sign of it.
            raise VmRejected(f"the Docker network {self._network!r} is not there: start the installation (stagely dev)")
        if answer.status not in (204, 304):
            raise docker_engine.refused(f"start VM {vm_id}", answer)
        _raise_cpu_weight()

    async def _running(self, vm_id: str) -> Vm:
        listed = await self._listed_soon(vm_id)
        vm = self._vm(listed)
        if vm.power is PowerState.OFF:
            raise VmRejected(
                f"VM {vm_id} is off ({listed.Status}) and is not started again. "
                f"docker logs {container_name(vm_id)} says more; destroy it and order another."
            )
        return vm

    async def _listed_soon(self, vm_id: str) -> _Listed:
        """The container once it is listed: another create of the same name may have reserved it a moment ago."""
        try:
            async with asyncio.timeout(ADOPT_LIMIT_S):
                while True:
                    found = await self._list(f"stagely.vm={vm_id}")
                    if found:
                        return found[0]
                    await asyncio.sleep(ADOPT_POLL_S)
        except TimeoutError as error:
            raise ProviderUnavailable(
                f"the name {container_name(vm_id)} is taken, but installation {self._installation} has no such VM "
                f"after {ADOPT_LIMIT_S:.0f} s. Look at: docker inspect {container_name(vm_id)}"
            ) from error

    async def _list(self, label: str) -> list[_Listed]:
        labels = [f"stagely.installation={self._installation}", label]
        params = {"all": "1", "filters": json.dumps({"label": labels})}
        answer = await self._engine.call("GET", "/containers/json", params=params, deadline_s=docker_engine.READ_S)
        if answer.status != 200:
            raise docker_engine.refused("list the VMs", answer)
        return _LIST.validate_json(answer.content)

    async def _remove(self, vm_id: str, native_id: str) -> None:
        params = {"force": "1", "v": "1"}  # v: anonymous volumes go with it.
        path = f"/containers/{native_id}"
        answer = await self._engine.call("DELETE", path, params=params, deadline_s=docker_engine.DESTROY_S)
        # 404: gone meanwhile; 409: somebody else is removing it. `find` proves the end of both.
        if answer.status not in (204, 404, 409):
            raise docker_engine.refused(f"destroy VM {vm_id}", answer)

    def _vm(self, listed: _Listed) -> Vm:
        network = listed.NetworkSettings.Networks.get(self._network)
        return Vm(
            vm_id=listed.Labels["stagely.vm"],
            native_id=listed.Id,
            power=_POWER.get(listed.State, PowerState.OFF),
            address=network.IPAddress or None if network else None,
            created_at=float(listed.Created),
            environment_id=listed.Labels.get("stagely.environment", ""),
            role=listed.Labels.get("stagely.role", ""),
        )

    def _write_seed(self, order: VmOrder) -> Path:
        """The NoCloud seed of this VM. 0700: the user-data holds the enrolment token."""
        folder = self._seeds / order.vm_id
        for path in (self._seeds, folder, folder / "nocloud"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "nocloud" / "user-data").write_text(order.user_data)
        meta = {"instance-id": order.vm_id, "local-hostname": order.vm_id}
        (folder / "nocloud" / "meta-data").write_text(json.dumps(meta) + "\n")  # JSON is YAML.
        if settings := early_daemon_json(order.user_data):
            # The image's Engine starts beside cloud-init, too early for the file that cloud-init writes.
            (folder / "nocloud" / "daemon.json").write_text(settings)
        resolvers = usable_resolvers([path.read_text() for path in _RESOLVERS if path.is_file()])
        if resolvers:
            (folder / "resolv.conf").write_text(resolvers)
        return folder


def container_name(vm_id: str) -> str:
    return f"stg-{vm_id}"


def container_spec(order: VmOrder, *, image: str, network: str, folder: Path) -> Mapping[str, object]:
    """The body of the Engine's POST /containers/create for this VM."""
    mounts = [_mount(folder / "nocloud", "/var/lib/cloud/seed/nocloud")]
    if (folder / "resolv.conf").is_file():
        # Docker's own resolver on a network is 127.0.0.11, which the containers inside the VM could not reach.
        mounts.append(_mount(folder / "resolv.conf", "/etc/resolv.conf"))
    return {
        "Image": image,
        "Hostname": order.vm_id,
        "Labels": {
            "stagely.installation": order.installation,
            "stagely.vm": order.vm_id,
            "stagely.environment": order.environment_id,
            "stagely.role": order.role.value,
            "stagely.expires": str(order.expires_at),
        },
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": mounts,
            "Memory": _memory_bytes(order),
            # Some machines lack SYS_RESOURCE themselves, so that --privileged fails there; nothing inside needs it.
            "CapAdd": ["ALL"],
            "CapDrop": ["SYS_RESOURCE"],
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
            "CgroupnsMode": "private",
            "DeviceCgroupRules": ["a *:* rwm"],  # Privileged containers inside the VM fail on cgroup v1 without it.
            "Tmpfs": {
                "/run": "exec",
                "/run/lock": "",
                "/tmp": "exec",
                # In memory: pulls cost a third of the CPU they cost on a disk, and nothing is left behind.
                "/var/lib/docker": "exec,mode=710",
                "/var/lib/containerd": "exec,mode=711",
            },
        },
    }


def usable_resolvers(files: Sequence[str]) -> str:
    """The first of these resolv.conf texts with its loopback name servers left out, or "" when none is left in any."""
    for text in files:
        lines = [line for line in text.splitlines() if not re.match(r"\s*nameserver\s+(127\.|::1\b)", line)]
        if any(line.lstrip().startswith("nameserver") for line in lines):
            return "\n".join(lines) + "\n"
    return ""


def _mount(source: Path, target: str) -> Mapping[str, object]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}


def _check(order: VmOrder, installation: str) -> None:
    host = _ARCHITECTURES.get(platform.machine(), platform.machine())
    if not _VM_ID.match(order.vm_id):
        raise VmRejected(f"the VM id {order.vm_id!r} is no DNS label of at most 59 characters")
    if order.installation != installation:
        raise VmRejected(f"VM {order.vm_id} is for installation {order.installation!r}, this one is {installation!r}")
    if order.arch != host:
        raise VmRejected(
            f"local VMs have this machine's architecture ({host}), not {order.arch!r}. "
            f"Leave `arch` out of stagely.yaml or choose a cloud."
        )
    if len(order.user_data.encode()) > MAX_BYTES:
        raise VmRejected(f"user-data of {order.vm_id} has more than {MAX_BYTES} bytes")


def _memory_bytes(order: VmOrder) -> int:
    if not order.size:
        return DEFAULT_MEMORY_GIB << 30
    match = _SIZE.match(order.size)
    if match is None:
        raise VmRejected(f'preview.size: a local VM\'s size is its memory such as "4g", got {order.size!r}')
    return int(match[1]) << 30


def _raise_cpu_weight() -> None:
    try:
        if _CPU_WEIGHT.read_text().strip() == _DEFAULT_WEIGHT:
            _CPU_WEIGHT.write_text(_WEIGHT)
    except OSError as error:
        # cgroup v2, or not ours to change: VMs are slower beside a busy host, and that is all.
        log.debug("cpu weight of containers left as it is", reason=str(error))


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return  # Never made, or another destroy was faster.
    except OSError as error:
        raise ProviderUnavailable(f"{folder} of a destroyed VM cannot be removed ({error}). Remove it.") from error
