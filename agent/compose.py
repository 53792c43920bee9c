"""The user's Compose model, and the override that turns it into a preview. Pure.

The override touches exactly this: images instead of `build` (by digest, or the one that Compose just built here),
environment (secrets in scope and the
preview's URLs), start probes where the user set none, and a label on services that mount files of the repository, so
that Compose recreates them when those files changed (a bind mount of a file keeps showing the old one after git
replaced it). Names, profiles, networks, volumes and mounts stay as written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any  # The model's JSON; `parse` names every key it takes.

from agent.protocol import Deploy
from agent.times import duration_s

OVERRIDE_NAME = "docker-compose.stagely.yml"
START_INTERVAL = "250ms"  # reference/local-vm.md section 3: a chain of three services 2.4 s instead of 17.6 s and more.
MIN_START_PERIOD_S, MAX_START_PERIOD_S = 10, 60
_DOCKER_INTERVAL_S, _DOCKER_RETRIES = 30.0, 3  # Docker's defaults for a health check that says nothing.
_HEAD = "# Written by Stagely for one deployment and deleted afterwards.\n"


@dataclass(frozen=True, slots=True)
class Probe:
    """A health check, as Compose or an image defines it. `start_*` are "" where nobody set them."""

    interval_s: float = _DOCKER_INTERVAL_S
    retries: int = _DOCKER_RETRIES
    has_start_period: bool = False
    has_start_interval: bool = False


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """`probe` is None without a health check of its own; `is_unprobed`: the user switched the image's one off.

    `sources` are the absolute paths on this machine that the service mounts.
    """

    name: str
    image: str = ""
    is_built: bool = False
    pull_policy: str = ""
    probe: Probe | None = None
    is_unprobed: bool = False
    replicas: int = 1
    sources: tuple[str, ...] = ()


def parse(text: str) -> dict[str, ServiceModel]:
    """The services of `docker compose config --format json`, by name."""
    model = json.loads(text)
    files = {
        kind: {name: (entry or {}).get("file", "") for name, entry in (model.get(kind) or {}).items()}
        for kind in ("configs", "secrets")
    }
    return {name: _service(name, entry, files) for name, entry in (model.get("services") or {}).items()}


def references(model: Mapping[str, ServiceModel], order: Deploy) -> dict[str, str]:
    """The image of each service that must not be taken from the user's file: a pushed one, or one that is built here.

    A service without `build` that names the image of a built one means that one: locally, building made it.
    """
    pushed = _pushed(model, order)
    here = {name: service.image or f"{order.project}-{name}" for name, service in model.items() if service.is_built}
    return here | pushed


def built_here(model: Mapping[str, ServiceModel], order: Deploy) -> tuple[str, ...]:
    """The services that Compose builds on this machine: those with `build` that no image was pushed for."""
    pushed = _pushed(model, order)
    return tuple(
        name for name, service in model.items() if service.is_built and service.replicas and name not in pushed
    )


def used_images(
    model: Mapping[str, ServiceModel], chosen: Mapping[str, str], here: Collection[str] = ()
) -> dict[str, str]:
    """Every image to pull before `up`, with the first service that needs it; not those that `here` builds."""
    made = {chosen[name] for name in here}
    needed: dict[str, str] = {}
    for name, service in model.items():
        reference = chosen.get(name) or service.image
        if reference and service.replicas and reference not in made:
            needed.setdefault(reference, name)
    return needed


def override(
    model: Mapping[str, ServiceModel],
    order: Deploy,
    chosen: Mapping[str, str],
    image_probes: Mapping[str, Probe],
    file_ids: Mapping[str, str],
) -> str:
    """The text of docker-compose.stagely.yml.

    `image_probes`: the health check that a service's image brings, `file_ids`: what names the content of the
    repository's files that a service mounts; both by service, only where there is one.
    """
    lines: list[str] = []
    for name, service in sorted(model.items()):
        probe = service.probe or (None if service.is_unprobed else image_probes.get(name))
        added = [
            *_image_lines(service, chosen.get(name, "")),
            *_environment_lines(environment(order, name)),
            *_probe_lines(probe),
            *_label_lines(file_ids.get(name, "")),
        ]
        lines += [f"  {quoted(name)}:", *added] if added else []
    return "\n".join([_HEAD + ("services:" if lines else "services: {}"), *lines]) + "\n"


def environment(order: Deploy, service: str) -> dict[str, str]:
    """What this service's containers get on top of the user's own variables. Secrets win, those of its scope last."""
    found = urls(order) | order.environment
    found |= {secret.key: secret.value for secret in order.secrets if secret.scope == "global"}
    return found | {secret.key: secret.value for secret in order.secrets if secret.scope == service}


def urls(order: Deploy) -> dict[str, str]:
    """STAGELY_URL of the main service, STAGELY_URL_<SERVICE> of every exposed one."""
    found = {"STAGELY_URL": order.expose[0].url} if order.expose else {}
    return found | {f"STAGELY_URL_{re.sub('[^A-Z0-9]', '_', e.service.upper())}": e.url for e in order.expose}


def interpolation(order: Deploy) -> dict[str, str]:
    """What `${NAME}` in the user's files may refer to; never a variable that steers Docker itself."""
    steering = re.compile(r"(PATH|HOME|(LD|DOCKER|COMPOSE|BUILDX|BUILDKIT|GIT|SSL)_.*|.*_PROXY)", re.IGNORECASE)
    found = environment(order, "")
    return {key: value for key, value in found.items() if not steering.fullmatch(key)}


