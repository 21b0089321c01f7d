"""The cluster's key file: one CURVE key pair on every host, with which only they are peers.

Keys change in three steps, each a new file for every host (docs/run/security.md): ``add`` prepares the next
pair, ``rotate`` puts it in use and keeps the old public part, ``drop`` removes that. Processes read the file
by ``tools.muster.machine.zmtp.curve.keys``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import zmq

from node.durable import write_new, write_whole
from tools.muster.config.parse import ConfigError

STEPS = ("add", "rotate", "drop")


def generate(path: str) -> None:
    """Make a new key pair in ``path``, readable by this user only. FileExistsError."""
    write_new(Path(path), _text(_new_pair()))


def change(path: str, step: str) -> str:
    """One step of changing keys; returns what to do next. The file stays its owner's: root may do this.
    ConfigError, OSError."""
    check(path)
    old = os.stat(path)
    with open(path, encoding="utf-8") as f:
        keys: dict[str, Any] = json.load(f)
    if step == "add":
        if keys.get("next"):
            raise ConfigError(f"{path} has its next key already: copy it to every host, then --rotate")
        keys["next"] = _new_pair()
        told = "copy it to every host; once all have it, --rotate"
    elif step == "rotate":
        if not keys.get("next"):
            raise ConfigError(f"{path} has no next key: --add comes first")
        keys = {**keys.pop("next"), "old": [*keys.get("old", []), keys["public"]]}
        told = "copy it to every host and restart them one after another; once all have, --drop"
    else:
        if not keys.pop("old", None):
            raise ConfigError(f"{path} has no old key")
        told = "copy it to every host: from then on the old key opens nothing"
    write_whole(Path(path), _text(keys), owner=(old.st_uid, old.st_gid))
    return told


def check(path: str) -> None:
    """ConfigError unless ``path`` holds usable keys that no other user can read."""
    try:
        mode = os.stat(path).st_mode
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
        pairs = [raw, *([raw["next"]] if raw.get("next") else [])]
        matches = all(zmq.curve_public(pair["secret"].encode()) == pair["public"].encode() for pair in pairs)
        matches = matches and all(len(key.encode()) == 40 for key in raw.get("old", []))
    except OSError as e:
        raise ConfigError(f"cannot read --peer-key-file {path}: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, zmq.ZMQError):
        raise ConfigError(
            f"--peer-key-file {path} is not a key file of muster: make one with `muster peer-keys FILE`"
        ) from None
    if not matches:
        raise ConfigError(f"--peer-key-file {path}: public and secret key do not belong together")
    if mode & 0o077:
        raise ConfigError(f"--peer-key-file {path} can be read by others: chmod 600 {path}")


def _new_pair() -> dict[str, Any]:
    public, secret = zmq.curve_keypair()
    return {"public": public.decode(), "secret": secret.decode()}


def _text(keys: dict[str, Any]) -> bytes:
    return json.dumps(keys).encode() + b"\n"
