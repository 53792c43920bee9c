"""The override file: the whole text that a deployment adds to the user's own files."""

import json

from agent.compose import (
    Probe,
    ServiceModel,
    built_here,
    image_probe,
    interpolation,
    override,
    parse,
    quoted,
    references,
    used_images,
)
from agent.protocol import Deploy, Exposed, Image, SecretValue

MODEL = {
    "name": "pr-1",
    "services": {
        "web": {
            "build": {"context": "/tree/web"},
            "pull_policy": "build",
            "volumes": [{"type": "bind", "source": "/tree/nginx.conf", "target": "/etc/nginx/nginx.conf"}],
            "configs": [{"source": "app", "target": "/app.conf"}],
        },
        "api": {
            "build": {"context": "/tree/api"},
            "image": "guestbook-api",
            "healthcheck": {"test": ["CMD", "true"], "interval": "5s", "retries": 3},
        },
        "worker": {"image": "guestbook-api", "deploy": {"replicas": 2}},
        "store": {
            "image": "redis:8",
            "healthcheck": {"test": ["CMD", "true"], "interval": "1m0s", "start_period": "5s"},
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
        },
        "patient": {"image": "a:1", "healthcheck": {"test": ["CMD", "true"], "start_interval": "1s"}},
        "quiet": {"image": "b:1", "healthcheck": {"disable": True}},
        "off": {"image": "c:1", "scale": 0},
    },
    "configs": {"app": {"file": "/tree/app.conf"}},
}
ORDER = Deploy(
    command_id="c1",
    repo="http://git/x.git",
    sha="0" * 40,
    project="pr-1",
    compose_files=("docker-compose.yml",),
    images=(Image("web", "r:1/p/e/web@sha256:11"), Image("api", "r:1/p/e/api@sha256:22")),
    expose=(Exposed("web", 80, "http://h.localhost:8080"), Exposed("api-v2", 80, "http://api-h.localhost:8080")),
    health_timeout_s=60.0,
    environment={"FLAG": "on"},
    secrets=(
        SecretValue("KEY", 'pa$$ "word"\nwith lines'),
        SecretValue("KEY", "its own", "store"),
        SecretValue("PORT", "1", "api"),
    ),
)
OVERRIDE = """\
# Written by Stagely for one deployment and deleted afterwards.
services:
  "api":
    image: "r:1/p/e/api@sha256:22"
    build: !reset null
    environment:
      "FLAG": "on"
      "KEY": "pa$$$$ \\"word\\"\\nwith lines"
      "PORT": "1"
      "STAGELY_URL": "http://h.localhost:8080"
      "STAGELY_URL_API_V2": "http://api-h.localhost:8080"
      "STAGELY_URL_WEB": "http://h.localhost:8080"
    healthcheck:
      start_period: 15s
      start_interval: 250ms
  "quiet":
    environment:
      "FLAG": "on"
      "KEY": "pa$$$$ \\"word\\"\\nwith lines"
      "STAGELY_URL": "http://h.localhost:8080"
      "STAGELY_URL_API_V2": "http://api-h.localhost:8080"
      "STAGELY_URL_WEB": "http://h.localhost:8080"
  "store":
    environment:
      "FLAG": "on"
      "KEY": "its own"
      "STAGELY_URL": "http://h.localhost:8080"
      "STAGELY_URL_API_V2": "http://api-h.localhost:8080"
      "STAGELY_URL_WEB": "http://h.localhost:8080"
    healthcheck:
      start_interval: 250ms
  "web":
    image: "r:1/p/e/web@sha256:11"
    build: !reset null
    pull_policy: missing
    environment:
      "FLAG": "on"
      "KEY": "pa$$$$ \\"word\\"\\nwith lines"
      "STAGELY_URL": "http://h.localhost:8080"
      "STAGELY_URL_API_V2": "http://api-h.localhost:8080"
      "STAGELY_URL_WEB": "http://h.localhost:8080"
    healthcheck:
      start_period: 60s
      start_interval: 250ms
    labels:
      stagely.files: "1a2b 3c4d"
"""


def only(*names: str) -> dict[str, ServiceModel]:
    model = parse(json.dumps(MODEL))
    return {name: model[name] for name in names}


def test_the_override_touches_images_environment_probes_and_mounted_files_only() -> None:
    model = only("web", "api", "store", "quiet")
    probes = {"web": Probe(), "quiet": Probe()}

    text = override(model, ORDER, references(model, ORDER), probes, {"web": "1a2b 3c4d"})

    assert text == OVERRIDE


def test_a_service_that_probes_quickly_by_itself_is_left_alone() -> None:
    order = Deploy("c1", "http://git/x.git", "0" * 40, "pr-1", ("c.yml",), (), (), 60.0)

    text = override(only("patient"), order, {}, {}, {})

    assert text == "# Written by Stagely for one deployment and deleted afterwards.\nservices: {}\n"


def test_a_service_without_build_that_names_a_built_image_gets_that_image() -> None:
    model = only("web", "api", "worker", "store")

    chosen = references(model, ORDER)

    assert chosen == {
        "web": "r:1/p/e/web@sha256:11",
        "api": "r:1/p/e/api@sha256:22",
        "worker": "r:1/p/e/api@sha256:22",
    }


def test_what_no_builder_built_is_built_here_and_not_pulled() -> None:
    model = {
        "web": ServiceModel("web", is_built=True),
        "admin": ServiceModel("admin", is_built=True, pull_policy="build"),
        "tool": ServiceModel("tool", image="tool:1", is_built=True),
        "cron": ServiceModel("cron", image="tool:1"),
        "off": ServiceModel("off", is_built=True, replicas=0),
    }
    here = built_here(model, ORDER)
    chosen = references(model, ORDER)

    assert here == ("admin", "tool")
    assert used_images(model, chosen, here) == {"r:1/p/e/web@sha256:11": "web"}
    assert '"pr-1-admin"\n    build: !reset null\n    pull_policy: missing' in override(model, ORDER, chosen, {}, {})


def test_images_are_pulled_once_and_not_for_services_without_containers() -> None:
    model = only("api", "worker", "store", "off")

    needed = used_images(model, references(model, ORDER))

    assert needed == {"r:1/p/e/api@sha256:22": "api", "redis:8": "store"}


def test_the_model_says_what_is_mounted_and_how_many_containers_there_are() -> None:
    model = parse(json.dumps(MODEL))

    assert model["web"].sources == ("/tree/nginx.conf", "/tree/app.conf")
    assert model["store"].sources == ()
    assert [model[name].replicas for name in ("web", "worker", "off")] == [1, 2, 0]


def test_a_variable_that_steers_docker_is_not_taken_from_secrets() -> None:
    secrets = (SecretValue("DOCKER_HOST", "tcp://x"), SecretValue("PATH", "/x"), SecretValue("DATABASE_URL", "y"))
    order = Deploy("c1", "http://git/x.git", "0" * 40, "pr-1", ("c.yml",), (), (), 60.0, secrets=secrets)

    assert interpolation(order) == {"DATABASE_URL": "y"}


def test_quoted_text_survives_yaml_and_interpolation() -> None:
    assert quoted("a$b\u2028\x85\x7f é😀\ttab") == '"a$$b\\u2028\\u0085\\u007f é😀\\ttab"'


def test_an_image_that_defines_no_health_check_has_no_probe() -> None:
    assert image_probe(None) is None
    assert image_probe({"Test": ["NONE"]}) is None
    assert image_probe({"Test": ["CMD", "x"], "Interval": 5_000_000_000}) == Probe(5.0)
