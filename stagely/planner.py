"""From stagely.yaml and the Compose files at one commit to a Plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from stagely.composefile import ComposeProject, ComposeService, chosen_files, read_project
from stagely.errors import SpecInvalid
from stagely.interpolation import read_env_file
from stagely.plan import BuildTarget, Expose, Plan, PreviewSpec
from stagely.spec import FILE, BuildSpec, Spec, read_spec

MAX_LABEL = 41  # 63 octets of a DNS label less "-" and the 21 characters of the hash.
# A path component of a repository: OCI distribution specification.
_TARGET = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")


def make_plan(
    files: Mapping[str, str], *, provider: str, arch: str, providers: frozenset[str] = frozenset({"local"})
) -> Plan:
    """The Plan for a repository whose files (path -> text, at least stagely.yaml, .env and Compose files) are these.

    `provider` and `arch` are the project's defaults, `providers` those that this installation has an account for.
    Raises SpecInvalid with file, line, value and remedy.
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
    _refuse_unavailable(preview.provider, providers)
    builds = _builds(spec, project, active, preview.arch)
    return Plan(
        compose_files=paths,
        services=tuple(s.name for s in active),
        builds=builds,
        exposes=_exposes(spec, project, active, builds, paths[0]),
        preview=preview,
        pull=_pulled(project, active, builds),
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


def _refuse_unavailable(provider: str, providers: frozenset[str]) -> None:
    if provider not in providers:
        known = ", ".join(sorted(providers)) or "none"
        raise SpecInvalid(
            f"{FILE}: preview/provider: this installation has no account for {provider!r}; available here: {known}. "
            "Name one of these, or leave the key out."
        )


def _builds(
    spec: Spec, project: ComposeProject, active: tuple[ComposeService, ...], arch: str
) -> tuple[BuildTarget, ...]:
    if spec.builds is None:
        targets = _shared([_target(s.name, BuildSpec(), s, arch) for s in active if s.build])
    else:
        targets = [_configured(name, build, project, arch) for name, build in spec.builds.items()]
    names: dict[str, str] = {}
    for target in targets:
        other = names.setdefault(target.name, target.service)
        if other != target.service:
            raise SpecInvalid(
                f"services {other!r} and {target.service!r} both become build target {target.name!r}. Rename one."
            )
    return tuple(targets)


def _shared(targets: list[BuildTarget]) -> list[BuildTarget]:
    """Equal builds once: the first's target, with the other services in `also`."""
    found: dict[tuple[object, ...], BuildTarget] = {}
    also: dict[tuple[object, ...], list[str]] = {}
    for target in targets:
        build = (target.context, target.dockerfile, target.stage, tuple(sorted(target.args.items())), target.arch)
        if build in found:
            also.setdefault(build, []).append(target.service)
        found.setdefault(build, target)
    return [replace(target, also=tuple(also.get(build, ()))) for build, target in found.items()]


def _configured(name: str, build: BuildSpec, project: ComposeProject, arch: str) -> BuildTarget:
    wanted = build.service or name
    service = project.service(wanted)
    if service is None and project.has_include and build.context is not None:
        service = ComposeService(wanted)  # It may come in by `include`; Compose knows on the VM.
    if service is None:
        known = ", ".join(s.name for s in project.services)
        hint = ". One that comes in by `include` needs a `context` here" if project.has_include else ""
        raise SpecInvalid(f"{FILE}: builds/{name}: no Compose service {wanted!r} (there are: {known}){hint}")
    return _target(name, build, service, arch)


def _target(name: str, build: BuildSpec, service: ComposeService, arch: str) -> BuildTarget:
    base = service.build
    if base is None and build.context is None:
        raise SpecInvalid(
            f"{FILE}: builds/{name}: service {service.name!r} has no `build:`; give the target a `context`"
        )
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")
    if not _TARGET.match(slug):
        raise SpecInvalid(f"build target {name!r} makes no image name: use letters, digits and single hyphens")
    return BuildTarget(
        name=slug,
        service=service.name,
        context=build.context or (base.context if base else "."),
        dockerfile=build.dockerfile or (base.dockerfile if base else "Dockerfile"),
        stage=(build.target if build.target is not None else base.stage if base else "") or "",
        args={**(base.args if base else {}), **build.args},
        arch=tuple(dict.fromkeys(build.arch)) or (arch,),
    )


def _pulled(
    project: ComposeProject, active: tuple[ComposeService, ...], builds: tuple[BuildTarget, ...]
) -> tuple[str, ...]:
    """The images that come from a registry: those of no service that is built, here or on the preview VM."""
    built = _built(active, builds)
    made = {s.image for s in project.services if s.build or s.builds_on_vm or s.name in built}
    return tuple(dict.fromkeys(s.image for s in active if s.image and s.image not in made))


def _built(active: tuple[ComposeService, ...], builds: tuple[BuildTarget, ...]) -> frozenset[str]:
    """The services that run what is built from the repository."""
    targets = {name for target in builds for name in (target.service, *target.also)}
    return frozenset(targets | {s.name for s in active if s.build or s.builds_on_vm})


def _exposes(
    spec: Spec,
    project: ComposeProject,
    active: tuple[ComposeService, ...],
    builds: tuple[BuildTarget, ...],
    compose_file: str,
) -> tuple[Expose, ...]:
    wanted = list(spec.expose.items()) or _published(active, _built(active, builds))[:1]
    if not wanted:
        raise SpecInvalid(
            f"{compose_file}: no service publishes a port, so the preview would have no URL. "
            f"Add `ports:` to the service that people open, or `expose: {{SERVICE: PORT}}` to {FILE}."
        )
    labels: dict[str, str] = {}
    for name, _ in wanted:
        if project.service(name) is None and not project.has_include:
            known = ", ".join(s.name for s in project.services)
            raise SpecInvalid(f"{FILE}: expose/{name}: no such Compose service (there are: {known})")
        other = labels.setdefault(dns_label(name), name)
        if not dns_label(name) or other != name:
            raise SpecInvalid(f"{FILE}: expose: {name!r} and {other!r} become the same DNS label. Rename a service.")
    return tuple(Expose(name, port, "" if i == 0 else dns_label(name)) for i, (name, port) in enumerate(wanted))


def _published(active: tuple[ComposeService, ...], built: frozenset[str]) -> list[tuple[str, int]]:
    """Services with their first published port: those built from the repository first, then the others."""
    publishing = [s for s in active if s.ports]
    return [(s.name, s.ports[0]) for s in sorted(publishing, key=lambda s: s.name not in built)]
