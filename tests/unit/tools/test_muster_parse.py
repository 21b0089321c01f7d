"""Flag syntax, precedence and the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.gotext import quote
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, UsageError, Values, resolve
from tools.muster.config.values import duration_ms


def parse(*args: str, **environ: str) -> Values:
    return resolve(SERVER_FLAGS, args, environ)


def in_file(tmp_path: Path, text: str, *args: str, **environ: str) -> Values:
    path = tmp_path / "muster.yaml"
    path.write_text(text, encoding="utf-8")
    return parse(f"--config-file={path}", *args, **environ)


@pytest.mark.parametrize(
    "args", [("--name", "a"), ("-name", "a"), ("--name=a",), ("-name=a",)], ids=["two", "one", "two=", "one="]
)
def test_one_dash_or_two_equals_or_blank(args: tuple[str, ...]) -> None:
    assert parse(*args)["name"] == "a"


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ((), False), (("--unsafe-no-fsync",), True), (("-unsafe-no-fsync=false",), False),
        (("--unsafe-no-fsync=T",), True),
    ],
)
def test_a_boolean_takes_its_value_only_behind_equals(args: tuple[str, ...], value: bool) -> None:
    assert parse(*args)["unsafe-no-fsync"] is value


def test_a_boolean_does_not_swallow_the_next_argument() -> None:
    assert parse("--unsafe-no-fsync", "false").rest == ["false"]


def test_two_dashes_end_the_flags() -> None:
    assert parse("--name=a", "--", "--name=b").rest == ["--name=b"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--nope",), "flag provided but not defined: -nope"),
        (("-nope=1",), "flag provided but not defined: -nope"),
        (("--eletion-timeout=2500",), "flag provided but not defined: -eletion-timeout"),
        (("---name=a",), "bad flag syntax: ---name=a"),
        (("--=a",), "bad flag syntax: --=a"),
        (("--name",), "flag needs an argument: -name"),
        (("--heartbeat-interval=abc",), 'invalid value "abc" for flag -heartbeat-interval: parse error'),
        (("--heartbeat-interval=-1",), 'invalid value "-1" for flag -heartbeat-interval: parse error'),
        (
            ("--snapshot-count=99999999999999999999",),
            'invalid value "99999999999999999999" for flag -snapshot-count: value out of range',
        ),
        (("--grpc-keepalive-min-time=5",), 'invalid value "5" for flag -grpc-keepalive-min-time'),
        (("--pre-vote=maybe",), 'invalid boolean value "maybe" for -pre-vote: parse error'),
        (
            ("--initial-cluster-state=old",),
            'invalid value "old" for flag -initial-cluster-state: invalid value; possible: new, existing',
        ),
        (("--max-txn-ops=x", "--max-txn-ops=5"), 'invalid value "x" for flag -max-txn-ops: parse error'),
        (("--pre-vote=maybe", "--pre-vote"), 'invalid boolean value "maybe" for -pre-vote: parse error'),
        (("--max-txn-ops=x", "--nope"), 'invalid value "x" for flag -max-txn-ops: parse error'),
        (("--feature-gates=Wings=true", "--feature-gates="), "unrecognized feature gate: Wings"),
        (("--max-learners=9223372036854775808",), "value out of range"),
    ],
)
def test_a_command_line_that_cannot_be_read(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as e:
        parse(*args)
    assert message in str(e.value)


_URL = "--listen-client-urls="


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        (_URL + "x", "URL scheme must be http, https, unix, or unixs: x"),
        (_URL + "localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
        (_URL + "127.0.0.1:1", 'parse "127.0.0.1:1": first path segment in URL cannot contain colon'),
        (_URL + "ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
        (_URL + "http://", 'URL address does not have the form "host:port": http://'),
        (_URL + "http://h", 'URL address does not have the form "host:port": http://h'),
        (_URL + "http://h:1,http://h", 'URL address does not have the form "host:port": http://h'),
        (_URL + "http://h:x", 'parse "http://h:x": invalid port ":x" after host'),
        (_URL + ":1", 'parse ":1": missing protocol scheme'),
        (_URL + "http://h\tb:1", 'parse "http://h\\tb:1": net/url: invalid control character in URL'),
        (_URL + "http://h:1/", "URL must not contain a path: http://h:1/"),
        (_URL + "http://[::1", "parse \"http://[::1\": missing ']' in host"),
        ("--cors=a b", "URL scheme must be http, https, unix, or unixs: a b"),
        ("--cors=ftp://a", "URL scheme must be http, https, unix, or unixs: ftp://a"),
        ("--cors=*,http://a:1/x", "URL must not contain a path: http://a:1/x"),
        ("--max-txn-ops=+5", "parse error"),
        ("--max-txn-ops= 5", "parse error"),
        ("--max-txn-ops=09", "parse error"),
        ("--max-txn-ops=18446744073709551616", "value out of range"),
        ("--quota-backend-bytes=-9223372036854775809", "value out of range"),
        ("--quota-backend-bytes=9223372036854775808", "value out of range"),
        ("--max-concurrent-streams=x", 'strconv.ParseUint: parsing "x": invalid syntax'),
        (
            "--max-concurrent-streams=4294967296",
            'strconv.ParseUint: parsing "4294967296": value out of range',
        ),
        ("--grpc-keepalive-interval=99999999h", "parse error"),
        ("--feature-gates=Wings=true", "unrecognized feature gate: Wings"),
        ("--feature-gates=LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
        (
            "--feature-gates=CompactHashCheck=true,AllBeta=yes",
            'invalid value of AllBeta=yes, err: strconv.ParseBool: parsing "yes": invalid syntax',
        ),
    ],
)
def test_a_value_that_is_none_ends_with_code_2_in_etcds_words(argument: str, why: str) -> None:
    name, _, text = argument.partition("=")
    with pytest.raises(UsageError) as e:
        parse(argument)
    assert str(e.value).startswith(f"invalid value {quote(text)} for flag {name[1:]}: ")
    assert why in str(e.value)


@pytest.mark.parametrize(
    ("name", "most"), [("snapshot-count", (1 << 64) - 1), ("max-concurrent-streams", (1 << 32) - 1)]
)
def test_a_number_without_a_sign_may_be_as_large_as_etcds(name: str, most: int) -> None:
    assert parse(f"--{name}={most}")[name] == most


def test_a_gate_that_is_none_is_named_with_its_variable_or_key(tmp_path: Path) -> None:
    why = 'invalid value "Wings=true" for {}: unrecognized feature gate: Wings'
    with pytest.raises(ConfigError, match=why.format("ETCD_FEATURE_GATES")):
        parse(ETCD_FEATURE_GATES="Wings=true")
    with pytest.raises(ConfigError, match=why.format("key feature-gates in .*")):
        in_file(tmp_path, "feature-gates: {Wings: true}")


@pytest.mark.parametrize("text", ["http://h:1", "HTTP://h:1", "https://[::1]:2379", "unix://h:1", "http://[a]:1"])
def test_urls_that_etcd_takes(text: str) -> None:
    assert parse(_URL + text)["listen-client-urls"] == (text,)


@pytest.mark.parametrize("text", ["*", "http://a", "https://a:1", "http://[::1]"])
def test_origins_need_no_port(text: str) -> None:
    assert parse(f"--cors=http://b:1,{text}")["cors"] == ("http://b:1", text)


@pytest.mark.parametrize(
    ("text", "value"), [("0x10", 16), ("010", 8), ("1_000", 1000), ("0b11", 3), ("0o17", 15), ("0", 0)]
)
def test_numbers_are_gos(text: str, value: int) -> None:
    assert parse(f"--max-txn-ops={text}")["max-txn-ops"] == value


@pytest.mark.parametrize("name", ["backend-batch-limit", "experimental-compaction-batch-limit"])
def test_numbers_that_etcd_takes_with_a_sign(name: str) -> None:
    assert parse(f"--{name}=-1")[name] == -1


@pytest.mark.parametrize(
    "name",
    [
        "auto-compaction-mode", "auto-compaction-retention", "log-format", "log-level", "metrics",
        "tls-min-version",
    ],
)
def test_an_empty_value_of_some_flags_is_the_default(name: str) -> None:
    assert parse(f"--{name}=")[name] == SERVER_FLAGS[name].default


@pytest.mark.parametrize(("text", "names"), [("", ("",)), ("a, b", ("a", " b")), ("a,,b", ("a", "", "b"))])
def test_accepted_hosts_are_as_they_stand(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    """An empty list, as of a variable without a value, let every host in."""
    assert parse(f"--host-whitelist={text}")["host-whitelist"] == names
    in_file_too = names if text else ("*",)  # as at etcd
    assert in_file(tmp_path, f'host-whitelist: "{text}"')["host-whitelist"] == in_file_too


@pytest.mark.parametrize("name", ["cors", "discovery-fallback", "proxy", "v2-deprecation"])
def test_an_empty_value_in_a_file_is_the_default_where_the_command_line_takes_none(
    name: str, tmp_path: Path
) -> None:
    assert in_file(tmp_path, f'{name}: ""')[name] == parse()[name]
    with pytest.raises(UsageError, match=f'invalid value "" for flag -{name}'):
        parse(f"--{name}=")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--auto-compaction-mode=x", 'unknown auto-compaction-mode "x"'),
        ("--logger=x", 'unknown logger option "x"'),
        ("--tls-min-version=TLS1.1", 'unexpected TLS version "TLS1.1"'),
        ("--tls-max-version=x", 'unexpected TLS version "x"'),
        ("--log-format=JSON", "unknown log format: JSON, supported values json, console"),
    ],
)
def test_some_choices_are_looked_at_behind_the_command_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(argument)


def test_a_free_list_that_muster_has_not_ends_no_start() -> None:
    """etcd takes any text, too: what it does not know is its default."""
    assert any("freelist" in line for line in config.build(parse("--backend-bbolt-freelist-type=x")).warnings)


def test_other_metrics_are_the_basic_ones(tmp_path: Path) -> None:
    """As at etcd, where such a text ended muster's start."""
    assert parse("--metrics=x")["metrics"] == in_file(tmp_path, "metrics: x")["metrics"] == "x"


