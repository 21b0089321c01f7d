"""A certificate that is chosen in Chromium logs in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from tests.authority import Pair
from tests.interop.console.certified import ALICE, MALLORY, certified
from tests.interop.console.chromium.browser import PROGRAMS, browser, served
from tests.interop.toolchain import skip_without, unavailable

skip_without(*PROGRAMS, "certutil", "pk12util")

POLICIES = Path("/etc/chromium/policies/managed")
SECRET = "secret"


def keep(home: Path, pair: Pair) -> None:
    """Put a certificate with its key where Chromium looks for them."""
    cert, key = load_pem_x509_certificate(pair.cert.read_bytes()), load_pem_private_key(
        pair.key.read_bytes(), None)  # fmt: skip
    store = home / ".pki" / "nssdb"
    if not store.exists():
        store.mkdir(parents=True)
        subprocess.run(["certutil", "-d", f"sql:{store}", "-N", "--empty-password"], check=True, timeout=60)
    file = home / f"{pair.cert.stem}.p12"
    file.write_bytes(
        pkcs12.serialize_key_and_certificates(
            pair.cert.stem.encode(),
            key,
            cert,
            None,
            BestAvailableEncryption(SECRET.encode()),  # type: ignore[arg-type]
        )
    )
    line = ["pk12util", "-d", f"sql:{store}", "-i", str(file), "-W", SECRET]
    subprocess.run(line, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.fixture
def choose() -> Iterator[object]:
    """Have Chromium choose a user's certificate at an address, as a person would in its dialog."""
    written: list[Path] = []

    def chooses(base: str, user: str) -> None:
        rule = {"pattern": base, "filter": {"SUBJECT": {"CN": user}}}
        file = POLICIES / f"muster-test-{os.getpid()}.json"
        try:
            POLICIES.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"AutoSelectCertificateForUrls": [json.dumps(rule)]}))
        except OSError as error:
            unavailable(f"Chromium's policies cannot be written: {error}")
        written.append(file)

    yield chooses
    for file in written:
        file.unlink()


def test_a_certificate_that_is_chosen_logs_in(choose: object, tmp_path: Path) -> None:
    assert callable(choose)
    with (
        certified("muster", tmp_path) as store,
        served([store.url], *store.flags, scheme="https") as base,
    ):
        home = tmp_path / "home"
        for name in (ALICE, MALLORY):
            keep(home, store.authority.issue(name, name))
        choose(base, ALICE)
        with browser(base, home=home) as page:
            page.open("/keys?search=/open/")
            page.click("button", f"Sign in as {ALICE} by certificate")
            page.click(".mc-row", "/open/key")
            page.find(".cm-content", "open")
            page.find(f"button[aria-label='Signed in as {ALICE}']")
            page.click(".mc-link", "Users")
            page.find(".mc-main", "You see yourself and your own roles.")
            assert page.complaints() == []
