"""Write images of the host's Engine into a registry storage as OCI images with zstd layers.

Not by `docker push`: this Engine would compress with gzip, and a fresh VM then needs twice the CPU time to pull. The
registry program itself runs on the storage for the time being, so its layout stays its own affair.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import zstandard

LEVEL = 3  # Higher levels save little and cost setup time; reading is as fast.
REGISTRY_START_LIMIT_S = 15.0
REQUEST_LIMIT_S = 120.0
SAVE_LIMIT_S = 300.0
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, slots=True)
class StandIn:
    """One image: the Engine's name of it, and repository and tags in the registry."""

    source: str
    repository: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer in the registry. `repository` has it, and others can mount it from there."""

    digest: str
    size_bytes: int
    repository: str


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry by its HTTP API, and which layers it has been given already, by the digest of their tar."""

    client: httpx.Client
    layers: dict[str, Blob] = field(default_factory=dict)

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = sha256(content)
        if self.client.head(f"/v2/{repository}/blobs/{digest}").status_code == 200:
            return digest
        place = self.client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status().headers["location"]
        joint = "&" if "?" in place else "?"
        headers = {"content-type": "application/octet-stream"}
        self.client.put(f"{place}{joint}digest={digest}", content=content, headers=headers).raise_for_status()
        return digest

    def put_layer(self, repository: str, diff_id: str, tar: bytes) -> Blob:
        """Compress and upload, or mount what another repository has: a shared layer is compressed once."""
        if (known := self.layers.get(diff_id)) is not None:
            query = {"mount": known.digest, "from": known.repository}
            self.client.post(f"/v2/{repository}/blobs/uploads/", params=query).raise_for_status()
            return known
        packed = zstandard.ZstdCompressor(level=LEVEL, threads=-1).compress(tar)
        blob = Blob(self.put_blob(repository, packed), len(packed), repository)
        self.layers[diff_id] = blob
        return blob

    def put_manifest(self, image: StandIn, manifest: Mapping[str, object]) -> None:
        body = json.dumps(manifest, separators=(",", ":")).encode()
        for tag in image.tags:
            url = f"/v2/{image.repository}/manifests/{tag}"
            self.client.put(url, content=body, headers={"content-type": MANIFEST}).raise_for_status()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def read_list(path: Path) -> list[StandIn]:
    """Lines of `NAME TAG TAG...`."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return [StandIn(f"stagely/stand-in:{name}", f"library/{name}", tuple(tags)) for name, *tags in lines]


def save(images: list[StandIn], archive: Path) -> None:
    """All images in one archive of the Engine; layers that they share are in it once."""
    names = [image.source for image in images]
    subprocess.run(["docker", "save", "--output", str(archive), *names], check=True, timeout=SAVE_LIMIT_S)


def publish(registry: Registry, archive: tarfile.TarFile, images: list[StandIn]) -> None:
    entries = {name: entry for entry in json.loads(read(archive, "manifest.json")) for name in entry["RepoTags"] or ()}
    for image in images:
        entry = entries[image.source]
        config = read(archive, entry["Config"])
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        layers = [
            registry.put_layer(image.repository, diff_id, read(archive, path))
            for diff_id, path in zip(diff_ids, entry["Layers"], strict=True)
        ]
        digest = registry.put_blob(image.repository, config)
        registry.put_manifest(image, manifest_of(digest, len(config), layers))
        size_mb = sum(layer.size_bytes for layer in layers) / 1e6
        print(f"{image.repository} {' '.join(image.tags)}: {len(layers)} layers, {size_mb:.1f} MB", flush=True)


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """The Engine writes a layer that two images share as a link to the first."""
    file = archive.extractfile(name)
    if file is None:
        raise FileNotFoundError(f"{name} is not a file in what `docker save` wrote")
    return file.read()


def manifest_of(config_digest: str, config_size: int, layers: list[Blob]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size_bytes} for layer in layers],
    }


@contextmanager
def running_registry(program: Path, storage: Path) -> Iterator[Registry]:
    """The registry program on this storage, on a free port of the loopback address, as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder) / "config.yml"
        config.write_text(json.dumps(registry_config(storage, port)))  # YAML takes JSON.
        process = subprocess.Popen([str(program), "serve", str(config)])
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=REQUEST_LIMIT_S) as client:
                wait_until_ready(client, process)
                yield Registry(client)
        finally:
            process.terminate()
            process.wait(timeout=REGISTRY_START_LIMIT_S)


def registry_config(storage: Path, port: int) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "only-for-this-run"},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + REGISTRY_START_LIMIT_S
    while True:
        try:
            client.get("/v2/").raise_for_status()
            return
        except httpx.ConnectError:
            if time.monotonic() > deadline or ended(process):
                raise


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Did it end within a moment?"""
    try:
        process.wait(timeout=0.05)
    except subprocess.TimeoutExpired:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    arguments = parser.parse_args()
    images = read_list(arguments.images)
    arguments.storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.storage.parent) as folder:
        path = Path(folder) / "images.tar"
        save(images, path)
        with running_registry(arguments.registry, arguments.storage) as registry, tarfile.open(path) as archive:
            publish(registry, archive, images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