@pytest.mark.parametrize("name", ["force", "snapshot", "vv", "cluster-active-size"])
def test_flags_that_are_ignored_need_no_value(name: str) -> None:
    assert parse(f"--{name}", "--name=a").warnings == [f'deprecated command line flag "{name}" ignored']


@pytest.mark.parametrize("word", ["--help", "-h", "-h=1", "--help=false"])
def test_behind_help_nothing_is_looked_at(word: str) -> None:
    assert parse("--name=a", word, "--nosuch")["help"] is True


def test_of_choices_that_are_looked_at_later_the_last_one_counts() -> None:
    assert parse("--log-format=text", "--log-format=console")["log-format"] == "console"


def test_a_file_may_say_where_to_listen_and_leave_what_to_advertise(tmp_path: Path) -> None:
    built = config.build(in_file(tmp_path, "listen-client-urls: http://127.0.0.1:3379"))
    assert [url.text for url in built.advertise_client] == ["http://localhost:2379"]


def test_a_log_level_may_be_written_in_capitals() -> None:
    assert parse("--log-level=WARN")["log-level"] == "warn"
    assert parse("--log-level=dpanic")["log-level"] == "dpanic"


def test_a_cost_that_bcrypt_does_not_know_is_the_usual_one() -> None:
    for cost in ("3", "32"):
        built = config.build(parse(f"--bcrypt-cost={cost}"))
        assert built.values["bcrypt-cost"] == 10
        assert any("--bcrypt-cost" in warning for warning in built.warnings)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0", 0), ("0s", 0), ("5s", 5000), ("1h30m", 5_400_000), ("2h0m0s", 7_200_000), ("1.5s", 1500),
     ("-1s", -1000),
     ("100ms", 100), ("1us", 1), ("1m0.5s", 60_500), (".5s", 500)],
)  # fmt: skip
def test_durations_are_gos(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1h 30m", "--1s", "1.2.3s", "5S"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        duration_ms(text)


def test_the_command_line_wins_over_both_kinds_of_variable() -> None:
    values = parse("--name=flag", MUSTER_NAME="muster", ETCD_NAME="etcd", ETCD_DATA_DIR="/d")
    assert (values["name"], values["data-dir"]) == ("flag", "/d")
    assert values.sources == {"name": "flag", "data-dir": "environment"}


def test_musters_variable_wins_over_etcds() -> None:
    assert parse(MUSTER_NAME="muster", ETCD_NAME="etcd")["name"] == "muster"


@pytest.mark.parametrize(
    ("given", "variables", "lost", "winner"),
    [
        ((), {"MUSTER_DATA_DIR": "/a", "ETCD_DATA_DIR": "/b"}, "ETCD_DATA_DIR", "MUSTER_DATA_DIR"),
        (("--data-dir=/a",), {"ETCD_DATA_DIR": "/b"}, "ETCD_DATA_DIR", "--data-dir"),
        (("--data-dir=/a",), {"MUSTER_DATA_DIR": "/b"}, "MUSTER_DATA_DIR", "--data-dir"),
        (("--name=a",), {"ETCD_NAME": "b"}, "ETCD_NAME", "--name"),
        (("--debug",), {"ETCD_DEBUG": "x"}, "ETCD_DEBUG", "--debug"),
    ],
)
def test_a_variable_that_has_no_effect_is_told(
    given: tuple[str, ...], variables: dict[str, str], lost: str, winner: str
) -> None:
    assert parse(*given, **variables).warnings == [f"{lost} is ignored: {winner} wins"]


def test_what_the_image_or_the_unit_sets_brings_its_user_no_warning(tmp_path: Path) -> None:
    """The user has never set it. A file without a directory is another thing: the data go elsewhere."""
    own = {"ETCD_DATA_DIR": "/var/lib/muster"}
    assert parse("--data-dir=/a", **own).warnings == []
    assert parse(MUSTER_DATA_DIR="/a", **own).warnings == []
    assert in_file(tmp_path, "data-dir: /a", **own).warnings == []
    assert len(in_file(tmp_path, "name: a", **own).warnings) == 1


def test_variables_that_agree_bring_no_warning() -> None:
    values = parse("--debug=true", MUSTER_DATA_DIR="/a", ETCD_DATA_DIR="/a", ETCD_DEBUG="1")
    assert not [warning for warning in values.warnings if "ignored" in warning]


def test_an_empty_variable_is_unset() -> None:
    values = parse(ETCD_NAME="", MUSTER_DATA_DIR="")
    assert not values.is_set("name")
    assert not values.is_set("data-dir")


def test_unknown_variables_are_warned_about_and_etcds_version_is_not() -> None:
    values = parse(ETCD_ROOT_PASSWORD="secret", ETCD_VERSION="3.5", MUSTER_CI="1", ETCDCTL_API="3")
    assert values.warnings == ["unrecognized environment variable ETCD_ROOT_PASSWORD"]


def test_a_bad_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match='invalid value "x" for ETCD_HEARTBEAT_INTERVAL: parse error'):
        parse(ETCD_HEARTBEAT_INTERVAL="x")


