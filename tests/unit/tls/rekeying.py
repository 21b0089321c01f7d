"""Records of a TLS 1.3 client that Python's ssl cannot send, such as KeyUpdates."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HANDSHAKE, _DATA = 22, 23
_KINDS: dict[str, tuple[type[HashAlgorithm], type[AESGCM | ChaCha20Poly1305], int]] = {
    "TLS_AES_128_GCM_SHA256": (SHA256, AESGCM, 16),
    "TLS_AES_256_GCM_SHA384": (SHA384, AESGCM, 32),
    "TLS_CHACHA20_POLY1305_SHA256": (SHA256, ChaCha20Poly1305, 32),
}


class Rekeying:
    """Goes on for a client that has shaken hands, and has sent nothing since. ``client.context`` has written
    its secrets into ``keylog``."""

    def __init__(self, client: ssl.SSLObject, keylog: Path) -> None:
        cipher = client.cipher()
        assert cipher is not None
        assert client.version() == "TLSv1.3"
        self._hash, self._aead, self._key_bytes = _KINDS[cipher[0]]
        lines = [line.split() for line in keylog.read_text().splitlines()]
        self._secret = bytes.fromhex([line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"][-1])
        self._use_secret()

    def update(self) -> bytes:
        """A KeyUpdate that asks for the other side's. From then on this side has new keys."""
        record = self._record(_HANDSHAKE, b"\x18\0\0\1\1")
        self._secret = self._expand(b"traffic upd", len(self._secret))
        self._use_secret()
        return record

    def data(self, plain: bytes) -> bytes:
        return self._record(_DATA, plain)

    def _use_secret(self) -> None:
        self._sealer = self._aead(self._expand(b"key", self._key_bytes))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
        return HKDFExpand(self._hash(), size, info).derive(self._secret)

    def _record(self, kind: int, plain: bytes) -> bytes:
        head = b"\x17\x03\x03" + (len(plain) + 17).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._sealer.encrypt(nonce, plain + bytes((kind,)), head)
