"""Where one round's engines are, and the settings that follow: the same for the worker and the driver."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from stagely.dev.folder import write_private
from stagely.keyring import KEY_BYTES
from stagely.settings import Settings

PROJECT = "prj-bench"
REPO = "bench/app"


@dataclass(frozen=True, slots=True)
class Place:
    """`folder` is the round's own; the worker finds the driver at `socket` in it."""

    folder: str
    temporal_address: str
    database_url: str
    redis_url: str

    @property
    def socket(self) -> Path:
        return Path(self.folder) / "wire"

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Place:
        return cls(**json.loads(text))

    def settings(self) -> Settings:
        """As an operator would set them; nothing of the caller's own installation is read."""
        return Settings(
            _env_file=None,
            installation="bench",
            state=Path(self.folder),
            database_url=self.database_url,
            redis_url=self.redis_url,
            TEMPORAL_ADDRESS=self.temporal_address,
            TEMPORAL_NAMESPACE="default",
            registry="registry:5000",
            registry_url="http://registry",
            encryption_key_file=self._key_file(),
        )

    def _key_file(self) -> Path:
        """The round's own key of what Temporal stores: worker and driver read each other's payloads."""
        path = Path(self.folder) / "keys"
        if not path.exists():
            write_private(path, f"bench:{secrets.token_hex(KEY_BYTES)}\n")
        return path