def test_the_file_is_exclusive(tmp_path: Path) -> None:
    values = in_file(
        tmp_path, "name: filed\n", "--name=flag", "--max-txn-ops=7", ETCD_ELECTION_TIMEOUT="5000"
    )
    assert (values["name"], values["max-txn-ops"], values["election-timeout"]) == ("filed", 128, 1000)


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("name: filed\n", encoding="utf-8")
    assert parse(ETCD_CONFIG_FILE=str(path))["name"] == "filed"


@pytest.mark.parametrize(
    ("text", "flag", "value"),
    [
        ("heartbeat-interval: 200", "heartbeat-interval", 200),  # milliseconds, as an integer
        ("election-timeout: 2000", "election-timeout", 2000),
        ("experimental-snapshot-catch-up-entries: 17", "snapshot-catchup-entries", 17),  # etcd 3.5's
        ("experimental-snapshot-catchup-entries: 17", "snapshot-catchup-entries", 17),  # the flag's
        ("experimental-max-learners: 3", "max-learners", 3),
        ("grpc-keepalive-interval: 60000000000", "grpc-keepalive-interval", 60_000),  # nanoseconds
        ("grpc-keepalive-interval: 60s", "grpc-keepalive-interval", 60_000),
        ("watch-progress-notify-interval: 250000000", "watch-progress-notify-interval", 250),
        ("experimental-watch-progress-notify-interval: 250000000", "watch-progress-notify-interval", 250),
        ("auto-compaction-retention: '8'", "auto-compaction-retention", "8"),
        ("listen-client-urls: http://a:1,http://b:2", "listen-client-urls", ("http://a:1", "http://b:2")),
        ("log-outputs: [stderr, /var/log/m.log]", "log-outputs", ("stderr", "/var/log/m.log")),
        ("log-outputs: stderr", "log-outputs", ("stderr",)),
        ("log-outputs: []", "log-outputs", ("default",)),
        ('initial-cluster-state: ""', "initial-cluster-state", "new"),
        ("socket-options: {reuse-port: true}", "socket-reuse-port", True),
        ("peer-transport-security:\n  key-file: /k", "peer-key-file", "/k"),
        ("unsafe-no-fsync: true", "unsafe-no-fsync", True),
        ("quota-backend-bytes: -1", "quota-backend-bytes", -1),
        ("quota-backend-bytes: 8.589934592e+09", "quota-backend-bytes", 8_589_934_592),  # as charts render it
        ("quota-backend-bytes: 1e9", "quota-backend-bytes", 1_000_000_000),
        ("watch-progress-notify-interval: 6e+11", "watch-progress-notify-interval", 600_000),
        ("watch-progress-notify-interval: 5000000000.0", "watch-progress-notify-interval", 5000),
        ("heartbeat-interval: +0b11", "heartbeat-interval", 3),
        ("heartbeat-interval: 1_000", "heartbeat-interval", 1000),
        ("heartbeat-interval: 1__000_", "heartbeat-interval", 1000),
        ("heartbeat-interval: 0x_1_0", "heartbeat-interval", 16),
        ("watch-progress-notify-interval: 1_000__000_000", "watch-progress-notify-interval", 1000),
        ("watch-progress-notify-interval: 0x2540BE400", "watch-progress-notify-interval", 10_000),
        ("unsafe-no-fsync: On", "unsafe-no-fsync", True),
        ("pre-vote: n", "pre-vote", False),
        ("feature-gates: {LeaseCheckpoint: off}", "feature-gates", "LeaseCheckpoint=false"),
        ("growth: off", "growth", "off"),
        ("proxy: on", "proxy", "on"),
        ("discovery-fallback: exit", "discovery-fallback", "exit"),
        ("Client-Transport-Security: {Cert-File: /c}", "cert-file", "/c"),
        ("Feature-Gates: {LeaseCheckpoint: true}", "feature-gates", "LeaseCheckpoint=true"),
        ("unheard-of: 1", "name", "default"),  # unlisted keys are ignored
        ("", "name", "default"),
    ],
)
def test_units_and_shapes_of_the_file(tmp_path: Path, text: str, flag: str, value: Any) -> None:
    assert in_file(tmp_path, text)[flag] == value


