from __future__ import annotations

import json
import urllib.request
from base64 import b64encode

from muster.testing import Store


def test_any_client_can_be_used(muster: Store) -> None:
    key = b64encode(muster.prefix.encode()).decode()

    def post(path: str, **body: str) -> dict[str, object]:
        request = urllib.request.Request(f"{muster.url}/v3/kv/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    post("put", key=key, value="eA==")
    assert post("range", key=key)["count"] == "1"
