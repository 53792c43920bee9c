from __future__ import annotations

import pytest

from stagely.errors import SpecInvalid
from stagely.plan import BuildTarget, Expose, Plan, PreviewSpec
from stagely.planner import dns_label, make_plan

COMPOSE = """
services:
  web: {build: ./web, ports: ["8080:80"], depends_on: [api]}
  api: {build: {context: api, target: release, args: {MODE: "${MODE:-slow}"}}}
  store: {image: redis:8}
  debug: {image: busybox:1, profiles: [debug]}
"""


def plan(**files: str) -> Plan:
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    return make_plan({"docker-compose.yml": COMPOSE, **named}, provider="local", arch="amd64")


def test_a_repository_with_only_a_compose_file_gets_a_complete_plan() -> None:
    assert plan() == Plan(
        compose_files=("docker-compose.yml",),
        services=("web", "api", "store"),
        builds=(
            BuildTarget("web", "web", "web", "Dockerfile", "", {}, ("amd64",)),
            BuildTarget("api", "api", "api", "Dockerfile", "release", {"MODE": "slow"}, ("amd64",)),
        ),
        exposes=(Expose("web", 80),),
        preview=PreviewSpec("local", "", "", "amd64", 86400.0, 300.0),
        pull=("redis:8",),
    )


def test_the_env_file_fills_variables_and_enables_profiles() -> None:
    found = make_plan(
        {"docker-compose.yml": COMPOSE, ".env": "MODE=quick\nCOMPOSE_PROFILES=debug\n"}, provider="local", arch="amd64"
    )

    assert found.builds[1].args == {"MODE": "quick"}
    assert found.services == ("web", "api", "store", "debug")
    assert found.profiles == ("debug",)


def test_stagely_yaml_chooses_builds_architectures_and_urls() -> None:
    spec = """
version: 1
builds:
  backend: {service: api, dockerfile: Dockerfile.prod, arch: [amd64, arm64]}
preview: {provider: hetzner, region: fsn1, size: cx23, ttl: 2h, health_timeout: 90s}
expose: {web: 80, API_v2: 8000}
keep_going: true
"""
    compose = COMPOSE + "  API_v2: {image: nginx:1}\n"

    found = make_plan(
        {"docker-compose.yml": compose, "stagely.yaml": spec},
        provider="local",
        arch="amd64",
        providers=frozenset({"local", "hetzner"}),
    )

    assert found.builds == (
        BuildTarget("backend", "api", "api", "Dockerfile.prod", "release", {"MODE": "slow"}, ("amd64", "arm64")),
    )
    assert found.exposes == (Expose("web", 80), Expose("API_v2", 8000, "api-v2"))
    assert found.preview == PreviewSpec("hetzner", "fsn1", "cx23", "amd64", 7200.0, 90.0)
    assert found.keep_going


def test_the_override_file_is_merged_as_compose_merges_it() -> None:
    override = "services:\n  api: {build: {args: {EXTRA: 'yes'}}, ports: ['9000:9000']}\n"

    found = make_plan(
        {"docker-compose.yml": COMPOSE, "docker-compose.override.yml": override}, provider="local", arch="amd64"
    )

    assert found.compose_files == ("docker-compose.yml", "docker-compose.override.yml")
    assert found.builds[1].args == {"MODE": "slow", "EXTRA": "yes"}


def test_extends_within_the_file_inherits_the_build() -> None:
    compose = """
services:
  base: {build: app}
  web: {extends: {service: base}, ports: ["80"]}
"""

    found = make_plan({"compose.yaml": compose}, provider="local", arch="arm64")

    assert found.builds == (BuildTarget("base", "base", "app", arch=("arm64",), also=("web",)),)


def test_a_compose_file_in_a_folder_has_its_contexts_below_that_folder() -> None:
    files = {
        "stagely.yaml": "compose: deploy/stack.yml",
        "deploy/stack.yml": "services: {web: {build: ./web, ports: ['80:80']}}",
        "deploy/.env": "",
    }

    found = make_plan(files, provider="local", arch="amd64")

    assert found.builds[0].context == "deploy/web"


