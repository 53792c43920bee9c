"""What a fresh machine is told: cloud-init's user-data, the same text for a cloud VM and a local one. Pure.

Values travel as data only: files are base64, commands are lists of constants. Nothing from an order is ever part of
a shell line.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import yaml

from providers.errors import VmRejected

MAX_BYTES = 12 * 1024  # EC2 takes 16 KB; the rest is headroom (reference/providers.md section 6).
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HOST_PORT = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]{1,5})?\Z")
# curl's configuration file knows quotes and backslashes; a URL that holds neither needs no escaping.
_URL_PATH = re.compile(r"[A-Za-z0-9/._~%\-]*\Z")

CONFIG = "/etc/stagely/config.json"
UNIT = "stagely-agent.service"
DAEMON_JSON = "/etc/docker/daemon.json"
ARCHIVE = "/opt/stagely/stagely-agent.pyz"

_FETCH_SCRIPT = """\
#!/bin/sh
# Fetches the agent's one file and proves it. After a restart of the unit it is there already.
set -eu
check() { sha256sum --check --status /etc/stagely/agent.sha256 2>/dev/null; }
check && exit 0
curl --fail --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused --max-time 60 \\
  --config /etc/stagely/agent.curl --output /opt/stagely/stagely-agent.pyz
check || { echo "stagely-agent.pyz has another SHA-256 than it should; not starting it" >&2; exit 1; }
"""

# No namespaces and no read-only trees: git, docker and Compose work for the user's repository here, bind mounts
# included. What is forbidden, none of them needs. The umask stays 022: a clone's files reach containers that run as
# other users, through COPY and bind mounts.
# Out of memory: the user's containers (score 0) go before the agent and what it started, and a git that goes is a
# failed step, not the end of the unit. The weight lets heartbeats through while a build takes every core. Each
# visitor of a preview costs two descriptors. No core dump: it would hold secrets.
_UNIT_TEXT = f"""\
[Unit]
Description=Stagely agent
After=network-online.target docker.service
Wants=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStartPre=/bin/sh /opt/stagely/fetch-agent
ExecStart=/usr/bin/python3 -I {ARCHIVE} --config {CONFIG}
Environment=HOME=/root
Restart=always
RestartSec=1
TimeoutStartSec=300
TimeoutStopSec=20
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictSUIDSGID=yes
MemoryMax=1G
OOMPolicy=continue
OOMScoreAdjust=-600
CPUWeight=200
TasksMax=2048
LimitNOFILE=65536
LimitCORE=0

[Install]
WantedBy=multi-user.target
"""

# The Engine may run already: SIGHUP makes it read mirrors and insecure registries anew, without a restart.
# The unit is new, so starting it needs no daemon-reload, which would cost 0.1 to 0.2 s.
_COMMANDS = [
    ["systemctl", "reload-or-restart", "docker.service"],
    ["systemctl", "enable", "--no-reload", UNIT],
    ["systemctl", "start", "--no-block", UNIT],
]


@dataclass(frozen=True, slots=True)
class MachineBoot:
    """What one machine has to know.

    `core_url` is the gateway's (`ws://` or `wss://`); `archive_url` and `archive_sha256` name the agent's file.
    `registry` and `mirror` are `host:port` as the VM reaches them, "" for none. `plain_http` is for one machine's own
    network only: it lets the Engine speak plain HTTP to exactly these two. `job_id` is for the agent's log.
    """

    agent_id: str
    token: str = field(repr=False)
    core_url: str
    archive_url: str
    archive_sha256: str
    registry: str = ""
    mirror: str = ""
    plain_http: bool = False
    job_id: str = ""
    silence_limit_s: float = 900.0
    reconnect_first_wait_s: float = 10.0


def render(boot: MachineBoot) -> str:
    """The user-data, at most MAX_BYTES, the same bytes for the same input.

    Raises VmRejected for an address or checksum that is none, and for a text that is too long.
    """
    _check(boot)
    document: dict[str, object] = {
        "ssh_pwauth": False,
        "disable_root": True,
        "write_files": [
            _file(CONFIG, _config(boot), "0600"),
            _file("/etc/stagely/agent.curl", f'url = "{boot.archive_url}"\n', "0600"),
            _file("/etc/stagely/agent.sha256", f"{boot.archive_sha256}  {ARCHIVE}\n", "0644"),
            _file("/opt/stagely/fetch-agent", _FETCH_SCRIPT, "0755"),
            _file(f"/etc/systemd/system/{UNIT}", _UNIT_TEXT, "0644"),
            _file(DAEMON_JSON, daemon_json(boot), "0644"),
        ],
        "runcmd": _COMMANDS,
    }
    text = "#cloud-config\n" + yaml.safe_dump(document, sort_keys=False, width=1_000_000)
    if len(text.encode()) > MAX_BYTES:
        raise VmRejected(
            f"user-data of {boot.agent_id} has {len(text.encode())} bytes, at most {MAX_BYTES} are allowed"
        )
    return text


def daemon_json(boot: MachineBoot) -> str:
    """The Engine's settings. containerd's image store keeps zstd layers and digests as they were pushed."""
    settings: dict[str, object] = {
        "features": {"containerd-snapshotter": True},
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
    }
    if boot.plain_http:
        settings["insecure-registries"] = [host for host in (boot.registry, boot.mirror) if host]
    if boot.mirror:
        scheme = "http" if boot.plain_http else "https"
        settings["registry-mirrors"] = [f"{scheme}://{boot.mirror}"]
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def early_daemon_json(user_data: str) -> str:
    """The Engine's settings that this user-data will write, or "": for an Engine that starts beside cloud-init."""
    document = yaml.safe_load(user_data)
    files = document.get("write_files", []) if isinstance(document, dict) else []
    found = [file["content"] for file in files if file["path"] == DAEMON_JSON]
    return base64.b64decode(found[0]).decode() if found else ""


def _config(boot: MachineBoot) -> str:
    settings = {
        "agent_id": boot.agent_id,
        "token": boot.token,
        "core_url": boot.core_url,
        "job_id": boot.job_id,
        "silence_limit_s": boot.silence_limit_s,
        "reconnect_first_wait_s": boot.reconnect_first_wait_s,
    }
    return json.dumps(settings, indent=2) + "\n"


def _file(path: str, content: str, permissions: str) -> dict[str, str]:
    encoded = base64.b64encode(content.encode()).decode()
    return {"path": path, "permissions": permissions, "encoding": "b64", "content": encoded}


def _check(boot: MachineBoot) -> None:
    _check_url(boot, "core_url", boot.core_url, ("ws", "wss"))
    _check_url(boot, "archive_url", boot.archive_url, ("http", "https"))
    if not _SHA256.match(boot.archive_sha256):
        raise _wrong(boot, "archive_sha256", boot.archive_sha256, "64 hexadecimal digits")
    for name, value in (("registry", boot.registry), ("mirror", boot.mirror)):
        if value and not _HOST_PORT.match(value):
            raise _wrong(boot, name, value, "host:port")


def _check_url(boot: MachineBoot, name: str, value: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(value)
    if parts.scheme not in schemes or not _HOST_PORT.match(parts.netloc) or not _URL_PATH.match(parts.path):
        raise _wrong(boot, name, value, f"{schemes[0]}:// or {schemes[1]}://HOST[:PORT]/PATH")
    if parts.query or parts.fragment:
        raise _wrong(boot, name, value, "without a query and a fragment")


def _wrong(boot: MachineBoot, name: str, value: str, wanted: str) -> VmRejected:
    return VmRejected(f"user-data of {boot.agent_id}: {name} must be {wanted}, got {value[:200]!r}")
