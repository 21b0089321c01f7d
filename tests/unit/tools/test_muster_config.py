"""Settings that cannot be, in etcd's words; and what follows from those that can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.evaluate.txns.pending import MOST_KEPT_BYTES
from cluster.features.autocompact import AutoCompactor
from cluster.pacing.pace import MAX_ENTRY_BYTES
from proxy.shared.context import RECEIVE_OVERHEAD_BYTES
from tools.muster.config import settings as config
from tools.muster.config.flags import GATES, SERVER_FLAGS
from tools.muster.config.gates import STAGES
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.config.settings import ServerConfig, gate, local_address
from tools.muster.host import pinning, ports
from tools.muster.machine.zmtp.codec import MAX_MESSAGE_BYTES

CHECKS = ("CompactHashCheck", "InitialCorruptCheck")
ALPHA = set(STAGES["AllAlpha"])


def build(*args: str, **environ: str) -> ServerConfig:
    return config.build(resolve(SERVER_FLAGS, args, environ))


def test_without_flags() -> None:
    c = build()
    assert (c.name, c.data_dir, c.shards, c.shard_depth) == ("default", "default.etcd", 1, 2)
    assert not c.shards_set
    assert c.initial_cluster == (("default", ("http://localhost:2380",)),)
    assert c.quota_backend_bytes == 2147483648
    assert c.watch_progress_notify_interval_ms == 600_000
    assert c.warnings == ()


def test_empty_urls_are_those_of_the_default() -> None:
    """Whoever names client URLs has to say what he advertises; saying nothing will do, as at an etcd."""
    listens = ("--listen-peer-urls=", "--listen-client-urls=", "--initial-advertise-peer-urls=")
    found, wanted = build(*listens, "--advertise-client-urls=", "--listen-metrics-urls="), build()
    for field in ("listen_peer", "listen_client", "advertise_client", "initial_cluster", "listen_metrics"):
        assert getattr(found, field) == getattr(wanted, field)
    with pytest.raises(ConfigError, match="--advertise-client-urls is required"):
        build(*listens)


def test_client_urls_are_advertised_in_etcds_order() -> None:
    one, two = "http://127.0.0.1:10", "http://127.0.0.1:9"
    assert [u.text for u in build(f"--advertise-client-urls={two},{one}").advertise_client] == [one, two]


def test_the_name_names_the_data_directory_and_the_cluster() -> None:
    c = build("--name=infra0", "--initial-advertise-peer-urls=http://127.0.0.1:2390")
    assert c.data_dir == "infra0.etcd"
    assert c.initial_cluster == (("infra0", ("http://127.0.0.1:2390",)),)


@pytest.mark.parametrize(("name", "entry"), [
    ("infra0", ("infra0", ("http://localhost:2390",))), ("default", ("default", ("http://localhost:2380",)))])
def test_the_default_of_the_first_hosts_is_no_list_where_it_is_given_beside_a_name(
    name: str, entry: tuple[str, tuple[str, ...]]
) -> None:
    """A packaged file of variables has it."""
    c = build(f"--name={name}", "--initial-advertise-peer-urls=http://localhost:2390",
              ETCD_INITIAL_CLUSTER="default=http://localhost:2380")
    assert c.initial_cluster == (entry,)


def test_the_folder_of_an_older_version_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra0.muster").mkdir()
    assert build("--name=infra0").data_dir == "infra0.muster"
    assert build("--name=infra1").data_dir == "infra1.etcd"
    assert build("--name=infra0", "--data-dir=infra0.etcd").data_dir == "infra0.etcd"
    assert not [w for w in build("--name=infra0").warnings if "infra0.etcd" in w]
    (tmp_path / "infra0.etcd").mkdir()
    both = build("--name=infra0")
    assert both.data_dir == "infra0.muster"
    assert [w for w in both.warnings if "uses the data directory infra0.muster, and not infra0.etcd" in w]
    for args in (("--name=infra0", "--data-dir=infra0.muster"), ("--name=infra1",)):
        assert not [w for w in build(*args).warnings if "infra0.etcd" in w]


def test_an_empty_data_directory_is_the_default(tmp_path: Path) -> None:
    assert build("--name=infra0", "--data-dir=").data_dir == "infra0.etcd"
    file = tmp_path / "f.yaml"
    file.write_text('name: infra0\ndata-dir: ""\n', encoding="utf-8")
    assert build(f"--config-file={file}").data_dir == "infra0.etcd"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("extra", "'extra' is not a valid flag"),
        (
            "--heartbeat-interval=300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            "--election-timeout=60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly. When listening "
            "on specific address(es), this etcd process must advertise accessible url(s) to each connected "
            "client",
        ),
        (
            "--initial-cluster=default=localhost:2380",
            "URL scheme must be http, https, unix, or unixs: localhost:2380",
        ),
        (
            "--initial-cluster=default=http://127.0.0.1",
            'URL address does not have the form "host:port": http://127.0.0.1',
        ),
        ("--initial-cluster=default=http://[::1", "missing ']' in host"),
        ("--listen-peer-urls=http://[a]:1", "expected IP in URL for binding (http://[a]:1)"),
        ("--listen-peer-urls=http://127.0.0.1:99999", "listen tcp: address 99999: invalid port"),
        ("--listen-peer-urls=https://127.0.0.1:2380", "over http: some peer URLs differ"),
        (
            "--listen-peer-urls=unix:///run/peer",
            'URL address does not have the form "host:port": unix:///run/peer',
        ),
        ("--listen-peer-urls=unix://peer", 'URL address does not have the form "host:port": unix://peer'),
        ("--listen-peer-urls=unixs://peer:1", "peers talk by Unix sockets in clear, or over https"),
        ("--listen-metrics-urls=unix:sock", 'URL address does not have the form "host:port": unix:sock'),
        (f"--listen-metrics-urls=unix:///{'x' * 107}", f"listen unix /{'x' * 107}: bind: invalid argument"),
        (
            "--listen-metrics-urls=unixs:///run/metrics",
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            "--initial-cluster=infra0=http://a:1,http://b:1",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: http://b:1 (",
        ),
        (
            "--initial-cluster=infra0=http://a:1,infra1=http://a:1",
            "initial cluster infra0=http://a:1,infra1=http://a:1 has duplicate url",
        ),
        ("--log-outputs=", "--log-outputs must not be empty"),
        ("--log-output=,", "--log-outputs must not be empty"),
        ("--fronts=65", "--fronts=65 is not supported: at most 64"),
        ("--log-outputs=default,stderr", 'multi logoutput for "default" is not supported yet'),
        ("--log-outputs=a.log,default", 'multi logoutput for "default" is not supported yet'),
        ("--shards=0", "--shards must be at least 1"),
        ("--client-head-timeout=999ms", "--client-head-timeout must be at least 1s"),
        ("--http1-idle-timeout=0s", "--http1-idle-timeout must be at least 1s"),
        ("--lease-checkpoint-interval=999ms", "--lease-checkpoint-interval must be at least 1s"),
        ("--max-unanswered-bytes=2147483648", "--max-unanswered-bytes must be at most 2147483647"),
        (f"--max-request-bytes={(448 << 20) + 1}", f"--max-request-bytes must be at most {448 << 20}"),
        (f"--shard-depth={1 << 32}", f"--shard-depth must be at most {(1 << 32) - 1}"),
        (f"--write-buffer-bytes={(1 << 60) + 1}", f"--write-buffer-bytes must be at most {1 << 60}"),
        ("--max-header-bytes=4095", "--max-header-bytes must be at least 4096 and at most 524288"),
        ("--max-header-bytes=524289", "--max-header-bytes must be at least 4096 and at most 524288"),
        ("--max-learners=-1", "--max-learners must be at least 0"),
        ("--max-client-snapshots=0", "--max-client-snapshots must be at least 1"),
        ("--name=n\udcff", r'--name="n\xff" is no UTF-8'),
        ("--data-dir=n\udcff", r'--data-dir="n\xff" is no UTF-8'),
        ("--max-connection-snapshots=0", "--max-connection-snapshots must be at least 1"),
        ("--max-client-connections=0", "--max-client-connections must be at least 1"),
        ("--client-stall-timeout=0s", "--client-stall-timeout must be at least 1s"),
        ("--max-control-frames=99", "--max-control-frames must be at least 100"),
        ("--max-stream-resets=0", "--max-stream-resets must be at least 100"),
        ("--cpus=a-b", '--cpus "a-b": not "auto", "none" or a list'),
        (
            "--experimental-enable-lease-checkpoint-persist",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        ("--auto-compaction-retention=soon", 'error parsing --auto-compaction-retention: "soon"'),
        (f"--auto-compaction-retention={1 << 63}", "error parsing --auto-compaction-retention: "),
    ],
)
def test_a_setting_that_cannot_be(args: str, message: str) -> None:
    with pytest.raises(ConfigError) as e:
        build(args)
    assert message in str(e.value)


def test_what_the_largest_request_makes_goes_between_processes() -> None:
    """It may keep other values besides, and a watch with ``prev_kv`` gets as much of the revision before."""
    build(f"--max-request-bytes={448 << 20}")
    assert 2 * ((448 << 20) + RECEIVE_OVERHEAD_BYTES + MOST_KEPT_BYTES + MAX_ENTRY_BYTES) < MAX_MESSAGE_BYTES


@pytest.mark.parametrize(("given", "ms"), [("-1s", 600_000), ("10ms", 100), ("99ms", 100), ("150ms", 150)])
def test_an_interval_of_progress_that_is_too_short_is_raised_as_by_etcd(given: str, ms: int) -> None:
    built = build(f"--watch-progress-notify-interval={given}")
    assert built.watch_progress_notify_interval_ms == ms
    assert len(built.warnings) == (ms == 100)


@pytest.mark.parametrize(
    ("flag", "usual"),
    [
        ("auth-token-ttl", 300),
        ("max-concurrent-streams", 0xFFFF_FFFF),
        ("snapshot-count", 10_000),
        ("snapshot-catchup-entries", 5_000),
        ("experimental-snapshot-catchup-entries", 5_000),
    ],
)
def test_a_zero_is_the_default_where_it_is_etcds(flag: str, usual: int) -> None:
    """Taken by its word it locks everybody out, or flushes after each apply."""
    assert build(f"--{flag}=0").values[flag.removeprefix("experimental-")] == usual
    assert build(f"--{flag}=1").values[flag.removeprefix("experimental-")] == 1


def test_a_rate_of_traces_is_of_a_million() -> None:
    rate = "--distributed-tracing-sampling-rate=1000001"
    build(rate)  # and of none without tracing
    with pytest.raises(ConfigError, match="tracing sampling rate must be less than 1000000"):
        build(rate, "--enable-distributed-tracing")
    rate = "--distributed-tracing-sampling-rate=-1"
    build(rate)
    with pytest.raises(ConfigError, match="tracing sampling rate must be positive"):
        build(rate, "--enable-distributed-tracing")


def test_what_is_not_there_is_refused_with_what_takes_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^--experimental-enable-v2v3 is not supported .*by --enable-v2"):
        build("--experimental-enable-v2v3=/v2")


@pytest.mark.parametrize("flag", ["memory-mlock", "experimental-memory-mlock"])
def test_memory_is_locked_by_either_name(flag: str) -> None:
    assert build(f"--{flag}").values["memory-mlock"]
    assert not build().values["memory-mlock"]


@pytest.mark.parametrize("arg", ["--auth-token=simple", "--pre-vote", "--peer-cert-file="])
def test_what_is_not_there_may_have_its_default(arg: str) -> None:
    assert build(arg).warnings == ()


@pytest.mark.parametrize(
    "arg",
    ["--enable-pprof"],
)  # fmt: skip
def test_what_does_nothing_is_taken_with_a_line_that_says_so(arg: str) -> None:
    name = arg.partition("=")[0]
    assert [w.startswith(f"{name} has no effect in muster (") for w in build(arg).warnings] == [True]


def test_the_debug_flag_of_old_is_a_level_of_the_log() -> None:
    assert build("--debug").values["log-level"] == "debug"
    assert build().values["log-level"] == "info"


def test_a_flag_without_effect_is_warned_about() -> None:
    assert build("--backend-batch-limit=5").warnings == (
        "--backend-batch-limit has no effect in muster (operations between commits of the backend)",
    )


@pytest.mark.parametrize(
    ("args", "open_gates"),
    [
        ((), []),
        (("--experimental-initial-corrupt-check",), ["InitialCorruptCheck"]),
        (("--experimental-compact-hash-check-enabled",), ["CompactHashCheck"]),
        (("--feature-gates=CompactHashCheck=True,InitialCorruptCheck=1",), [*CHECKS]),
        (("--feature-gates=CompactHashCheck=false",), []),
        (
            ("--feature-gates=InitialCorruptCheck=true", "--experimental-compact-hash-check-enabled"),
            [*CHECKS],
        ),
        (("--feature-gates=CompactHashCheck=F,AllAlpha=TRUE",), [*ALPHA - {"CompactHashCheck"}, "AllAlpha"]),
        (("--feature-gates=CompactHashCheck=true", "--feature-gates=InitialCorruptCheck=true"), [*CHECKS]),
        (("--feature-gates=CompactHashCheck=true", "--feature-gates=CompactHashCheck=false"), []),
        (("--feature-gates=AllBeta=false",), ["-FastLeaseKeepAlive", "-TxnModeWriteWithSharedBuffer"]),
        (
            ("--experimental-enable-lease-checkpoint", "--experimental-enable-lease-checkpoint-persist"),
            ["LeaseCheckpoint", "LeaseCheckpointPersist"],
        ),
    ],
)
def test_gates_are_opened_and_closed_as_etcds(args: tuple[str, ...], open_gates: list[str]) -> None:
    config = build(*args)
    now = {name: gate(config, name) for name in GATES}
    changed = [name if now[name] else f"-{name}" for name in GATES if now[name] != GATES[name]]
    assert sorted(changed) == sorted(open_gates)


def test_a_gate_that_changes_nothing_is_taken_with_a_line_that_says_so() -> None:
    assert build("--feature-gates=TxnModeWriteWithSharedBuffer=false,LeaseCheckpoint=true").warnings == (
        "feature gate TxnModeWriteWithSharedBuffer has no effect in muster",
    )


def test_peers_by_unix_sockets_have_no_key_and_one_file() -> None:
    url = "unix://a.b:7"
    flags = (
        f"--listen-peer-urls={url}", f"--initial-advertise-peer-urls={url}",
        f"--initial-cluster=default={url}",
    )  # fmt: skip
    found = build(*flags, "--shards=2")
    assert (found.listen_peer[0].host, found.listen_peer[0].port) == ("unix:a.b", 7)
    assert found.warnings == ()
    peers = [at for at in ports.listeners(found, 2) if "peer" in at.asked_by]
    assert [at.address for at in peers] == [os.path.abspath("a.b:7")]
    with pytest.raises(ConfigError, match="peers talk by Unix sockets in clear"):
        build(*flags, "--peer-key-file=/k")


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        ("http://10.0.0.1:2380", "10.0.0.1"),
        ("http://host:2380,http://127.0.0.1:2380,http://[::]:2380,http://[fd00::1]:2380", "fd00::1"),
        ("http://host:2380,http://localhost:2380", ""),
    ],
)
def test_peers_are_dialled_from_the_first_address_that_is_told_to_them(urls: str, address: str) -> None:
    args = (
        f"--initial-advertise-peer-urls={urls}",
        f"--initial-cluster={','.join(f'default={url}' for url in urls.split(','))}",
    )
    assert local_address(build(*args, "--feature-gates=SetMemberLocalAddr=true")) == address
    assert local_address(build(*args)) == ""


def test_retention_by_mode() -> None:
    # what is taken, a node can be started with
    for mode, texts in (("revision", "1000 +5 -0"), ("periodic", "30m +1h 1.h .5h 1μs +5 -0 -0s 007")):
        for text in texts.split():
            build(f"--auto-compaction-mode={mode}", f"--auto-compaction-retention={text}")
            AutoCompactor(mode, text)
    with pytest.raises(ConfigError):
        build("--auto-compaction-mode=revision", "--auto-compaction-retention=30m")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "[::]", "host-a", "localhost.example"])
def test_a_peer_port_beyond_this_machine_wants_a_key_or_a_word(host: str) -> None:
    urls = (
        f"--listen-peer-urls=http://{host}:2380", "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--initial-cluster=default=http://10.0.0.1:2380,b=http://10.0.0.2:2380")
    with pytest.raises(ConfigError) as e:
        build(*urls)
    assert all(
        way in str(e.value)
        for way in (f"http://{host}:2380", "--peer-key-file", "muster peer-keys FILE", "--peer-insecure")
    )
    assert build(*urls, "--peer-key-file=k").warnings == ()
    (warning,) = build(*urls, "--peer-insecure").warnings
    assert warning.startswith("--peer-insecure: ")
    assert f"http://{host}:2380" in warning


ALONE = "--listen-peer-urls=http://0.0.0.0:2380", "--initial-advertise-peer-urls=http://10.0.0.1:2380"


@pytest.mark.parametrize("more", [(), ("--initial-cluster=default=http://10.0.0.1:2380",)])
def test_a_lone_host_listens_beyond_this_machine_and_takes_no_peers(more: tuple[str, ...]) -> None:
    c = build(*ALONE, *more)
    (warning,) = c.warnings
    assert "http://0.0.0.0:2380 takes no peers" in warning
    assert "--peer-key-file (muster peer-keys FILE makes it)" in warning
    assert (c.alone, c.own_user_peers) == (True, True)
    ports.compare(c, 1)
    for secured in ("--peer-key-file=k", "--peer-insecure"):
        assert not build(*ALONE, *more, secured).alone
    assert not build().alone


@pytest.mark.parametrize("way", [
    "--initial-cluster=default=http://10.0.0.1:2380,b=http://10.0.0.2:2380",
    "--initial-cluster-state=existing", "--discovery=http://10.0.0.9:2379/x", "--discovery-srv=example.com",
])
def test_a_host_that_looks_for_others_is_not_alone(way: str) -> None:
    with pytest.raises(ConfigError, match="would accept any peer"):
        build(*ALONE, way)
    values = resolve(SERVER_FLAGS, (*ALONE, way), {})
    assert config.build(values, lambda data_dir: True).alone, "members that it knows are its node's to count"
    forced = resolve(SERVER_FLAGS, (*ALONE, way, "--force-new-cluster"), {})
    assert config.build(forced, lambda data_dir: True).alone, "``forcing`` counts them before it changes any"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "localhost", "[::1]"])
def test_a_peer_port_of_this_machine_alone_wants_neither(host: str) -> None:
    assert build(f"--listen-peer-urls=http://{host}:2380").warnings == ()


def test_where_nothing_else_tells_peers_their_user_does() -> None:
    key, https = "--peer-key-file=k", "--listen-peer-urls=https://127.0.0.1:2380"
    tls = https, https.replace("listen", "initial-advertise")
    assert build().own_user_peers
    assert build(*tls, "--peer-auto-tls").own_user_peers
    assert not build(key).own_user_peers
    assert not build(*tls, key, "--peer-cert-file=c", "--peer-trusted-ca-file=ca").own_user_peers
    loose = build("--peer-insecure")
    assert not loose.own_user_peers
    assert loose.warnings == ("--peer-insecure: every user of this machine may act as a peer",)


def test_peers_elsewhere_without_keys_are_warned_about() -> None:
    assert any(
        "--peer-key-file" in w
        for w in build("--initial-cluster=default=http://localhost:2380,b=http://b:2380").warnings
    )


def test_a_key_and_the_word_for_none_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        build("--peer-insecure", "--peer-key-file=k")


def test_listening_everywhere_advertises_an_address_that_others_can_reach() -> None:
    c = build("--listen-peer-urls=http://0.0.0.0:2380", "--peer-insecure")
    assert c.advertise_peer[0].host not in ("0.0.0.0", "localhost")
    assert c.initial_cluster == (("default", (c.advertise_peer[0].text,)),)


def test_a_default_that_is_given_is_no_address_for_others_either() -> None:
    c = build(
        "--listen-client-urls=http://0.0.0.0:3379", "--advertise-client-urls=http://localhost:2379",
        "--listen-peer-urls=http://0.0.0.0:3380", "--initial-advertise-peer-urls=http://localhost:2380",
        "--peer-insecure",
    )  # fmt: skip
    assert [url.port for url in (*c.advertise_client, *c.advertise_peer)] == [3379, 3380]
    assert "localhost" not in [url.host for url in (*c.advertise_client, *c.advertise_peer)]
    c = build("--listen-client-urls=http://0.0.0.0:3379", "--advertise-client-urls=http://localhost:3379")
    assert [url.text for url in c.advertise_client] == ["http://localhost:3379"]


def test_several_urls_of_one_host_belong_together() -> None:
    c = build("--name=a", "--initial-cluster=a=http://h:1,b=http://i:1,a=http://h:2")
    assert c.initial_cluster == (("a", ("http://h:1", "http://h:2")), ("b", ("http://i:1",)))


def test_a_host_that_was_added_and_has_not_started_has_no_name() -> None:
    """``member add`` prints such an entry, as etcd's."""
    c = build("--name=a", "--initial-cluster=a=http://h:1,=http://i:1")
    assert c.initial_cluster == (("a", ("http://h:1",)), ("", ("http://i:1",)))