@pytest.mark.parametrize(
    "text",
    ["name: [a", "- a\n- b", "name: [a, b]", "heartbeat-interval: soon", "name: {a: b}",
     "client-transport-security: x", "discovery-config: {client: [a]}", "discovery-fallback: maybe",
     'grpc-keepalive-interval: "60"', "grpc-keepalive-interval: '0x10'",
     'data-dir: "/a\\0b"', "heartbeat-interval: 0b_", 'heartbeat-interval: !!int ""', "name: !!bool x",
     "name: !!timestamp x", pytest.param("name: !!float " + ":".join(["59"] * 300), id="base 60"),
     pytest.param("name: " + 3000 * "[", id="deep")],
)  # fmt: skip
def test_a_file_that_cannot_be(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as e:
        in_file(tmp_path, text)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "text",
    ["0123", "0x10", "1.10", "1_000", "on", "no", "=", "2024-02-30", "2024-01-01T10:00:00Z", "1:02"],
)
def test_a_text_in_a_file_is_as_it_is_written(tmp_path: Path, text: str) -> None:
    """Hosts that have their cluster's token from files and from flags got other IDs."""
    for key in ("initial-cluster-token", "name", "wal-dir"):
        assert in_file(tmp_path, f"{key}: {text}")[key] == text
    assert in_file(tmp_path, f"log-outputs: [{text}]")["log-outputs"] == (text,)
    document = f"discovery-config: {{client: {{auth: {{password: {text}}}}}}}"
    assert in_file(tmp_path, document)["discovery-password"] == text


