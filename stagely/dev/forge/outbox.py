"""Webhooks: written down first, then sent once each, in order, signed as GitHub signs.

Like GitHub, a failed delivery is kept and not repeated by itself. One that a killed forge never tried is sent at the
next start.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid

import httpx

from stagely.dev.forge.config import ForgeConfig
from stagely.dev.forge.rows import Delivery
from stagely.dev.forge.shapes import Json
from stagely.dev.forge.store import Store
from stagely.logs import get_logger

HOOK_ID = 1

log = get_logger()


class Outbox:
    """`put` inside the store's transaction that made the event true; `run` sends until cancelled."""

    def __init__(self, config: ForgeConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._news = asyncio.Event()

    def put(self, event: str, body: Json) -> Delivery:
        raw = json.dumps(body, separators=(",", ":")).encode()
        self._news.set()
        return self._store.add_delivery(str(uuid.uuid4()), event, str(body.get("action", "")), raw)

    def put_again(self, old: Delivery) -> Delivery:
        """The same body and GUID once more, as GitHub's "Redeliver" does."""
        self._news.set()
        return self._store.add_delivery(old.guid, old.event, old.action, old.body, redelivery=True)

    async def run(self) -> None:
        # trust_env off: the api is on this machine, whatever proxy the environment names.
        async with httpx.AsyncClient(timeout=self._config.webhook_timeout_s, trust_env=False) as client:
            while True:
                self._news.clear()
                while (delivery := self._store.next_delivery()) is not None:
                    await self._send(client, delivery)
                await self._news.wait()

    async def _send(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        began = time.monotonic()
        status, error = await self._post(client, delivery)
        took_s = time.monotonic() - began
        self._store.set_delivered(delivery.id, status, error, took_s)
        facts = {
            "github_event": delivery.event,
            "action": delivery.action,
            "status": status,
            "took_s": round(took_s, 3),
        }
        if 200 <= status < 300:
            log.info("webhook delivered", **facts)
        else:
            log.warning("webhook not delivered; it is kept for redelivery", error=error, **facts)

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> tuple[int, str]:
        """The status and the error; status 0 when nobody answered in time."""
        if not self._config.webhook_url:
            return 0, "no webhook URL is configured (--webhook-url)"
        try:
            async with asyncio.timeout(self._config.webhook_timeout_s):
                answer = await client.post(
                    self._config.webhook_url, content=delivery.body, headers=self._headers(delivery)
                )
        except TimeoutError:
            return 0, f"no answer within {self._config.webhook_timeout_s:g} s"
        except httpx.HTTPError as error:
            return 0, f"{type(error).__name__}: {error}"
        return answer.status_code, "" if answer.is_success else answer.text[:500]

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        """Source: GitHub docs, "Webhook events and payloads", delivery headers."""
        secret = self._config.webhook_secret.encode()
        return {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/stagely",
            "X-GitHub-Delivery": delivery.guid,
            "X-GitHub-Event": delivery.event,
            "X-GitHub-Hook-ID": str(HOOK_ID),
            "X-GitHub-Hook-Installation-Target-ID": str(self._config.app_id),
            "X-GitHub-Hook-Installation-Target-Type": "integration",
            "X-Hub-Signature": "sha1=" + hmac.new(secret, delivery.body, hashlib.sha1).hexdigest(),
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret, delivery.body, hashlib.sha256).hexdigest(),
        }
