"""Stand-ins as the mirror's storage holds them, written from a real Engine by the real registry program."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

pytestmark = pytest.mark.docker
REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 60


def docker(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=True, timeout=LIMIT_S)
    return done.stdout.decode().strip()


def tar_with(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def image() -> Iterator[str]:
    name = "stagely/stand-in:test-of-publish"
    docker("import", "--change", 'CMD ["/hello"]', "-", name, stdin=tar_with("hello", b"hello\n"))
    yield "test-of-publish"
    docker("rmi", "--force", name)


def publish(image: str, storage: Path) -> None:
    registry = shutil.which("docker-registry") or shutil.which("registry")
    assert registry, "no image registry on PATH; run: make setup"
    images = storage.parent / "images"
    images.write_text(f"{image} 1 latest\n")
    script = REPOSITORY / "scripts" / "setup" / "publish.py"
    options = ["--registry", registry, "--storage", str(storage), "--images", str(images)]
    subprocess.run([sys.executable, str(script), *options], check=True, timeout=LIMIT_S)


def blob(storage: Path, digest: str) -> bytes:
    hexadecimal = digest.removeprefix("sha256:")
    return (storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data").read_bytes()


def manifest_digest(storage: Path, image: str, tag: str) -> str:
    tags = storage / "docker/registry/v2/repositories/library" / image / "_manifests/tags"
    return (tags / tag / "current/link").read_text()


def test_image_is_published_with_oci_types_and_zstd_layers(image: str, tmp_path: Path) -> None:
    storage = tmp_path / "mirror"

    publish(image, storage)

    manifest = json.loads(blob(storage, manifest_digest(storage, image, "1")))
    config = json.loads(blob(storage, manifest["config"]["digest"]))
    layer = zstandard.ZstdDecompressor().stream_reader(blob(storage, manifest["layers"][0]["digest"])).read()
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+zstd"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["Cmd"] == ["/hello"]


def test_publishing_twice_changes_nothing(image: str, tmp_path: Path) -> None:
    storage = tmp_path / "mirror"
    publish(image, storage)
    before = manifest_digest(storage, image, "latest")

    publish(image, storage)

    assert manifest_digest(storage, image, "latest") == before
    assert manifest_digest(storage, image, "1") == before