@pytest.mark.parametrize(
    ("spec", "processes", "usable", "pins"),
    [
        ("none", 2, [0, 1], [-1, -1]),
        ("auto", 2, [4, 5, 6], [4, 5]),
        ("auto", 3, [0, 1], [-1, -1, -1]),  # not enough for everybody: the kernel places them
        ("0-2,6", 3, [0, 1, 2, 6], [0, 1, 2]),
        ("1", 3, [0, 1], [1, 1, 1]),
        ("0,1", 3, [0, 1], [0, 1, 0]),
        ("auto:0,1", 2, [0, 1], [0, 1]),
    ],
)
def test_pinning(spec: str, processes: int, usable: list[int], pins: list[int]) -> None:
    assert pinning.assign(spec, processes, usable) == pins


def test_loops_let_go_of_cpus_that_nobody_named() -> None:
    assert pinning.lets_go("auto")
    assert pinning.lets_go(pinning.written([0, 2], yields=True))
    assert not pinning.lets_go(pinning.written([0, 2], yields=False))
    pinning.check("auto:0,2")
    with pytest.raises(ConfigError, match='--cpus "auto:": not "auto"'):
        pinning.check("auto:")


def test_fronts_float_where_the_nodes_take_all_cpus() -> None:
    assert pinning.assign("auto", 5, [0, 1, 2, 3], floating=1) == [0, 1, 2, 3, -1]
    assert pinning.assign("auto", 6, [0, 1, 2, 3], floating=1) == [-1] * 6
    assert pinning.assign("auto", 4, [0, 1, 2, 3], floating=1) == [0, 1, 2, 3]


