"""The Helm chart: what it renders, and that its scripts start, add and remove members.

``make chart`` renders it by helm's own packages. Kubernetes' objects are checked against Kubernetes' schemas
(by the library kubernetes-validate). Those of cert-manager and of Prometheus' operator have no schema here:
their fields are compared with what their documentation names.
"""

from __future__ import annotations

import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.cluster.local_cluster import LIMIT_S, ROOT, environment, until
from tests.ports import free_ports

FOLDER = ROOT / "packaging/chart"
sys.path.append(str(FOLDER))

import render  # noqa: E402  # a script beside the packages

VALUES = list(render.VALUES)
OTHERS = {"Certificate", "ServiceMonitor"}


def objects(name: str) -> dict[str, dict[str, Any]]:
    """By kind; of services, the last."""
    text = (FOLDER / "rendered" / f"{name}.yaml").read_text(encoding="utf-8")
    return {found["kind"]: found for found in yaml.safe_load_all(text) if found}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_rendered_is_of_the_chart_as_it_is(name: str) -> None:
    first = (FOLDER / "rendered" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert render.fingerprint() in first, "run `make chart`"


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("name", VALUES)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    text = (FOLDER / "rendered" / f"{name}.yaml").read_text(encoding="utf-8")
    checked = [found for found in yaml.safe_load_all(text) if found and found["kind"] not in OTHERS]
    assert len(checked) == 7
    for found in checked:
        kubernetes_validate.validate(found, version, strict=True)


def test_a_wrong_field_is_found() -> None:
    wrong = objects("keys")["StatefulSet"]
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_hosts_are_no_root_and_write_to_volumes_only() -> None:
    for name in VALUES:
        pod = objects(name)["StatefulSet"]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        # else each start of a pod opens all files of the volume to its group
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["automountServiceAccountToken"] is False


def test_a_majority_is_never_evicted() -> None:
    for name in VALUES:
        replicas = objects(name)["StatefulSet"]["spec"]["replicas"]
        assert 2 * objects(name)["PodDisruptionBudget"]["spec"]["maxUnavailable"] < replicas


def test_certificates_and_metrics_have_the_fields_of_their_operators() -> None:
    found = objects("tls")
    spec = found["Certificate"]["spec"]
    assert found["Certificate"]["apiVersion"] == "cert-manager.io/v1"
    assert spec["issuerRef"] == {"name": "company", "kind": "ClusterIssuer"}
    assert spec["usages"] == ["server auth", "client auth"]
    assert "*.store-muster-peers.default.svc.cluster.local" in spec["dnsNames"]
    volumes = found["StatefulSet"]["spec"]["template"]["spec"]["volumes"]
    assert spec["secretName"] in [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
    flags = found["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--peer-cert-allowed-cn={spec['commonName']}" in flags
    monitor = found["ServiceMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    labels = found["Service"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not OTHERS & set(objects("keys"))


def test_clients_need_a_certificate_unless_the_values_say_no() -> None:
    flags = {name: objects(name)["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["args"]
             for name in ("tls", "upgrade")}  # fmt: skip
    assert {"--trusted-ca-file=/tls/ca.crt", "--client-cert-auth=true"} <= set(flags["tls"])
    assert not [flag for flag in flags["upgrade"] if flag.startswith(("--trusted-ca", "--client-cert"))]
    for name in flags:
        assert {"--peer-trusted-ca-file=/tls/ca.crt", "--peer-client-cert-auth=true"} <= set(flags[name])


def test_the_image_is_built_by_the_name_that_the_chart_takes() -> None:
    image = objects("keys")["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["image"]
    page = (ROOT / "docs/run/install.md").read_text(encoding="utf-8")
    assert f"docker build -f packaging/container/Dockerfile -t {image} ." in page
    assert f" --tag {image} ." in (ROOT / "packaging/container/Dockerfile").read_text(encoding="utf-8")


LISTED = "11, started, store-0, http://store-0.peers:2380, http://store-0.peers:2379, false"
OURS = "22, unstarted, , http://store-1.peers:2380, , false"
THERE = "store-0=http://store-0.peers:2380,store-1=http://store-1.peers:2380"
NEW = f"{THERE},store-2=http://store-2.peers:2380"
JOINS = "../data.joins"
ROOT_USER = "root:secret"


@pytest.mark.parametrize(
    ("made", "listed", "state", "cluster"),
    [
        ("", "", "new", NEW),
        ("", LISTED, "existing", THERE),
        ("", f"{LISTED}\n{OURS}", "existing", THERE),
        ("member/x.tmp", LISTED, "existing", THERE),  # what a refused start leaves
        ("member/identity.json", LISTED, "new", NEW),
        ("member/x.tmp", "", "new", NEW),
        (JOINS, "", "", ""),
        (JOINS, LISTED, "existing", THERE),
    ],
)
def test_a_pod_that_is_no_host_yet_joins_the_cluster_that_is_there(
    made: str, listed: str, state: str, cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "data/member").mkdir(parents=True)
    if made:
        (tmp_path / "data" / made).touch()
    done = started(tmp_path, listed)
    assert (tmp_path / "data" / JOINS).exists() == (state != "new")
    if not state:  # it met that cluster when it was to join it, and begins no other
        assert (done.returncode, done.stdout) == (1, "")
        assert "nobody answers of the cluster" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    flags = done.stdout.splitlines()
    assert f"--initial-cluster-state={state}" in flags
    assert f"--initial-cluster={cluster}" in flags


def started(
    tmp_path: Path, listed: str, *, said: str = "", muster: str = 'printf "%s\\n" "$@"', **given: str
) -> subprocess.CompletedProcess[str]:
    """The chart's script, beside a program that prints its flags, and the members or ``said``."""
    (tmp_path / "list").write_text(listed and f"{listed}\n")
    lists = f"test -s list && cat list || {{ echo '{said}' >&2; exit 1; }}"
    for name, text in (
        ("muster", muster),
        ("musterctl", f'case "$*" in *add*) echo "{OURS}" >>list ;; *) {lists} ;; esac'),
        ("sleep", f"exec {shutil.which('sleep')} 0.05"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "MUSTER_DATA_DIR": str(tmp_path / "data"),
        "POD_NAME": "store-1", "BASE": "store", "DOMAIN": "peers", "REPLICAS": "3", "SCHEME": "http",
        "LISTEN": "0.0.0.0", "CLIENT_FLAGS": "", "BEGINS": "true"} | given  # fmt: skip
    script = objects("keys")["ConfigMap"]["data"]["start.sh"].replace("/tmp/", f"{tmp_path}/")
    held, kept = os.pipe()  # the end of what holds it
    with open(tmp_path / "out", "w") as out, open(tmp_path / "log", "w") as log:
        code = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, stdout=out, stderr=log, timeout=LIMIT_S, check=False, env=env,
            pass_fds=(kept,)).returncode  # fmt: skip
    os.close(kept)
    assert select.select([held], [], [], LIMIT_S)[0], "the script leaves a process"
    os.close(held)
    return subprocess.CompletedProcess(
        [], code, (tmp_path / "out").read_text(), (tmp_path / "log").read_text())  # fmt: skip


def test_a_changed_key_file_reaches_the_running_host(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("first")
    muster = (
        "cat cluster.keys; echo second >secret; i=0\n"
        "until grep second cluster.keys || [ $i -gt 200 ]; do i=$((i + 1)); sleep 1; done\n"
        "stat -c %a cluster.keys"
    )
    done = started(tmp_path, "", muster=muster, KEYS=str(tmp_path / "secret"))
    assert done.stdout == "firstsecond\n600\n"


def test_a_pod_begins_no_cluster_beside_one_that_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = started(tmp_path, "", said="Error: etcdserver: user name is empty")
    assert (done.returncode, done.stdout) == (1, "")
    assert "user name is empty" in done.stderr
    assert "auth.secret" in done.stderr
    again = started(tmp_path, "", said="connection refused")
    assert (again.returncode, again.stdout) == (1, ""), "it has met a cluster"


@pytest.mark.parametrize("said", ["connection refused", "Error: etcdserver: no leader"])
def test_hosts_of_a_new_cluster_do_not_wait_for_each_other(said: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "--initial-cluster-state=new" in started(tmp_path, "", said=said).stdout


def test_a_pod_of_an_upgrade_begins_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert started(tmp_path, "", said="connection refused", BEGINS="").returncode == 1
    done = started(tmp_path, "", said="connection refused", BEGINS="false")
    assert (done.returncode, done.stdout) == (1, "")
    assert "connection refused" in done.stderr
    assert "nobody answers of the cluster" in done.stderr
    assert "--initial-cluster-state=existing" in started(tmp_path, LISTED, BEGINS="false").stdout


def test_an_install_begins_a_cluster_and_an_upgrade_or_rollback_does_not() -> None:
    """A rollback brings the objects of an install back, but no hook of it runs."""
    for name in VALUES:
        said = variables(name, "StatefulSet")["BEGINS"]["valueFrom"]["configMapKeyRef"]
        text = (FOLDER / "rendered" / f"{name}.yaml").read_text(encoding="utf-8")
        (begins,) = [found for found in yaml.safe_load_all(text)
                     if found and found["metadata"]["name"] == said["name"]]  # fmt: skip
        assert begins["metadata"]["annotations"] == {"helm.sh/hook": "pre-install,pre-upgrade"}
        assert begins["data"][said["key"]] == ("false" if name == "upgrade" else "true")


def test_members_are_removed_before_any_change_that_may_remove_hosts() -> None:
    """A rollback may; an upgrade does not where as many hosts run: it mends a cluster that does not serve."""
    hooks = {name: objects(name)["Job"]["metadata"]["annotations"]["helm.sh/hook"] for name in VALUES}
    always = "pre-upgrade,pre-rollback"
    assert hooks == {"keys": always, "tls": always, "upgrade": "pre-rollback"}


@pytest.mark.parametrize(
    ("named", "code"),
    [(("store-0",), 0), (("store-0", "store-1"), 1), ((), 1)],
    ids=["same", "fewer", "no names"],
)
def test_a_rollback_that_removes_no_pod_needs_no_cluster_that_serves(
    tmp_path: Path, named: tuple[str, ...], code: int
) -> None:
    """The names of pods that exist resolve; where none does, name resolution itself fails."""
    known = " | ".join(f"*{name}.peers*" for name in named) or "none"
    for name, text in (
        ("musterctl", "exit 1"), ("getent", f'case "$*" in {known}) ;; *) exit 2 ;; esac')
    ):  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "BASE": "store", "DOMAIN": "peers", "REPLICAS": "1",
        "ENDPOINTS": "", "CLIENT_FLAGS": ""}  # fmt: skip
    script = objects("keys")["ConfigMap"]["data"]["remove.sh"]
    assert subprocess.run(["sh", "-c", script], env=env, timeout=LIMIT_S, check=False).returncode == code


def test_scripts_ask_as_the_user_of_the_secret() -> None:
    user = {"name": "MUSTERCTL_USER",
            "valueFrom": {"secretKeyRef": {"name": "root-user", "key": "user"}}}  # fmt: skip
    for kind in ("StatefulSet", "Job"):
        assert variables("upgrade", kind)["MUSTERCTL_USER"] == user
        assert "MUSTERCTL_USER" not in variables("keys", kind)


def variables(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """The environment of the containers, by name."""
    container = objects(name)[kind]["spec"]["template"]["spec"]["containers"][0]
    return {entry["name"]: entry for entry in container["env"]}


class Pods:
    """Hosts as the chart's script starts them, with the names and folders of pods."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ports = folder, free_ports(3)
        self._network = f"127.{random.randrange(1, 250)}.{random.randrange(1, 250)}"
        found = objects("keys")
        container = found["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
        self._arguments = container["args"]
        self._given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        self._scripts = found["ConfigMap"]["data"]
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        names = [f"{self._network}.{i + 1} store-muster-{i}.{self._given['DOMAIN']}" for i in range(4)]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(names) + "\n")
        (folder / "bin").mkdir()
        for name, module in (("muster", "tools.muster.cli"), ("musterctl", "tools.musterctl")):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} -P -m {module} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        self.endpoint = self._environment(0, 0)["ENDPOINTS"]
        self.run(0, "muster", "peer-keys", str(folder / "keys"))

    def _here(self, pod: int, text: str) -> str:
        """Free ports, the pod's own /tmp."""
        ours = dict(zip(("2379", "2380", "2381"), self._ports, strict=True))
        text = re.sub(r":(2379|2380|2381)\b", lambda found: f":{ours[found[1]]}", text)  # not one of our own
        return text.replace("/tmp/", f"{self._folder}/{pod}/")

    def _environment(self, pod: int, replicas: int) -> dict[str, str]:
        own = {
            "POD_NAME": f"store-muster-{pod}", "LISTEN": f"{self._network}.{pod + 1}",
            "REPLICAS": str(replicas), "BEGINS": "true", "KEYS": str(self._folder / "keys"),
            "MUSTER_DATA_DIR": str(self._folder / str(pod) / "data"),
            "PATH": f"{self._folder}/bin:{os.environ['PATH']}",
            "ENDPOINTS": f"http://store-muster-0.{self._given['DOMAIN']}:{self._ports[0]}",
        }
        return environment() | self._given | own

    def _line(self, *words: str) -> list[str]:
        """A command that has our names of hosts."""
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"',
                str(self._folder / "hosts"), *words]  # fmt: skip

    def start(self, pod: int, replicas: int, **given: str) -> None:
        own = self._folder / str(pod)
        own.mkdir(exist_ok=True)
        (own / "start.sh").write_text(self._here(pod, self._scripts["start.sh"]))
        with open(own / "log", "wb") as log:
            self.running[pod] = subprocess.Popen(
                self._line("sh", str(own / "start.sh"), *self._arguments), stdout=log, stderr=log,
                env=self._environment(pod, replicas) | given, cwd=own)  # fmt: skip

    def remove(self, replicas: int, **given: str) -> None:
        script = self._folder / "remove.sh"
        script.write_text(self._here(0, self._scripts["remove.sh"]))
        self.run(replicas, "sh", str(script), **given)

    def run(self, replicas: int, *words: str, **given: str) -> str:
        done = subprocess.run(
            self._line(*words), check=False, capture_output=True, text=True, timeout=LIMIT_S,
            env=self._environment(0, replicas) | given)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ctl(self, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
        """musterctl at pod 0."""
        env = self._environment(0, 0) | given
        return subprocess.run(
            self._line("musterctl", "--endpoints", self.endpoint, *words), check=False,
            capture_output=True, text=True, timeout=LIMIT_S, env=env)  # fmt: skip

    def members(self) -> list[str]:
        """Names of those that have started."""
        done = self.ctl("member", "list", MUSTERCTL_USER=ROOT_USER)
        rows = [line.split(", ") for line in done.stdout.splitlines()]
        return sorted(row[2] for row in rows if row[1] == "started")

    def until_members_are(self, names: list[str]) -> None:
        try:
            until(lambda: self.members() == names, look_s=0.5)
        except AssertionError:
            logs = {path: path.read_text()[-2000:] for path in sorted(self._folder.glob("*/log"))}
            pytest.fail("\n".join(f"{path}:\n{text}" for path, text in logs.items()))


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to give pods their names")
    found = Pods(tmp_path)
    yield found
    for process in found.running.values():
        process.send_signal(signal.SIGTERM)
    for process in found.running.values():
        process.wait(LIMIT_S)


def test_members_follow_the_number_of_replicas(pods: Pods) -> None:
    names = [f"store-muster-{i}" for i in range(4)]
    pods.start(0, 3)
    pods.start(1, 3)
    pods.until_members_are(names[:2])
    pods.start(2, 3)  # late: the cluster runs already
    pods.until_members_are(names[:3])
    pods.start(3, 4)
    pods.until_members_are(names)
    pods.remove(3)
    pods.until_members_are(names[:3])
    assert pods.running[3].wait(LIMIT_S) == 0


def test_a_pod_joins_a_cluster_that_has_users(pods: Pods) -> None:
    names = [f"store-muster-{i}" for i in range(2)]
    root = {"MUSTERCTL_USER": ROOT_USER}
    pods.start(0, 1)
    pods.until_members_are(names[:1])
    for words in (("user", "add", ROOT_USER), ("put", "a", "old"), ("auth", "enable")):
        pods.run(1, "musterctl", "--endpoints", pods.endpoint, *words)
    pods.start(1, 2)
    assert pods.running.pop(1).wait(LIMIT_S) == 1, "it has no user, and begins no cluster"
    pods.start(1, 2, BEGINS="false", **root)
    pods.until_members_are(names)
    pods.remove(1, **root)
    pods.until_members_are(names[:1])
    assert "old" in pods.ctl("get", "a", **root).stdout
