"""What Temporal stores of us: AES-256-GCM ciphertext. The server, its database and its backups see no input or result.

In clear stay workflow ids, type, queue and signal names, search attributes and times: none of them may hold what a
user wrote. What a payload held before encryption was switched on still decodes, so that running environments live on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from stagely.keyring import KeyRing

ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
_NONCE_BYTES = 12  # NIST SP 800-38D: random nonces of 96 bits are good for 2**32 messages of one key.


class PayloadUnreadable(ValueError):
    """A payload that says it is ours is damaged, or was encrypted with other bytes under the same key id."""


class EncryptionCodec(PayloadCodec):
    """Encrypts every payload with the newest key and decrypts with whichever key it names.

    A payload without our encoding passes as it is. Refusing it would protect nobody: who can write to the namespace can
    end, signal or repeat any run anyway, and it would strand runs from before, operators with the CLI, and recorded
    histories that people can read.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypted payloads, in order; one that is encrypted already stays as it is."""
        return [self.encode_one(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Plain payloads, in order.

        Raises:
            KeyUnknown: the key file lacks a key; running tasks are tried again and go on once it is back.
            PayloadUnreadable: damaged; trying again will not help.
        """
        return [self.decode_one(payload) for payload in payloads]

    def encode_one(self, payload: Payload) -> Payload:
        if _is_encrypted(payload):
            return payload
        key, nonce = self._keys.newest(), os.urandom(_NONCE_BYTES)
        key_id = key.id.encode()
        sealed = AESGCM(key.secret).encrypt(nonce, payload.SerializeToString(), key_id)
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id}, data=nonce + sealed)

    def decode_one(self, payload: Payload) -> Payload:
        if not _is_encrypted(payload):
            return payload
        key_id = payload.metadata.get(KEY_ID, b"")
        key = self._keys.find(key_id.decode(errors="replace"))
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            return Payload.FromString(AESGCM(key.secret).decrypt(nonce, sealed, key_id))
        except (InvalidTag, DecodeError, ValueError) as error:  # ValueError: shorter than a nonce.
            raise PayloadUnreadable(
                f"a payload of key {key.id} cannot be decrypted ({len(payload.data)} bytes): it is damaged, or the key "
                "file holds another key under this id than the one that encrypted it"
            ) from error


def _is_encrypted(payload: Payload) -> bool:
    return payload.metadata.get("encoding") == ENCODING