@pytest.mark.parametrize(("spec", "used", "cpu"), [
    ("none", [0], -1),
    ("auto", [0, 1], 2),
    ("auto", [0, 2, -1], 1),  # the console has no CPU of its own
    ("auto", [0, 1, 2, 3, -1], -1),
    ("auto", [-1, -1, -1], -1),  # node 0 floats: all do
    ("1,3", [1], 3), ("1,3", [1, 3], 1)])
def test_a_born_shard_gets_a_cpu_where_the_first_ones_have_theirs(
    monkeypatch: pytest.MonkeyPatch, spec: str, used: list[int], cpu: int
) -> None:
    """A pinned loop beside others that float would share its CPU with them while another one idles."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert pinning.another(spec, used) == cpu


def test_pinning_to_a_cpu_that_is_not_ours() -> None:
    with pytest.raises(ConfigError, match="CPU 9 is not usable here"):
        pinning.assign("9", 1, [0, 1])


@pytest.mark.parametrize(
    ("wanted", "hosts", "cpus", "fronts"),
    [
        (-1, 1, 1, 0),
        (-1, 1, 3, 0),
        (-1, 1, 4, 1),
        (-1, 1, 7, 1),
        (-1, 1, 16, 4),
        (-1, 1, 512, 64),
        (-1, 3, 6, 0),
        (-1, 3, 12, 1),
        (3, 1, 1, 3),
        (0, 1, 8, 0),
    ],
)
def test_a_host_has_one_front_for_every_four_cpus(
    monkeypatch: pytest.MonkeyPatch, wanted: int, hosts: int, cpus: int, fronts: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setattr("node.control_groups.quota", lambda: None)  # that of the tests' own container
    assert config.front_count(wanted, hosts) == fronts


def data_dir_of(used: set[str], *args: str, **environ: str) -> str:
    """With hosts' data in these directories; /root is closed to this user."""
    def is_used(data_dir: str) -> bool:
        if data_dir.startswith("/root"):
            raise PermissionError(data_dir)
        return data_dir in used

    return config.build(resolve(SERVER_FLAGS, args, environ), is_used).data_dir


