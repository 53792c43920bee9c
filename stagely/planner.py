"""From stagely.yaml and the Compose files at one commit to a Plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stagely.composefile import ComposeProject, ComposeService, chosen_files, read_project
from stagely.errors import SpecInvalid
from stagely.interpolation import read_env_file
from stagely.plan import BuildTarget, Expose, Plan, PreviewSpec
from stagely.spec import FILE, BuildSpec, Spec, read_spec

MAX_LABEL = 41  # 63 octets of a DNS label less "-" and the 21 characters of the hash.
_TARGET = re.compile(
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z"
)  # A path component of a repository: OCI distribution specification.


def make_plan(files: Mapping[str, str], *, provider: str, arch: str) -> Plan:
    """The Plan for a repository whose files (path -> text, at least stagely.yaml, .env and Compose files) are these.

    `provider` and `arch` are the project's defaults. Raises SpecInvalid with file, line, value and remedy.
    """
    spec = read_spec(files.get(FILE))
    paths = tuple(spec.compose) or chosen_files(files)
    missing = next((path for path in paths if path not in files), None)
    if missing is not None:
        raise SpecInvalid(f"{FILE}: compose: {missing!r} is not in the repository at this commit. Correct the path.")
    variables = read_env_file(files.get(_beside(paths[0], ".env"), ""))
    project = read_project([(path, files[path]) for path in paths], variables)
    profiles = tuple(p.strip() for p in variables.get("COMPOSE_PROFILES", "").split(",") if p.strip())
    active = tuple(s for s in project.services if _is_active(s, profiles))
    preview = _preview(spec, provider, arch)
    return Plan(
        compose_files=paths,
        services=tuple(s.name for s in active),
        builds=_builds(spec, project, active, preview.arch, _beside(paths[0], "")),
        exposes=_exposes(spec, project, active, paths[0]),
        preview=preview,
        pull=tuple(dict.fromkeys(s.image for s in active if s.image and not s.build and not s.builds_on_vm)),
        profiles=profiles,
        keep_going=spec.keep_going,
    )


def dns_label(service: str) -> str:
    """A service's DNS label: lower case, other characters to hyphens, at most 41."""
    return re.sub(r"[^a-z0-9]+", "-", service.lower()).strip("-")[:MAX_LABEL].strip("-")


def _beside(path: str, name: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder + slash + name


def _is_active(service: ComposeService, profiles: tuple[str, ...]) -> bool:
    return not service.profiles or "*" in profiles or any(p in profiles for p in service.profiles)


def _preview(spec: Spec, provider: str, arch: str) -> PreviewSpec:
    part = spec.preview
    return PreviewSpec(
        provider=part.provider or provider,
        region=part.region,
        size=part.size,
        arch=part.arch or arch,
        ttl_s=part.ttl,
        health_timeout_s=part.health_timeout,
    )


def _builds(
    spec: Spec, project: ComposeProject, active: tuple[ComposeService, ...], arch: str, folder: str
) -> tuple[BuildTarget, ...]:
    if spec.builds is None:
        targets = [_target(s.name, BuildSpec(), s, arch, folder) for s in active if s.build]
    else:
        targets = [_configured(name, build, project, arch, folder) for name, build in spec.builds.items()]
    names: dict[str, str] = {}
    for target in targets:
        other = names.setdefault(target.name, target.service)
        if other != target.service:
            raise SpecInvalid(
                f"services {other!r} and {target.service!r} both become build target {target.name!r}. Rename one."
            )
    return tuple(targets)


def _configured(name: str, build: BuildSpec, project: ComposeProject, arch: str, folder: str) -> BuildTarget:
    service = project.service(build.service or name)
    if service is None:
        known = ", ".join(s.name for s in project.services)
        raise SpecInvalid(f"{FILE}: builds/{name}: no Compose service {build.service or name!r} (there are: {known})")
    return _target(name, build, service, arch, folder)


def _target(name: str, build: BuildSpec, service: ComposeService, arch: str, folder: str) -> BuildTarget:
    base = service.build
    if base is None and build.context is None:
        raise SpecInvalid(
            f"{FILE}: builds/{name}: service {service.name!r} has no `build:`; give the target a `context`"
        )
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    if not _TARGET.match(slug):
        raise SpecInvalid(f"build target {name!r} makes no image name: use letters, digits and single hyphens")
    context = build.context or (_joined(folder, base.context) if base else ".")
    return BuildTarget(
        name=slug,
        service=service.name,
        context=context,
        dockerfile=build.dockerfile or (base.dockerfile if base else "Dockerfile"),
        stage=(build.target if build.target is not None else base.stage if base else "") or "",
        args={**(base.args if base else {}), **build.args},
        arch=tuple(dict.fromkeys(build.arch)) or (arch,),
    )


def _joined(folder: str, context: str) -> str:
    parts = [p for p in (folder + context).split("/") if p not in ("", ".")]
    return "/".join(parts) or "."


def _exposes(
    spec: Spec, project: ComposeProject, active: tuple[ComposeService, ...], compose_file: str
) -> tuple[Expose, ...]:
    wanted = list(spec.expose.items()) or [(s.name, s.ports[0]) for s in active if s.ports][:1]
    if not wanted:
        raise SpecInvalid(
            f"{compose_file}: no service publishes a port, so the preview would have no URL. "
            f"Add `ports:` to the service that people open, or `expose: {{SERVICE: PORT}}` to {FILE}."
        )
    labels: dict[str, str] = {}
    for name, _ in wanted:
        if project.service(name) is None:
            known = ", ".join(s.name for s in project.services)
            raise SpecInvalid(f"{FILE}: expose/{name}: no such Compose service (there are: {known})")
        other = labels.setdefault(dns_label(name), name)
        if not dns_label(name) or other != name:
            raise SpecInvalid(f"{FILE}: expose: {name!r} and {other!r} become the same DNS label. Rename a service.")
    return tuple(Expose(name, port, "" if i == 0 else dns_label(name)) for i, (name, port) in enumerate(wanted))
