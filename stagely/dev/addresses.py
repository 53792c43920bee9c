"""Where everything of one installation is, and the settings that tell it to every process. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stagely.dev import postgres
from stagely.dev.docker import VmNetwork
from stagely.dev.folder import StateFolder
from stagely.dev.ports import Ports
from stagely.dev.setup_record import SetupRecord

LOOPBACK = "127.0.0.1"
DATABASE = "stagely"
NAMESPACE = "default"
APP_ID = "1"  # The one GitHub App that the local forge knows.
RECONNECT_FIRST_WAIT_S = "1"  # A handful of agents come back after a restart here, not ten thousand.
# Each of these, when set, replaces one embedded part; the name is that of the part's port.
EXTERNAL = {
    "STAGELY_DATABASE_URL": "postgres",
    "STAGELY_REDIS_URL": "valkey",
    "TEMPORAL_ADDRESS": "temporal",
    "STAGELY_REGISTRY": "registry",
    "STAGELY_MIRROR": "mirror",
}
# What says more about a part counts only where that part is given.
_BELONGS_TO = {"TEMPORAL_NAMESPACE": "temporal", "STAGELY_REGISTRY_URL": "registry"}


@dataclass(frozen=True, slots=True)
class Addresses:
    """One installation's addresses. `external`: parts that run elsewhere and are only used."""

    folder: StateFolder
    installation: str
    ports: Ports
    network: VmNetwork
    given: Mapping[str, str]

    @property
    def external(self) -> frozenset[str]:
        return external_parts(self.given)

    def for_vms(self, port: int) -> str:
        """host:port of a program of ours as VMs reach it."""
        return f"{self.network.gateway}:{port}"

    def listen(self, port: int) -> str:
        """What a program that VMs and people use listens on."""
        return f"{LOOPBACK}:{port},{self.for_vms(port)}"

    @property
    def preview_url(self) -> str:
        """Template of preview URLs."""
        return f"http://{{label}}.localhost:{self.ports.edge}"

    def urls(self) -> dict[str, str]:
        """Name to URL of what a person or the CLI opens."""
        ports = self.ports
        temporal = {} if "temporal" in self.external else {"temporal_ui": f"http://{LOOPBACK}:{ports.temporal_ui}"}
        return {
            "api": f"http://{LOOPBACK}:{ports.api}",
            "docs": f"http://{LOOPBACK}:{ports.api}/docs",
            "gateway": f"http://{LOOPBACK}:{ports.gateway}",
            "forge": f"http://{LOOPBACK}:{ports.forge}",
            "forge_for_vms": f"http://{self.for_vms(ports.forge)}",
            "edge": f"http://{LOOPBACK}:{ports.edge}",
            "registry": self._registry_url(),
            "redis": self._engines()["STAGELY_REDIS_URL"],
            **temporal,
        }

    def settings(self, record: SetupRecord) -> dict[str, str]:
        """Environment variables of our processes (`stagely.settings`, `edge`)."""
        return {**self._places(record), **self._engines(), **self._secrets(), **self._edge()}

    def _places(self, record: SetupRecord) -> dict[str, str]:
        ports, urls = self.ports, self.urls()
        return {
            "STAGELY_INSTALLATION": self.installation,
            "STAGELY_STATE": str(self.folder.root.absolute()),
            "STAGELY_API_LISTEN": self.listen(ports.api),
            "STAGELY_GATEWAY_LISTEN": self.listen(ports.gateway),
            "STAGELY_CORE_URL": f"http://{self.for_vms(ports.api)}",
            "STAGELY_AGENT_URL": f"ws://{self.for_vms(ports.gateway)}",
            "STAGELY_PREVIEW_URL": self.preview_url,
            "STAGELY_DASHBOARD_URL": urls["api"],
            "STAGELY_GITHUB_API_URL": urls["forge"],
            "STAGELY_GITHUB_URL_FOR_VMS": urls["forge_for_vms"],
            "STAGELY_TEMPORAL_UI_ORIGIN": self._ui_origins(),
            "STAGELY_WORKER_METRICS_LISTEN": f"{LOOPBACK}:{ports.worker_metrics}",
            "STAGELY_LOG_FORMAT": "json",
            "STAGELY_RECONNECT_FIRST_WAIT_S": RECONNECT_FIRST_WAIT_S,
            "STAGELY_PROVIDER": "local",
            "STAGELY_LOCAL_VM_IMAGE": record.vm_image,
            "STAGELY_LOCAL_NETWORK": self.network.name,
        }

    def _ui_origins(self) -> str:
        """A browser names the origin as the person typed it."""
        if given := self.given.get("STAGELY_TEMPORAL_UI_ORIGIN"):
            return given
        return ",".join(f"http://{host}:{self.ports.temporal_ui}" for host in (LOOPBACK, "localhost"))

    def _engines(self) -> dict[str, str]:
        ports = self.ports
        own = {
            "STAGELY_DATABASE_URL": f"postgresql://{postgres.USER}@{LOOPBACK}:{ports.postgres}/{DATABASE}",
            "STAGELY_REDIS_URL": f"redis://{LOOPBACK}:{ports.valkey}/0",
            "TEMPORAL_ADDRESS": f"{LOOPBACK}:{ports.temporal}",
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "STAGELY_REGISTRY": self.for_vms(ports.registry),
            "STAGELY_REGISTRY_URL": self._registry_url(),
            "STAGELY_MIRROR": self.for_vms(ports.mirror),
        }
        chosen = {name: self._given(name) or value for name, value in own.items()}
        return chosen if "temporal" in self.external else {**self._no_foreign_temporal(), **chosen}

    def _given(self, name: str) -> str:
        """What the environment says; "" where that is about a part which is embedded here."""
        part = _BELONGS_TO.get(name)
        return self.given.get(name, "") if part is None or part in self.external else ""

    def _no_foreign_temporal(self) -> dict[str, str]:
        """A developer's API key and certificates are for another cluster; "" counts as not set."""
        return {name: "" for name in self.given if name.startswith("TEMPORAL_")}

    def _secrets(self) -> dict[str, str]:
        folder = self.folder
        files = {
            "STAGELY_GITHUB_APP_KEY_FILE": folder.app_key,
            "STAGELY_GITHUB_WEBHOOK_SECRET_FILE": folder.webhook_secret,
            "STAGELY_SIGNING_KEY_FILE": folder.signing_key,
            "STAGELY_CODEC_PATH_TOKEN_FILE": folder.codec_token,
            "STAGELY_ENCRYPTION_KEY_FILE": folder.encryption_key,
        }
        # A Temporal that runs elsewhere may hold what another key encrypted.
        given = {name: self.given[name] for name in ("STAGELY_ENCRYPTION_KEY_FILE",) if self.given.get(name)}
        own = {name: str(path.absolute()) for name, path in files.items()}
        return {"STAGELY_GITHUB_APP_ID": APP_ID, **own, **given}

    def worker_secrets(self) -> dict[str, str]:
        """What no other process is told of."""
        return {"STAGELY_VM_CA_FILE": str(self.folder.vm_ca.absolute())}

    def _edge(self) -> dict[str, str]:
        return {
            "STAGELY_EDGE_LISTEN": f"{LOOPBACK}:{self.ports.edge}",
            "STAGELY_EDGE_VM_CA": str(self.folder.vm_ca_trusted.absolute()),
            "STAGELY_DOMAIN": "localhost",
        }

    def _registry_url(self) -> str:
        """The registry listens only where VMs reach it; that address is one of this machine's own."""
        if given := self._given("STAGELY_REGISTRY_URL"):
            return given
        return f"http://{self.given.get('STAGELY_REGISTRY') or self.for_vms(self.ports.registry)}"


def external_parts(given: Mapping[str, str]) -> frozenset[str]:
    """Names of the parts whose address the environment gives."""
    return frozenset(part for variable, part in EXTERNAL.items() if given.get(variable))


def own_listeners(ports: Ports, given: Mapping[str, str]) -> list[str]:
    """Names of the ports that this installation listens on."""
    external = external_parts(given)
    if "temporal" in external:
        external |= {"temporal_ui"}
    return [name for name in ports.named() if name not in external]
