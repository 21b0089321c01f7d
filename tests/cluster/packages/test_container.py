"""The container file, and the compose file's three hosts: by its entry point, since no engine runs here.

The hosts' names become addresses of the loopback network, their folders those of the test, and their ports
free ones. All else of their environments and command lines is the file's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from muster_client import MusterError
from muster_client.sync import Client

from tests.cluster.local_cluster import LIMIT_S, ROOT, environment, until
from tests.ports import free_ports
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import resolve
from tools.muster.host import control, rundir

FOLDER = ROOT / "packaging/container"
HOSTS = ("host-a", "host-b", "host-c")


def last_stage() -> list[list[str]]:
    """Instructions of the image itself, each with its words."""
    text = re.sub(r"(?m)^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8")).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    start = max(place for place, line in enumerate(lines) if line[0] == "FROM")
    return lines[start:]


def instruction(name: str) -> str:
    return next(rest for found, rest in last_stage() if found == name)


def health() -> list[str]:
    """The command that tells whether a container is healthy."""
    found = json.loads(instruction("HEALTHCHECK").split("CMD", 1)[1])
    assert isinstance(found, list)
    return found


def compose() -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_the_image_runs_as_no_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instruction("USER"))
    assert json.loads(instruction("ENTRYPOINT")) == ["muster"]
    assert "--require-hashes" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_hosts_may_write_to_their_volumes_only() -> None:
    services = compose()["services"]
    assert set(services) == {"keys", *HOSTS}
    for name in HOSTS:
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["depends_on"] == {"keys": {"condition": "service_completed_successfully"}}
        assert {volume.split(":")[0] for volume in services[name]["volumes"]} <= set(compose()["volumes"])


def test_only_this_machine_reaches_hosts_without_tls_and_users() -> None:
    """A port without an address is one of all of the machine's addresses, whatever its firewall says."""
    for name in HOSTS:
        service = compose()["services"][name]
        assert service["environment"]["MUSTER_LISTEN_CLIENT_URLS"].startswith("http://")
        assert [port.rpartition(":")[0].rpartition(":")[0] for port in service["ports"]] == ["127.0.0.1"]


@pytest.mark.parametrize("variable", ["MUSTER_DATA_DIR", "ETCD_DATA_DIR"])
def test_a_data_directory_of_either_name_wins_over_the_images(variable: str) -> None:
    """An anonymous volume would hold the data of those who move from etcd's image."""
    image = dict(word.split("=", 1) for word in instruction("ENV").split())
    assert resolve(SERVER_FLAGS, [], image)["data-dir"] == instruction("VOLUME")
    assert resolve(SERVER_FLAGS, [], image | {variable: "/data"})["data-dir"] == "/data"


@pytest.mark.parametrize("variable", ["MUSTER_DATA_DIR", "ETCD_DATA_DIR"])
@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1), (None, 1)])
def test_a_container_is_as_healthy_as_its_supervisor_says(
    tmp_path: Path, ready: bool | None, code: int, variable: str
) -> None:
    """Whatever its URLs are: a request at port 2379 of 127.0.0.1 found those of some hosts unhealthy."""
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"ready": ready} if request == {"do": "ready"} else {"error": "unknown"}

    async def checked() -> int | None:
        async with contextlib.AsyncExitStack() as ends:
            if ready is not None:
                path = os.path.join(rundir.make_run_dir(str(tmp_path)), "control.sock")
                await ends.enter_async_context(await control.listen(path, answer))
            process = await asyncio.create_subprocess_exec(
                sys.executable, *health()[1:], cwd=tmp_path, stderr=-3,
                env=environment() | {"ETCD_DATA_DIR": "/var/lib/muster"} | {variable: str(tmp_path)})
            return await asyncio.wait_for(process.wait(), LIMIT_S)

    assert asyncio.run(checked()) == code


def test_the_three_hosts_of_the_compose_file_serve(tmp_path: Path) -> None:
    client_port, peer_port = free_ports(2)
    network = f"127.{random.randrange(1, 250)}.{random.randrange(1, 250)}"
    addresses = {name: f"{network}.{place + 1}" for place, name in enumerate(HOSTS)}
    (tmp_path / "keys").mkdir(mode=0o700)

    def here(text: str, own: str) -> str:
        text = text.replace("0.0.0.0", own).replace("/keys/", f"{tmp_path}/keys/")
        for name, address in addresses.items():
            text = text.replace(f"//{name}:", f"//{address}:")
        return text.replace(":2379", f":{client_port}").replace(":2380", f":{peer_port}")

    found = compose()["services"]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "muster").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tools.muster.cli "$@"\n')
    (programs / "muster").chmod(0o755)
    base = environment() | {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for _ in range(2):  # the second time it finds the file there
        keys = [here(word, "") for word in found["keys"]["entrypoint"]]
        subprocess.run(keys, check=True, env=base, capture_output=True)
    entry = json.loads(instruction("ENTRYPOINT"))
    with contextlib.ExitStack() as ends:
        for name in HOSTS:
            given = found[name]["environment"]
            settings = {key: here(value, addresses[name]) for key, value in given.items()}
            log = ends.enter_context(open(tmp_path / f"{name}.log", "wb"))
            host = subprocess.Popen(
                [*entry, *shlex.split(found[name].get("command", ""))], stdout=log, stderr=log, cwd=tmp_path,
                env=base | settings | {"MUSTER_DATA_DIR": str(tmp_path / name)})  # fmt: skip
            ends.callback(host.wait, LIMIT_S)
            ends.callback(host.send_signal, signal.SIGTERM)

        def put() -> bool:
            with contextlib.suppress(MusterError):
                client.put("/a", "b", timeout=5)
                return True
            return False

        def healthy(name: str) -> bool:
            env = base | {"MUSTER_DATA_DIR": str(tmp_path / name)}
            return not subprocess.run(health(), check=False, env=env, stderr=-3).returncode

        client = ends.enter_context(Client([f"{address}:{client_port}" for address in addresses.values()]))
        until(put)
        for name in HOSTS:
            until(partial(healthy, name))