def test_null_in_a_file_is_no_value(tmp_path: Path) -> None:
    for text in ("", "~", "null"):
        assert not in_file(tmp_path, f"name: {text}").is_set("name")
    assert in_file(tmp_path, 'name: "null"')["name"] == "null"
    assert in_file(tmp_path, "log-outputs: [stdout, ~]")["log-outputs"] == ("stdout",)
    assert in_file(tmp_path, "log-outputs:\n  -")["log-outputs"] == ("default",)


@pytest.mark.parametrize("text", [",", "http://a:1,", ",http://a:1"])
def test_an_empty_url_is_refused_as_by_etcd(text: str) -> None:
    with pytest.raises(UsageError, match="URL scheme must be http, https, unix, or unixs: "):
        parse(f"--advertise-client-urls={text}")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot read --config-file /nowhere: No such file or directory"):
        parse("--config-file=/nowhere")


def test_a_deprecated_name_sets_the_new_one_and_warns() -> None:
    values = parse("--experimental-snapshot-catchup-entries=77")
    assert values["snapshot-catchup-entries"] == 77
    assert values.is_set("snapshot-catchup-entries")
    assert values.warnings == [
        "--experimental-snapshot-catchup-entries is deprecated, use --snapshot-catchup-entries"
    ]


def test_a_deprecated_name_beside_the_new_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot set both"):
        parse("--experimental-snapshot-catchup-entries=77", "--snapshot-catchup-entries=78")