def variables(order: Deploy) -> dict[str, str]:
    """Compose's environment. Files of other repositories and registries (`include`, `extends`) are not fetched: they
    belong to no commit, and Compose would run a git of its own for them.
    """
    return interpolation(order) | {f"COMPOSE_EXPERIMENTAL_{kind}_REMOTE": "false" for kind in ("GIT", "OCI")}


def quoted(text: str) -> str:
    """A YAML double-quoted scalar that Compose reads back as `text`: `$` is doubled against interpolation."""
    doubled = json.dumps(text.replace("$", "$$"), ensure_ascii=False)
    # YAML takes these for line breaks or forbids them; JSON leaves them raw.
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", doubled)


def image_probe(healthcheck: Mapping[str, Any] | None) -> Probe | None:
    """The health check of `docker image inspect` (nanoseconds); None when the image has none."""
    if not healthcheck or not healthcheck.get("Test") or healthcheck["Test"] == ["NONE"]:
        return None
    return Probe(
        (healthcheck.get("Interval") or 0) / 1e9 or _DOCKER_INTERVAL_S,
        healthcheck.get("Retries") or _DOCKER_RETRIES,
        bool(healthcheck.get("StartPeriod")),
        bool(healthcheck.get("StartInterval")),
    )


def _pushed(model: Mapping[str, ServiceModel], order: Deploy) -> dict[str, str]:
    given = {image.service: image.reference for image in order.images}
    made = {service.image: given[name] for name, service in model.items() if service.image and name in given}
    return {
        name: given.get(name) or made[service.image]
        for name, service in model.items()
        if name in given or service.image in made
    }


def _image_lines(service: ServiceModel, reference: str) -> Iterator[str]:
    if not reference:
        return
    yield f"    image: {quoted(reference)}"
    if service.is_built:
        yield "    build: !reset null"
    if service.pull_policy in ("build", "always", "never"):
        yield "    pull_policy: missing"


def _environment_lines(variables: Mapping[str, str]) -> Iterator[str]:
    if variables:
        yield "    environment:"
    for key, value in sorted(variables.items()):
        yield f"      {quoted(key)}: {quoted(value)}"


def _probe_lines(probe: Probe | None) -> Iterator[str]:
    """Probe often while the service starts, for as long as the user's own probes would have had patience."""
    if probe is None or probe.has_start_interval:
        return
    yield "    healthcheck:"
    if not probe.has_start_period:
        patience_s = probe.interval_s * probe.retries
        yield f"      start_period: {round(min(max(patience_s, MIN_START_PERIOD_S), MAX_START_PERIOD_S))}s"
    yield f"      start_interval: {START_INTERVAL}"


def _label_lines(file_id: str) -> Iterator[str]:
    if file_id:
        yield "    labels:"
        yield f"      stagely.files: {quoted(file_id)}"


def _service(name: str, entry: Mapping[str, Any], files: Mapping[str, Mapping[str, str]]) -> ServiceModel:
    healthcheck = entry.get("healthcheck") or {}
    is_unprobed = bool(healthcheck.get("disable")) or healthcheck.get("test") == ["NONE"]
    return ServiceModel(
        name=name,
        image=entry.get("image") or "",
        is_built=bool(entry.get("build")),
        pull_policy=entry.get("pull_policy") or "",
        probe=_probe(healthcheck) if healthcheck.get("test") and not is_unprobed else None,
        is_unprobed=is_unprobed,
        replicas=_replicas(entry),
        sources=tuple(_sources(entry, files)),
    )


def _probe(healthcheck: Mapping[str, Any]) -> Probe:
    return Probe(
        duration_s(healthcheck["interval"]) if healthcheck.get("interval") else _DOCKER_INTERVAL_S,
        healthcheck.get("retries") or _DOCKER_RETRIES,
        bool(healthcheck.get("start_period")),
        bool(healthcheck.get("start_interval")),
    )


def _replicas(entry: Mapping[str, Any]) -> int:
    if entry.get("scale") is not None:
        return int(entry["scale"])
    replicas = (entry.get("deploy") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def _sources(entry: Mapping[str, Any], files: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for mount in entry.get("volumes") or ():
        if mount.get("type") == "bind" and mount.get("source"):
            yield mount["source"]
    for kind, paths in files.items():
        for use in entry.get(kind) or ():
            if paths.get(use.get("source", "")):
                yield paths[use["source"]]
