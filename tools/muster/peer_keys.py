"""The cluster's key file: one CURVE key pair that every host has, so that only they can talk as peers."""

from __future__ import annotations

import json
import os

import zmq

from tools.muster.config.parse import ConfigError


def generate(path: str) -> None:
    """Make a new key pair in ``path``, readable by this user only. FileExistsError rather than overwrite one."""
    public, secret = zmq.curve_keypair()
    text = json.dumps({"public": public.decode(), "secret": secret.decode()}) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def check(path: str) -> None:
    """ConfigError unless ``path`` holds a usable key pair that no other user can read."""
    try:
        mode = os.stat(path).st_mode
        with open(path, encoding="utf-8") as f:
            raw = json.load(f)
        public, secret = raw["public"].encode(), raw["secret"].encode()
        matches = zmq.curve_public(secret) == public
    except OSError as e:
        raise ConfigError(f"cannot read --peer-key-file {path}: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, zmq.ZMQError):
        raise ConfigError(f"--peer-key-file {path} is not a key file of muster: make one with `muster peer-keys FILE`") from None
    if not matches:
        raise ConfigError(f"--peer-key-file {path}: public and secret key do not belong together")
    if mode & 0o077:
        raise ConfigError(f"--peer-key-file {path} can be read by others: chmod 600 {path}")