def test_a_deprecated_gate_becomes_the_feature_gate() -> None:
    assert parse("--experimental-enable-lease-checkpoint")["feature-gates"] == "LeaseCheckpoint=true"


def test_a_deprecated_gate_stands_beside_others_but_not_beside_itself() -> None:
    others = "--feature-gates=CompactHashCheck=true"
    assert parse("--experimental-enable-lease-checkpoint", others)["feature-gates"] == (
        "CompactHashCheck=true,LeaseCheckpoint=true"
    )
    with pytest.raises(ConfigError) as e:
        parse("--experimental-enable-lease-checkpoint=false", "--feature-gates=LeaseCheckpoint=true")
    assert str(e.value) == (
        "cannot specify both flags: --experimental-enable-lease-checkpoint=false and "
        "--feature-gates=LeaseCheckpoint=true at the same time, please just use "
        "--feature-gates=LeaseCheckpoint=true"
    )


def test_flags_that_etcd_ignores_are_ignored_with_a_warning() -> None:
    values = parse("-cluster-active-size", "9", "-vv", "1")
    assert values.warnings == [
        'deprecated command line flag "cluster-active-size" ignored',
        'deprecated command line flag "vv" ignored',
    ]  # fmt: skip


_SAMPLE_KEYS = """\
name data-dir wal-dir snapshot-count heartbeat-interval election-timeout quota-backend-bytes listen-peer-urls
listen-client-urls max-snapshots max-wals cors initial-advertise-peer-urls advertise-client-urls discovery
discovery-proxy discovery-srv initial-cluster initial-cluster-token initial-cluster-state
strict-reconfig-check enable-v2 enable-pprof proxy proxy-failure-wait proxy-refresh-interval
proxy-dial-timeout proxy-write-timeout proxy-read-timeout self-signed-cert-validity log-level logger
log-outputs force-new-cluster auto-compaction-mode auto-compaction-retention cipher-suites"""


def test_keys_of_a_file_that_nobody_knows_are_said_and_passed_over(tmp_path: Path) -> None:
    """etcd passes them over, too."""
    text = (
        "name: a\nsnapshot-cuont: 7\nclient-transport-security:\n  auto-tls: false\n  "
        "auto_tls: true\nother:\n  x: 1\n"
    )
    values = in_file(tmp_path, text)
    assert values["name"] == "a"
    path = tmp_path / "muster.yaml"
    assert values.warnings == [
        f"unrecognized key {key} in {path}"
        for key in ("snapshot-cuont", "client-transport-security.auto_tls", "other")
    ]


