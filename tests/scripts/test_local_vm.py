"""The image of local VMs, booted as the `local` provider boots it, with a seed of the test's own."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
LIMIT_S = 60
CACHE = Path(
    os.environ.get("STAGELY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "stagely")
).expanduser()
CAPABILITIES = ("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private")
UNCONFINED = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
DEVICES = ("--device-cgroup-rule", "a *:* rwm")
MEMORY = ("--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec")
STORES = ("--tmpfs", "/var/lib/docker:exec,mode=710", "--tmpfs", "/var/lib/containerd:exec,mode=711")
USER_DATA = """\
#cloud-config
write_files:
  - {path: /etc/stagely/greeting, content: hello}
runcmd:
  - [cp, /etc/stagely/greeting, /run/greeted]
"""


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    return done.stdout.strip()


def inside(vm: str, *command: str) -> str:
    """Output of a command in the VM, whatever its exit code says."""
    done = subprocess.run(
        ["docker", "exec", vm, *command], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name = f"test-vm-{secrets.token_hex(4)}"
    seed = tmp_path_factory.mktemp("seed")
    (seed / "meta-data").write_text(f"instance-id: {name}\n")
    (seed / "user-data").write_text(USER_DATA)
    (seed / "daemon.json").write_text(
        json.dumps({"features": {"containerd-snapshotter": True}, "labels": ["seed=read"]})
    )
    image = json.loads((CACHE / "setup.json").read_text())["vm_image"]
    mounts = ("-v", f"{seed}:/var/lib/cloud/seed/nocloud:ro")
    docker("run", "-d", "--name", name, *CAPABILITIES, *UNCONFINED, *DEVICES, *MEMORY, *STORES, *mounts, image)
    inside(name, "cloud-init", "status", "--wait")
    yield name
    docker("rm", "--force", "--volumes", name)


def test_systemd_comes_up_without_a_failed_unit(vm: str) -> None:
    state = inside(vm, "systemctl", "is-system-running", "--wait")

    assert inside(vm, "systemctl", "--failed", "--no-legend") == ""
    assert state == "running"


def test_cloud_init_runs_what_the_user_data_says(vm: str) -> None:
    result = json.loads(inside(vm, "cat", "/run/cloud-init/result.json"))

    assert inside(vm, "cat", "/run/greeted") == "hello"
    assert result["v1"]["errors"] == []


def test_the_engine_takes_its_configuration_from_the_seed(vm: str) -> None:
    engine = json.loads(inside(vm, "docker", "info", "--format", "{{json .}}"))

    assert engine["Labels"] == ["seed=read"]
    assert engine["DriverStatus"] == [["driver-type", "io.containerd.snapshotter.v1"]]


def test_a_container_runs_below_the_vms_own_cgroup(vm: str) -> None:
    saved = subprocess.run(["docker", "save", "busybox:1"], capture_output=True, check=True, timeout=LIMIT_S)
    subprocess.run(["docker", "exec", "-i", vm, "docker", "load"], input=saved.stdout, check=True, timeout=LIMIT_S)

    container = inside(vm, "docker", "run", "--detach", "--network", "bridge", "busybox:1", "sleep", "60")

    vm_id = docker("inspect", "--format", "{{.Id}}", vm)
    assert list(Path("/sys/fs/cgroup").glob(f"**/*{vm_id}*/**/*{container}*"))


def test_docker_answers_as_a_remote_builder(vm: str) -> None:
    write = "mkdir -p /tmp/context && printf 'FROM busybox:1\\nRUN echo built > /it\\n' > /tmp/context/Dockerfile"
    inside(vm, "sh", "-c", write)
    build = "HOME=/root docker buildx build --builder vm --progress plain --output type=cacheonly /tmp/context 2>&1"

    assert "RUN echo built" in inside(vm, "sh", "-c", build)