def test_what_a_builder_does_not_understand_is_left_to_compose_on_the_preview() -> None:
    compose = "services: {web: {build: {dockerfile_inline: 'FROM busybox'}, ports: ['80:80']}}"

    found = make_plan({"compose.yaml": compose}, provider="local", arch="amd64")

    assert found.builds == ()
    assert found.pull == ()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("version: 2", "stagely.yaml:1: version: must be 1; got 2"),
        (
            "preview:\n  ttl: 5",
            "stagely.yaml:2: preview/ttl: must be a number with a unit, such as 90s, 5m, 24h or 2d; got 5",
        ),
        ("expose: {web: 80a}", "stagely.yaml:1: expose/web: must be a valid integer; got '80a'"),
        (
            "expose: {nope: 80}",
            "stagely.yaml: expose/nope: no such Compose service (there are: web, api, store, debug)",
        ),
        ("a: &x 1", "stagely.yaml:1: anchor 'x': not taken here. Write the value out."),
        ("preview: {arch: x86}", "stagely.yaml:1: preview/arch: must be 'amd64' or 'arm64'; got 'x86'"),
        (
            "version: 1\nbuilds:\n  web: {contxt: a}",
            "stagely.yaml:3: builds/web/contxt: unknown key 'contxt'. "
            "Known here: service, context, dockerfile, target, args, arch",
        ),
        (
            "compose: ../up.yml",
            "stagely.yaml:1: compose/0: must be a relative path inside the repository; got '../up.yml'",
        ),
        (
            "compose: gone.yml",
            "stagely.yaml: compose: 'gone.yml' is not in the repository at this commit. Correct the path.",
        ),
        (
            "builds: {store: {}}",
            "stagely.yaml: builds/store: service 'store' has no `build:`; give the target a `context`",
        ),
    ],
)
def test_a_wrong_stagely_yaml_is_refused_with_file_line_path_value_and_remedy(spec: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        make_plan({"docker-compose.yml": COMPOSE, "stagely.yaml": spec}, provider="local", arch="amd64")

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        (
            "servces: {}",
            "docker-compose.yml:1: servces: 'servces' is not a top-level key of Compose "
            "(configs, include, models, name, networks, secrets, services, version, volumes)",
        ),
        ("services:\n  a: 5", "docker-compose.yml:2: services/a: must be a mapping, got int '5'"),
        (
            "services:\n  a: {}",
            "docker-compose.yml:2: services/a: has neither `image` nor `build`. Give it one of them.",
        ),
        (
            "services:\n  a: {image: x, ports: [abc]}",
            "docker-compose.yml:2: services/a: ports: 'abc' names no container port from 1 to 65535",
        ),
        (
            "services:\n  a: {image: x}",
            "docker-compose.yml: no service publishes a port, so the preview would have no URL. "
            "Add `ports:` to the service that people open, or `expose: {SERVICE: PORT}` to stagely.yaml.",
        ),
        (
            "a: b: c",
            "docker-compose.yml:1: mapping values are not allowed in this context. "
            "Mend the YAML; `docker compose config` shows it too.",
        ),
        (
            "services:\n  a: {image: '${TAG:?give a tag}'}",
            "docker-compose.yml:2: services/a: variable TAG is required: give a tag. Set it in .env.",
        ),
        (
            "services:\n  a: {image: x}\n  a: {image: y}",
            "docker-compose.yml:3: key 'a' stands twice (first in line 2). "
            "Mend the YAML; `docker compose config` shows it too.",
        ),
        (
            "services:\n  a: {build: ../other, ports: ['80']}",
            "docker-compose.yml:2: services/a: build context '../other' leads out of the repository",
        ),
        ("", "docker-compose.yml:1: must be a mapping with `services:`"),
    ],
)
def test_a_wrong_compose_file_is_refused_with_file_line_path_and_remedy(compose: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        make_plan({"docker-compose.yml": compose}, provider="local", arch="amd64")

    assert str(refused.value) == message


def planned(compose: str, spec: str = "", path: str = "compose.yaml") -> Plan:
    return make_plan({path: compose, "stagely.yaml": spec}, provider="local", arch="amd64")


def test_services_with_the_same_build_share_one_target_and_nothing_of_it_is_pulled() -> None:
    found = planned(
        """
x-app: &app {build: ., image: app}
services:
  web: {<<: *app, ports: ["80:80"]}
  worker: {<<: *app}
  cron: {build: {context: ., args: {A: "1"}}}
  beat: {image: app}
  store: {image: redis:8}
"""
    )

    assert found.builds == (
        BuildTarget("web", "web", ".", also=("worker",)),
        BuildTarget("cron", "cron", ".", args={"A": "1"}),
    )
    assert found.pull == ("redis:8",)


@pytest.mark.parametrize(
    ("build", "main"),
    [("build: .", "web"), ("build: {context: ., network: host}", "web"), ("image: x", "db")],
)
def test_the_main_url_is_that_of_the_first_service_that_is_built_else_of_the_first(build: str, main: str) -> None:
    found = planned(
        f"""
services:
  db: {{image: postgres, ports: ["5432:5432"]}}
  web: {{{build}, ports: ["3000:3000"]}}
"""
    )

    assert [e.service for e in found.exposes] == [main]


def test_what_an_included_file_brings_may_be_exposed_and_built() -> None:
    found = planned(
        "include: [web.yml]\nservices: {db: {image: postgres}}",
        "expose: {web: 80}\nbuilds: {web: {context: web}}",
    )

    assert found.exposes == (Expose("web", 80),)
    assert found.builds == (BuildTarget("web", "web", "web"),)


@pytest.mark.parametrize("path", ["./deploy/stack.yml", "deploy/../deploy/stack.yml"])
def test_a_context_may_go_up_as_long_as_it_stays_in_the_repository(path: str) -> None:
    found = planned(
        "services: {web: {build: {context: .., dockerfile: deploy/Dockerfile}, ports: ['80']}}",
        f"compose: {path}",
        "deploy/stack.yml",
    )

    assert found.compose_files == ("deploy/stack.yml",)
    assert found.builds == (BuildTarget("web", "web", ".", "deploy/Dockerfile"),)


@pytest.mark.parametrize("name", ["my__web", "a--b", "a.b_c-d"])
def test_a_service_name_that_is_an_image_name_stays(name: str) -> None:
    assert planned(f"services: {{{name}: {{build: ., ports: ['80']}}}}").builds[0].name == name


def test_a_provider_without_an_account_here_is_refused() -> None:
    compose = "services: {web: {image: x, ports: ['80']}}"
    files = {"compose.yaml": compose, "stagely.yaml": "preview: {provider: hetzner}"}

    with pytest.raises(SpecInvalid) as refused:
        make_plan(files, provider="local", arch="amd64", providers=frozenset({"local", "aws"}))

    assert str(refused.value) == (
        "stagely.yaml: preview/provider: this installation has no account for 'hetzner'; available here: aws, local. "
        "Name one of these, or leave the key out."
    )
    assert make_plan(files, provider="local", arch="amd64", providers=frozenset({"hetzner"})).preview.provider


def test_a_repository_without_a_compose_file_is_refused() -> None:
    with pytest.raises(SpecInvalid, match="no Compose file at the root"):
        make_plan({"README.md": ""}, provider="local", arch="amd64")


def test_two_services_with_the_same_dns_label_are_refused() -> None:
    compose = "services: {a_b: {image: x}, a-b: {image: x}}"

    with pytest.raises(SpecInvalid, match="become the same DNS label"):
        make_plan(
            {"compose.yaml": compose, "stagely.yaml": "expose: {a_b: 80, a-b: 81}"}, provider="local", arch="amd64"
        )


def test_a_recursive_alias_ends() -> None:
    with pytest.raises(SpecInvalid):
        make_plan({"compose.yaml": "services: &a\n  x: *a\n"}, provider="local", arch="amd64")


def test_a_dns_label_is_lower_case_and_at_most_41_characters() -> None:
    assert dns_label("Web_App.v2") == "web-app-v2"
    assert dns_label("x" * 60) == "x" * 41