def test_the_keys_of_etcds_sample_file_are_all_known(tmp_path: Path) -> None:
    transport = "".join(
        f"  {key}:\n" for key in ("cert-file", "key-file", "client-cert-auth", "trusted-ca-file", "auto-tls")
    )
    text = "".join(f"{key}:\n" for key in _SAMPLE_KEYS.split())
    text += f"client-transport-security:\n{transport}peer-transport-security:\n{transport}"
    assert in_file(tmp_path, text).warnings == []


def test_a_section_without_settings_is_no_unknown_key(tmp_path: Path) -> None:
    """etcd's sample has its settings behind comment signs."""
    text = "client-transport-security:\n  # cert-file: c\ndiscovery-config: {client: }\n"
    assert in_file(tmp_path, text).warnings == []


def test_the_first_document_of_a_file_counts(tmp_path: Path) -> None:
    values = in_file(tmp_path, "---\nname: a\n---\nname: b\n")
    assert (values["name"], values.warnings) == (
        "a", [f"only the first document of {tmp_path / 'muster.yaml'} counts"])
    assert in_file(tmp_path, "name: a\n---\n").warnings == []
    for other in ("---\n[b", "...\nname: [", "---\nname: !host b", "---\n" + 3000 * "["):
        values = in_file(tmp_path, f"name: a\n{other}\n")
        assert (values["name"], len(values.warnings)) == ("a", 1), "nobody reads it"
    assert in_file(tmp_path, "---\n---\nname: b\n")["name"] == "default"


def test_what_stands_beside_a_file_is_ignored_with_a_line_for_each(tmp_path: Path) -> None:
    values = in_file(
        tmp_path, "name: a", "--name=b", "--election-timeout=2000", ETCD_DATA_DIR="d", ETCD_UNKNOWN="x",
        MUSTER_NAME="",
    )
    assert (values["name"], values["election-timeout"]) == ("a", 1000)
    assert values.warnings == [
        f"{what} is ignored: with a configuration file no other settings count"
        for what in ("--name", "--election-timeout", "ETCD_DATA_DIR")
    ]


def test_the_files_own_name_is_not_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "muster.yaml"
    path.write_text("name: a", encoding="utf-8")
    assert parse(ETCD_CONFIG_FILE=str(path)).warnings == []


# every key of etcd 3.5's etcd.conf.yml.sample, with the value that it has there
SAMPLE = """
{name: default, data-dir: , wal-dir: , snapshot-count: 10000, heartbeat-interval: 100, election-timeout: 1000,
 quota-backend-bytes: 0, listen-peer-urls: "http://localhost:2380",
 listen-client-urls: "http://localhost:2379",
 max-snapshots: 5, max-wals: 5, cors: , initial-advertise-peer-urls: "http://localhost:2380",
 advertise-client-urls: "http://localhost:2379", discovery: , discovery-fallback: proxy, discovery-proxy: ,
 discovery-srv: , initial-cluster: , initial-cluster-token: etcd-cluster, initial-cluster-state: new,
 strict-reconfig-check: false, enable-pprof: true, proxy: "off", proxy-failure-wait: 5000,
 proxy-refresh-interval: 30000, proxy-dial-timeout: 1000, proxy-write-timeout: 5000, proxy-read-timeout: 0,
 client-transport-security:
   {cert-file: , key-file: , client-cert-auth: false, trusted-ca-file: , auto-tls: false},
 peer-transport-security:
   {cert-file: , key-file: , client-cert-auth: false, trusted-ca-file: , auto-tls: false},
 self-signed-cert-validity: 1, log-level: debug, logger: zap, log-outputs: [stderr], force-new-cluster: false,
 auto-compaction-mode: periodic, auto-compaction-retention: "1",
 cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384],
 tls-min-version: TLS1.2, tls-max-version: TLS1.3}
"""


def test_etcds_sample_of_a_configuration_file_is_taken(tmp_path: Path) -> None:
    settings = config.build(in_file(tmp_path, SAMPLE))
    assert (settings.name, settings.data_dir) == ("default", "default.etcd")
    assert [w.partition(" has no effect")[0] for w in settings.warnings] == ["--enable-pprof"]
