"""Settings: read once from environment variables at a program's start, then passed to what needs them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One field per environment variable `STAGELY_<FIELD>`; `*_file` are paths to files of mode 0600."""

    model_config = SettingsConfigDict(env_prefix="STAGELY_", extra="ignore", frozen=True)

    installation: str = "default"
    """Id of this installation: the label on everything it makes in a cloud."""
    state: Path = Path(".stagely")
    """Folder of the local provider's seeds and of `stagely dev`."""

    database_url: str = "postgresql://stagely@127.0.0.1:8005/stagely"
    redis_url: str = "redis://127.0.0.1:8006/0"
    temporal_address: str = Field("127.0.0.1:8007", validation_alias="TEMPORAL_ADDRESS")
    temporal_namespace: str = Field("default", validation_alias="TEMPORAL_NAMESPACE")

    registry: str = "127.0.0.1:8003"
    """host:port under which VMs push and pull."""
    registry_url: str = "http://127.0.0.1:8003"
    """The same registry as the control plane reaches it."""
    mirror: str = ""
    """host:port of the registry mirror as VMs reach it; "" for none."""

    api_listen: str = "127.0.0.1:8000"
    """Comma-separated host:port list."""
    gateway_listen: str = "127.0.0.1:8001"
    core_url: str = "http://127.0.0.1:8000"
    """The api as VMs reach it (agent archive)."""
    agent_url: str = "ws://127.0.0.1:8001"
    """The gateway as agents reach it."""
    preview_url: str = "http://{label}.localhost:8080"
    """Template of preview URLs; `{label}` is the DNS label."""
    dashboard_url: str = "http://127.0.0.1:8000"

    github_api_url: str = "https://api.github.com"
    github_app_id: str = ""
    github_app_key_file: Path | None = None
    github_webhook_secret_file: Path | None = None
    github_url_for_vms: str = ""
    """Replaces scheme and host of repository URLs given to VMs; "" leaves them as they are."""

    signing_key_file: Path | None = None
    """Key of enrolment tokens, 32 random bytes as hex."""
    encryption_key_file: Path | None = None
    """Keys of all that Temporal stores, `KEY_ID:64 hex` per line, the first one encrypts; see `stagely/keyring.py`."""
    vm_ca_file: Path | None = None
    """Key and certificate of the CA of preview VMs, PEM (`stagely/vm_ca.py`), for the worker alone. None: plain HTTP
    from the edge to VMs, and no previews but those of provider `local`."""
    codec_path_token_file: Path | None = None
    """Unguessable part of the codec server's path, for a Web UI that cannot send our token; None: no such path."""
    temporal_ui_origin: str = ""
    """Comma-separated origins (scheme://host:port) whose pages may call the codec server; "" for none."""

    worker_metrics_listen: str = ""
    """host:port of the worker's Prometheus metrics; "" for none."""
    worker_cached_workflows: int = Field(500, ge=1)
    """Runs that a worker keeps in memory, about 0.5 MB each. Others are replayed when they move."""
    worker_workflow_slots: int = Field(100, ge=2)
    worker_activity_slots: int = Field(100, ge=1)
    """Activities that run at once, per task queue and process."""
    build_id: str = ""
    """Version of this code; switches worker versioning on. A build gets work once `worker.py --make-current` ran."""
    log_format: str = "json"
    """json or console."""

    build_slots: int = 50
    """Builds at once, in the whole installation; the next one waits and shows its position."""
    slot_ask_again_s: float = 5.0

    certificate_domain: str = ""
    """Domain of previews whose wildcard certificate the worker orders and renews; "" when it comes from elsewhere.
    Setting it agrees to the terms of the certificate authority. docs/certificates.md has this and what follows."""
    certificate_folder: Path | None = None
    """Where keys and `certificate.pem` lie; STAGELY_TLS_CERT and STAGELY_TLS_KEY of the edge both name the latter."""
    acme_directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    acme_email: str = ""
    acme_profile: str = ""
    """Kind of certificate, by the authority's own name ("shortlived"); "" for its default."""
    dns_provider: str = ""
    """route53, digitalocean or hetzner."""
    dns_zone: str = ""
    """Zone there that holds the domain; "" when it is the domain itself."""
    dns_token_file: Path | None = None
    """Of digitalocean and hetzner; route53 finds its credentials as every AWS program does."""
    dns_api_url: str = ""
    """Other address of the provider's API; "" for the public one."""
    dns_nameservers: str = ""
    """Comma-separated host:port that are asked whether a TXT record is there; "" for the zone's own."""

    provider: str = "local"
    """Default provider of previews and builders."""
    local_vm_image: str = ""
    local_network: str = ""
    """Docker network of the local provider's VMs."""
    heartbeat_s: float = 30.0
    builder_silence_s: float = 90.0
    preview_silence_s: float = 900.0
    boot_timeout_s: float = 300.0
    reconnect_first_wait_s: float = 10.0
    """Agents spread their return over this time after a gateway's restart: 10,000 of them must not come at once."""

    def secret(self, path: Path | None, what: str) -> str:
        """The stripped content of a secret file. Raises RuntimeError that names the setting when it is not set."""
        if path is None:
            raise RuntimeError(
                f"STAGELY_{what.upper()} is not set: it must be the path of a file that holds the secret"
            )
        return path.read_text().strip()