def test_a_start_does_not_leave_the_data_of_versions_that_ignored_etcds_variable() -> None:
    """The image and the unit named another directory: the host began empty beside its data."""
    with pytest.raises(ConfigError, match=r"/var/lib/muster holds .* take out ETCD_DATA_DIR"):
        data_dir_of({"/var/lib/muster"}, ETCD_DATA_DIR="/etcd-data")


@pytest.mark.parametrize(("used", "args", "environ"), [
    (set(), (), {"ETCD_DATA_DIR": "/d"}),
    ({"/d"}, (), {"ETCD_DATA_DIR": "/d"}),
    ({"/d", "/var/lib/muster"}, (), {"ETCD_DATA_DIR": "/d"}),
    ({"/var/lib/muster"}, (), {"MUSTER_DATA_DIR": "/d"}),
    ({"/var/lib/muster"}, (), {"MUSTER_DATA_DIR": "/d", "ETCD_DATA_DIR": "/e"}),
    ({"/var/lib/muster"}, ("--data-dir=/d",), {"ETCD_DATA_DIR": "/e"}),
])
def test_a_data_directory_that_is_meant_is_used(
    used: set[str], args: tuple[str, ...], environ: dict[str, str]
) -> None:
    assert data_dir_of(used, *args, **environ) == "/d"


def test_a_name_and_a_data_directory_are_enough() -> None:
    """As articles set them, by the environment."""
    made = config.build(resolve(SERVER_FLAGS, (), {"ETCD_NAME": "infra0", "ETCD_DATA_DIR": "/d"}))
    assert (made.name, made.data_dir) == ("infra0", "/d")
    assert made.initial_cluster_text == "infra0=http://localhost:2380"


def test_others_data_stop_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that a user starts beside the unit's."""
    monkeypatch.setattr(config, "PACKAGED_DATA_DIR", "/root/muster")
    assert data_dir_of(set(), ETCD_DATA_DIR="/d") == "/d"


def test_a_unix_socket_is_one_processs() -> None:
    url = "unix:///run/m.sock"
    by_socket = (f"--listen-client-urls={url}", f"--advertise-client-urls={url}", "--fronts=4")
    assert build(*by_socket).fronts == 1
    both = build(*by_socket, f"--listen-client-urls={url},http://localhost:2379")
    assert (both.fronts, both.listen_client[0].host, both.listen_client[0].port) == (4, "/run/m.sock", 0)
