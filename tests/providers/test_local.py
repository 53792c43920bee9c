"""Provider `local` on the real Docker Engine. The containers here sleep instead of booting; e2e boots real ones."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from providers import catalog
from providers.base import PowerState, Provider, VmOrder
from providers.docker_engine import Engine
from providers.errors import ProviderUnavailable, VmRejected
from providers.local import LocalProvider, container_spec, usable_resolvers
from stagely.ids import mint
from stagely.settings import Settings
from stagely.states import VmRole
from tests.fakes.docker_proxy import DockerProxy
from tests.providers.contract import ALPHA, ProviderContract, order, proven_gone

SOCKET = "/var/run/docker.sock"
DOCKER_S = 120


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=DOCKER_S, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def sleeping_image() -> Iterator[str]:
    """The image of local VMs, with a first process that only sleeps: contract tests need no boot."""
    images = docker("image", "ls", "--quiet", "--filter", "reference=stagely/local-vm").split()
    assert images, "the image of local VMs is missing: make setup"
    tag = f"stagely-test:{mint('sleep')}"
    container = docker("create", images[0], "/bin/true")
    docker("commit", "--change", 'ENTRYPOINT ["/bin/sleep", "600"]', "--change", "CMD []", container, tag)
    docker("rm", container)
    yield tag
    docker("image", "rm", "--no-prune", tag)


class DockerWorld:
    """One Engine behind a proxy that loses replies; installations get names of their own for each test."""

    def __init__(self, folder: Path, image: str, network: str, proxy: DockerProxy) -> None:
        self.seeds = folder / ALPHA
        self._folder = folder
        self._socket = str(folder / "docker.sock")
        self._image = image
        self.network = network
        self._proxy = proxy
        self._open: list[Provider] = []

    def provider(self, installation: str, *, image: str = "", network: str = "") -> LocalProvider:
        opened = LocalProvider(
            engine=Engine(self._socket),
            installation=installation,
            image=image or self._image,
            network=network or self.network,
            seeds=self._folder / installation,
        )
        self._open.append(opened)
        return opened

    def lose_next_create(self, *, after: bool) -> None:
        self._proxy.lose_next_create(after=after)

    async def count(self, vm_id: str) -> int:
        label = f"label=stagely.vm={vm_id}"
        return len((await asyncio.to_thread(docker, "ps", "--all", "--quiet", "--filter", label)).split())

    async def close(self) -> None:
        for provider in self._open:
            for vm in await provider.list_owned():
                await provider.destroy(vm.vm_id)
            await provider.aclose()


@pytest.fixture
async def world(tmp_path: Path, sleeping_image: str) -> AsyncIterator[DockerWorld]:
    network = mint("stagely-test")
    docker("network", "create", network)
    proxy = DockerProxy(SOCKET)
    async with proxy.listening(tmp_path / "docker.sock"):
        world = DockerWorld(tmp_path, sleeping_image, network, proxy)
        try:
            yield world
        finally:
            await world.close()
            docker("network", "rm", network)


@pytest.mark.docker
class TestLocal(ProviderContract):
    async def test_a_vm_that_was_made_but_not_started_is_started(self, world: DockerWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)
        docker("kill", f"stg-{wanted.vm_id}")
        docker("rm", f"stg-{wanted.vm_id}")
        labels = [f"--label=stagely.{k}={v}" for k, v in (("installation", ALPHA), ("vm", wanted.vm_id))]
        image = docker("image", "ls", "--quiet", "stagely-test").split()[0]
        docker("create", "--name", f"stg-{wanted.vm_id}", "--network", world.network, *labels, image)

        vm = await provider.create(wanted)

        assert vm.power is PowerState.RUNNING
        assert vm.address is not None

    async def test_a_vm_that_is_off_is_listed_as_off_and_never_started_again(self, world: DockerWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)
        docker("kill", f"stg-{wanted.vm_id}")

        with pytest.raises(VmRejected, match="is off"):
            await provider.create(wanted)

        assert [vm.power for vm in await provider.list_owned()] == [PowerState.OFF]

    async def test_the_seed_is_private_and_goes_with_the_vm(self, world: DockerWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)
        folder = world.seeds / wanted.vm_id
        mode = folder.stat().st_mode & 0o777
        text = (folder / "nocloud" / "user-data").read_text()

        await provider.destroy(wanted.vm_id)
        await proven_gone(provider, wanted.vm_id)

        assert mode == 0o700
        assert text == wanted.user_data
        assert not folder.exists()

    async def test_anonymous_volumes_go_with_the_vm(self, world: DockerWorld) -> None:
        provider = world.provider(ALPHA)
        wanted = order()
        await provider.create(wanted)
        docker("rm", "--force", f"stg-{wanted.vm_id}")
        labels = [f"--label=stagely.{k}={v}" for k, v in (("installation", ALPHA), ("vm", wanted.vm_id))]
        image = docker("image", "ls", "--quiet", "stagely-test").split()[0]
        docker("create", "--name", f"stg-{wanted.vm_id}", "--volume", "/data", *labels, image)
        volume = docker("inspect", "--format", "{{(index .Mounts 0).Name}}", f"stg-{wanted.vm_id}")

        await provider.destroy(wanted.vm_id)

        assert volume not in docker("volume", "ls", "--quiet").split()

    async def test_a_missing_image_says_make_setup(self, world: DockerWorld) -> None:
        with pytest.raises(VmRejected, match="make setup"):
            await world.provider(ALPHA, image="stagely/local-vm:none").create(order())

    async def test_a_missing_network_says_what_to_start(self, world: DockerWorld) -> None:
        with pytest.raises(VmRejected, match="stagely dev"):
            await world.provider(ALPHA, network="stagely-none").create(order())


async def test_no_engine_is_unavailable_and_says_how_to_start_it(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "nobody.sock"))
    provider = LocalProvider(engine=engine, installation=ALPHA, image="i", network="n", seeds=tmp_path)

    with pytest.raises(ProviderUnavailable, match="make setup"):
        await provider.find("vm-a")
    await provider.aclose()


async def test_another_architecture_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "nobody.sock"))
    provider = LocalProvider(engine=engine, installation=ALPHA, image="i", network="n", seeds=tmp_path / "vms")
    fields = {name: getattr(order("vm-a"), name) for name in VmOrder.__slots__}

    with pytest.raises(VmRejected, match="architecture"):
        await provider.create(VmOrder(**{**fields, "arch": "s390x"}))

    assert not (tmp_path / "vms").exists()
    await provider.aclose()


@pytest.mark.parametrize("vm_id", ["../evil", "UPPER", "", "a" * 60])
async def test_an_id_that_is_no_dns_label_is_refused(tmp_path: Path, vm_id: str) -> None:
    engine = Engine(str(tmp_path / "nobody.sock"))
    provider = LocalProvider(engine=engine, installation=ALPHA, image="i", network="n", seeds=tmp_path / "vms")
    fields = {name: getattr(order("vm-a"), name) for name in VmOrder.__slots__}

    with pytest.raises(VmRejected, match="DNS label"):
        await provider.create(VmOrder(**{**fields, "vm_id": vm_id}))
    await provider.aclose()


def test_the_container_is_what_was_measured_to_work(tmp_path: Path) -> None:
    wanted = VmOrder(
        "vm-a", "alpha", "prj-1", "env-1", VmRole.BUILDER, "", "amd64", size="2g", expires_at=1_900_000_000
    )

    spec = container_spec(wanted, image="stagely/local-vm:1", network="stagely-alpha", folder=tmp_path)

    assert spec == {
        "Image": "stagely/local-vm:1",
        "Hostname": "vm-a",
        "Labels": {
            "stagely.installation": "alpha",
            "stagely.vm": "vm-a",
            "stagely.environment": "env-1",
            "stagely.role": "builder",
            "stagely.expires": "1900000000",
        },
        "HostConfig": {
            "NetworkMode": "stagely-alpha",
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": f"{tmp_path}/nocloud",
                    "Target": "/var/lib/cloud/seed/nocloud",
                    "ReadOnly": True,
                }
            ],
            "Memory": 2147483648,
            "CapAdd": ["ALL"],
            "CapDrop": ["SYS_RESOURCE"],
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
            "CgroupnsMode": "private",
            "DeviceCgroupRules": ["a *:* rwm"],
            "Tmpfs": {
                "/run": "exec",
                "/run/lock": "",
                "/tmp": "exec",
                "/var/lib/docker": "exec,mode=710",
                "/var/lib/containerd": "exec,mode=711",
            },
        },
    }


def test_a_size_that_is_no_memory_names_the_key(tmp_path: Path) -> None:
    wanted = VmOrder("vm-a", "alpha", "prj-1", "env-1", VmRole.PREVIEW, "", "amd64", size="cx23")

    with pytest.raises(VmRejected, match=r"preview\.size"):
        container_spec(wanted, image="i", network="n", folder=tmp_path)


def test_loopback_name_servers_are_left_out_and_the_next_file_is_taken() -> None:
    stub = "nameserver 127.0.0.53\noptions edns0\n"
    real = "search lan\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n"

    assert usable_resolvers([stub, real]) == "search lan\nnameserver 192.0.2.1\n"
    assert usable_resolvers([stub]) == ""


def test_the_catalog_knows_local_and_names_what_it_knows() -> None:
    settings = Settings()

    assert catalog.load("local", settings).name == "local"
    with pytest.raises(VmRejected, match="choose one of local"):
        catalog.load("mars", settings)


def test_a_docker_host_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DOCKER_HOST", "tcp://192.0.2.1:2375")

    with pytest.raises(VmRejected, match="DOCKER_HOST"):
        catalog.load("local", Settings())
