"""User-data, compared as a whole: what a reviewer reads here is what a machine gets."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
import yaml

from providers.cloud_init import MAX_BYTES, MachineBoot, early_daemon_json, render
from providers.errors import VmRejected

BOOT = MachineBoot(
    agent_id="vm-0123456789ab",
    token="header.claims.signature",
    core_url="ws://172.30.0.1:8001",
    archive_url="http://172.30.0.1:8000/v1/agent/archive/" + "ab" * 32 + "/stagely-agent.pyz",
    archive_sha256="ab" * 32,
    registry="172.30.0.1:8003",
    mirror="172.30.0.1:8004",
    plain_http=True,
    job_id="build-1",
    silence_limit_s=900.0,
    reconnect_first_wait_s=1.0,
)


def readable(user_data: str) -> str:
    """The same document with its files in clear: each as a header line and its text, then the rest as YAML."""
    document = yaml.safe_load(user_data)
    files = [
        f"--- {f['path']} {f['permissions']}\n{base64.b64decode(f['content']).decode()}"
        for f in document.pop("write_files")
    ]
    return user_data.partition("\n")[0] + "\n" + "".join(files) + "--- the rest\n" + yaml.safe_dump(document)


def test_the_whole_user_data() -> None:
    assert readable(render(BOOT)) == WHOLE


def test_same_input_gives_same_bytes() -> None:
    assert render(BOOT) == render(replace(BOOT))


def test_a_cloud_vm_speaks_tls_to_registry_and_mirror() -> None:
    boot = replace(BOOT, registry="registry.example.com", mirror="mirror.example.com", plain_http=False)

    text = early_daemon_json(render(boot))

    assert "insecure-registries" not in text
    assert '"https://mirror.example.com"' in text


def test_without_a_mirror_no_mirror_is_named() -> None:
    assert "registry-mirrors" not in early_daemon_json(render(replace(BOOT, mirror="")))


def test_user_data_without_files_has_no_early_settings() -> None:
    assert early_daemon_json("#cloud-config\n{}\n") == ""


def test_a_long_token_fits_and_a_longer_one_is_refused_with_the_size() -> None:
    assert len(render(replace(BOOT, token="t" * 4000)).encode()) <= MAX_BYTES
    with pytest.raises(VmRejected, match=f"at most {MAX_BYTES}"):
        render(replace(BOOT, token="t" * 8000))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("core_url", "http://172.30.0.1:8001"),
        ("core_url", "ws://user@172.30.0.1"),
        ("archive_url", 'http://172.30.0.1/a"\noutput = "/etc/passwd'),
        ("archive_url", "file:///etc/passwd"),
        ("archive_url", "http://172.30.0.1/a?b=c"),
        ("archive_sha256", "ab"),
        ("archive_sha256", "ab" * 32 + "\n"),
        ("registry", "172.30.0.1:8003/p"),
        ("mirror", "http://172.30.0.1:8004"),
    ],
)
def test_an_address_that_is_none_is_refused_by_name(name: str, value: str) -> None:
    fields = {field: getattr(BOOT, field) for field in MachineBoot.__slots__}

    with pytest.raises(VmRejected, match=name):
        render(MachineBoot(**{**fields, name: value}))


def test_a_token_with_shell_characters_stays_data() -> None:
    text = render(replace(BOOT, token="$(reboot); `reboot` ' \" \\"))

    assert "reboot" not in text


def test_the_token_is_not_printed() -> None:
    assert "signature" not in repr(BOOT)


WHOLE = """\
#cloud-config
--- /etc/stagely/config.json 0600
{
  "agent_id": "vm-0123456789ab",
  "token": "header.claims.signature",
  "core_url": "ws://172.30.0.1:8001",
  "job_id": "build-1",
  "silence_limit_s": 900.0,
  "reconnect_first_wait_s": 1.0
}
--- /etc/stagely/agent.curl 0600
url = "http://172.30.0.1:8000/v1/agent/archive/abababababababababababababababababababababababababababababababab/stagely-agent.pyz"
--- /etc/stagely/agent.sha256 0644
abababababababababababababababababababababababababababababababab  /opt/stagely/stagely-agent.pyz
--- /opt/stagely/fetch-agent 0755
#!/bin/sh
# Fetches the agent's one file and proves it. After a restart of the unit it is there already.
set -eu
check() { sha256sum --check --status /etc/stagely/agent.sha256 2>/dev/null; }
check && exit 0
curl --fail --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused --max-time 60 \\
  --config /etc/stagely/agent.curl --output /opt/stagely/stagely-agent.pyz
check || { echo "stagely-agent.pyz has another SHA-256 than it should; not starting it" >&2; exit 1; }
--- /etc/systemd/system/stagely-agent.service 0644
[Unit]
Description=Stagely agent
After=network-online.target docker.service
Wants=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStartPre=/bin/sh /opt/stagely/fetch-agent
ExecStart=/usr/bin/python3 -I /opt/stagely/stagely-agent.pyz --config /etc/stagely/config.json
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
--- /etc/docker/daemon.json 0644
{
  "features": {
    "containerd-snapshotter": true
  },
  "insecure-registries": [
    "172.30.0.1:8003",
    "172.30.0.1:8004"
  ],
  "log-driver": "json-file",
  "log-opts": {
    "max-file": "3",
    "max-size": "10m"
  },
  "registry-mirrors": [
    "http://172.30.0.1:8004"
  ]
}
--- the rest
disable_root: true
runcmd:
- - systemctl
  - reload-or-restart
  - docker.service
- - systemctl
  - enable
  - --no-reload
  - stagely-agent.service
- - systemctl
  - start
  - --no-block
  - stagely-agent.service
ssh_pwauth: false
"""
