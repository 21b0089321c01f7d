"""The command lines that etcdctl and musterctl must answer alike, in scenarios that share state.

``{lease}`` stands for the ID that the scenario's last ``lease grant`` printed, ``{rev}`` for the revision
at which the watched history begins, ``{ep}`` for the server's address.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class Run:
    """One command line; ``until``: it does not end by itself, interrupt it when stdout holds this text."""

    args: tuple[str, ...]
    stdin: bytes = b""
    env: dict[str, str] = field(default_factory=dict)
    until: bytes = b""


def run(line: str, stdin: str = "", until: str = "", **env: str) -> Run:
    """A command line split at blanks; ``''`` is an empty word, ``~`` a blank within a word."""
    words = tuple("" if word == "''" else word.replace("~", " ") for word in line.split())
    return Run(words, stdin.encode(), env, until.encode())


def runs(*lines: str) -> list[Run]:
    """Command lines without anything else."""
    return [run(line) for line in lines]


def in_formats(line: str, *formats: str) -> list[Run]:
    """The line in each output format."""
    return [run(f"{line} -w {name}") for name in formats or ("simple", "json", "fields", "protobuf", "table")]


def txns(*inputs: str, flags: str = "") -> list[Run]:
    """txn with each input."""
    return [run(f"txn {flags}", stdin=text) for text in inputs]


# each tool has a server of its own, so that revisions are the same on both
TWIN = {
    "put_and_get": [
        *runs("put a 1", "put a 2 --prev-kv", "put b 3 -w json", "put b 4 -w json --prev-kv"),
        *runs("put b 5 -w fields", "put b 6 -w fields --prev-kv", "put c 7 --hex"),
        *runs(
            "put a",
            "put",
            "put ''",
            "put a b c",
            "pu ab 1",
            "put x y --ignore-lease",
            "put a z --ignore-lease",
        ),
        *runs(
            "put a --ignore-value", "put a b --ignore-value", "put zz --ignore-value", "put a v --lease=77"
        ),
        *runs(
            "put a v --lease=xyz", "put a v --lease=1 --ignore-lease", "put a v -w table", "put a v -w nosuch"
        ),
        *runs(
            "put -- -k -v", "put k -- -v", "get -- -k", "put k -v", "put a ''", "get a", "put a1 v --lease=-5"
        ),
        run("put s", stdin="from stdin\nsecond line\n"),
        run("put s --ignore-value", stdin="unread"),
        *runs("get s", "get s -w json", "get s --hex", "get s -w fields"),
        run("put k\u00e9y v\u2028<a>&\x7f"),
        *runs("get k\u00e9y -w fields", "get k\u00e9y -w json", "get k\u00e9y", "get k --prefix --hex"),
        Run(("put", "bin\udcff\x01", 'q"\\\t\a\udc80\ufffd')),
        *runs("get bin --prefix", "get bin --prefix -w fields", "get bin --prefix -w json"),
    ],
    "delete": [
        *runs("put d1 1", "put d2 2", "put d3 3", "put d4 4", "put d5 5", "put e 6"),
        *runs(
            "del d1",
            "del d1",
            "del d2 d4 --prev-kv",
            "del d4 -w json --prev-kv",
            "del d5 -w fields --prev-kv",
        ),
        *runs("del e -w fields", "del e -w json", "del", "del a b c", "del ''", "del d --prefix --from-key"),
        *runs("del d e --prefix", "del d e --from-key", "del nosuch -w table"),
        *runs(
            "put z 1", "del z --from-key", "put z 1", "del z --prefix --prev-kv", "put y 1", "del '' --prefix"
        ),
    ],
    "txn": [
        *runs("put k1 v1", "put k2 v2"),
        *txns(
            'val("k1") = "v1"\n\nget k1\nput q1 "a b"\n\nget k2\n\n',
            'val("k1") = "nope"\n\nget k1\n\nget k2\nget k1 --keys-only\nput z "a\\nb"\n\n',
            'mod("k1") > "0"\ncreate("k1") > "0"\nver("k1") != "0"\nm("k1") < "999"\nc("k1") < "999"\n'
            'version("k1") < "999"\nvalue("k1") > "a"\n\nput x y\n\n\n',
            "\n\n\n",
            '\nput "k\\x41" "\\u00e9\\t"\nget kA\n\n\n',
            "\n  put   x    y  \nget x\ndel w --prefix\n\n\n",
            "\nput x y z\nget x y z\n\n\n",
            "\nget x --hex=false --limit 3\n\n\n",
            "\npu x 1\nge x\nde nosuch\n\n\n",
            '\nput x "unclosed\n\n\n',
            "\nget x --count-only\nget x --print-value-only\n\n\n",
        ),
        *txns('val("k1") = "v1"\n\nget k1\nput k1 v1 --prev-kv\ndel q1 --prev-kv\n\n\n', flags="-w fields"),
        *txns('val("k1") = "v1"\n\nget k1\nput k1 v1 --prev-kv\ndel x --prev-kv\n\n\n', flags="-w json"),
        *txns('val("k1") = "x"\n\n\nget k1\n\n', "\n\n\n", flags="-w json"),
        *txns('val("k1") = "x"\n\n\nget k1\n\n', flags="--hex"),
        *txns('val("k1") = "x"\n\n\nget k1\n\n', flags="-i"),
        *txns("\nput x y\n\n\n", flags="-w table"),
    ],
    "users": [
        *runs("user add u:pw", "user add u:pw", "user add", "user add :x", "user list"),
        *runs("user add n --no-password", "user list"),
        *runs("user add i --new-user-password=x", "user get u", "user get nosuch", "user get"),
        *runs("user delete i"),
        *runs("user delete i", "user passwd", "user grant-role u", "user revoke-role u", "user list x"),
        run("user add j --interactive=false", stdin="secret more\n"),
        run("user passwd u --interactive=false", stdin="other\n"),
        *runs("role add r", "role add r", "role add", "role add b -w json", "role list"),
        *runs("role list -w fields"),
        *runs("role list -w json", "role list -w table", "role list x", "role add c -w fields"),
        *runs("role grant-permission r read k", "role grant-permission r rEAdwrite a c"),
        *runs("role grant-permission r write p --prefix", "role grant-permission r read f --from-key"),
        *runs("role grant-permission r read '' --prefix", "role grant-permission r bad k"),
        *runs("role grant-permission r read", "role grant-permission nosuch read k"),
        *runs("role grant-permission r read k --prefix --from-key"),
        *runs("role grant-permission r read a b --prefix"),
        *in_formats("role get r", "simple", "fields", "json", "table"),
        *runs("role get nosuch", "role get", "role revoke-permission r k", "role revoke-permission r k"),
        *runs("role revoke-permission r a c", "role revoke-permission r f --from-key"),
        *runs("role revoke-permission r p --prefix", "role revoke-permission r", "role delete b"),
        *runs("role delete b"),
        *runs("user grant-role u r", "user grant-role u c", "user grant-role u nosuch", "user get u"),
        *in_formats("user get u", "fields", "json", "table"),
        *in_formats("user list", "fields", "json"),
        *runs("user get u --detail", "user revoke-role u c", "user revoke-role u c", "role get root"),
    ],
    "auth": [
        *runs("auth status", "auth status -w json", "auth status -w fields", "auth status x", "auth enable"),
        *runs("auth disable", "auth enable x", "user add root:root", "role add r"),
        *runs("user add u:pw", "auth enable"),
        *runs("get k", "get k --user=root:root", "get k --user=root:bad", "get k --user=u --password=pw"),
        *runs("auth status --user=root:root", "user list --user=u:pw", "user get u --user=u:pw"),
        *runs("role grant-permission r readwrite k --user=root:root", "user grant-role u r --user=root:root"),
        *runs("put k v --user=u:pw", "get k --user=u:pw", "put l v --user=u:pw", "get k l --user=u:pw"),
        *runs("defrag", "defrag --user=u:pw", "endpoint hashkv --user=u:pw"),
        *runs("auth enable --user=root:root", "auth disable --user=u:pw", "auth disable --user=root:root"),
        *runs("auth disable", "auth status", "get k --user=u:pw"),
    ],
    "txn_errors": [
        *txns(
            "",
            "\n\n",
            "foo\n",
            'val(k1) = "v1"\n',
            'val("k1") = "v1\n',
            'val("k1")= "v1"\n',
            'mod("k1") > 5\n',
            'mod("k1") > "abc"\n',
            'xyz("k1") = "v1"\n',
            "\nput x\n\n\n",
            "\nput x y --foo\n\n\n",
            "\nget x --limit=foo\n\n\n",
            "\ndel x -w json\n\n\n",
            "\nget\n\n\n",
            "\ndel\n\n\n",
            "\nfoo x\n\n\n",
            "\nget x --prefix --from-key\n\n\n",
            "\nget x --order=foo\n\n\n",
            "\nget ''\n\n\n",
            "\nput a b\nput a c\n\n\n",
            "\ndel a b c\n\n\n",
        ),
        run("txn extra"),
    ],
    "compaction": [
        *runs(
            "put a 1", "put a 2", "put a 3", "compaction 3", "compaction 3", "compaction 4 -w json --physical"
        ),
        *runs(
            "compaction 99999",
            "compaction",
            "compaction x",
            "compaction 1 2",
            "compaction 0x9",
            "get a --rev=2",
        ),
        *runs("compaction -- -1", "get a --rev=99999", "compaction 99999999999999999999"),
    ],
    "lease": [
        *runs("lease grant 300", "put l1 x --lease={lease}"),
        *in_formats("lease timetolive {lease} --keys", "simple", "json", "fields", "table"),
        *in_formats("lease timetolive {lease}", "simple", "json", "fields"),
        *in_formats("lease list", "simple", "json", "fields", "table"),
        *in_formats("lease keep-alive --once {lease}", "simple", "json", "fields", "table"),
        run("lease keep-alive {lease}", until="keepalived"),
        *in_formats("get l1", "json", "fields"),
        *runs("get l1 -w fields --hex", "lease revoke {lease}", "lease revoke {lease}", "get l1"),
        *runs("lease keep-alive {lease}", "lease keep-alive --once {lease}"),
        *runs("lease timetolive {lease}", "lease timetolive {lease} --keys -w json", "lease list -w json"),
        *runs(
            "lease grant 300 -w json", "lease grant 300 -w fields", "lease grant 300 -w table", "le gra 200"
        ),
        *runs("lease revoke {lease} -w json", "lease grant 200", "lease revoke {lease} -w fields"),
        *runs("lease grant 200", "lease timetolive {lease} --keys", "lease revoke {lease} -w table"),
        *runs("lease grant", "lease grant x", "lease grant 1 2", "lease grant 9999999999", "lease grant -5"),
        *runs("lease revoke", "lease revoke 1 2", "lease revoke xyz", "lease revoke 1", "lease timetolive"),
        *runs("lease timetolive xyz", "lease keep-alive", "lease keep-alive xyz", "lease keep-alive 1 2"),
    ],
    "locks_and_elections": [
        *runs("lock", "lock --ttl", "lock --ttl=x l", "elect", "elect a b c", "elect a", "elect -l a b"),
        *runs("lock l echo held", "lock l -- sh -c exit~3", "lock l nosuchcommand"),
        *runs("lock l /no/such/command", "lock l --ttl=5 -- sh -c kill~-9~$$"),
        *runs("lock l -- sh -c test~$ETCD_LOCK_REV~-gt~1", "get l --prefix"),
        run("lock a", until="a/"),
        run("lock a --ttl=5 -w fields", until='"Count"'),
        run("elect e first", until="first"),
        run("elect e second -w fields", until='"Count"'),
        *runs("get e --prefix", "get a --prefix"),
        *runs("put e/x seen"),
        run("elect e -l", until="seen"),
        run("elect e -l -w json", until="}\n"),
        *runs("lock -h", "elect -h"),
    ],
    "maintenance": [
        *runs("defrag", "defrag --cluster", "alarm disarm", "alarm disarm -w json", "alarm disarm x"),
        *in_formats("endpoint status", "simple", "json", "fields", "table", "protobuf"),
        *in_formats("endpoint health", "simple", "json", "fields", "table", "protobuf"),
        *runs("endpoint health --cluster", "endpoint status --cluster", "endpoint hashkv --cluster"),
        *runs("move-leader", "move-leader xyz", "move-leader 1 2", "move-leader -1"),
        *runs("move-leader 11112222333344445", "move-leader 0x1", "member remove 0x1"),
        # etcdctl 3.5.1 takes a variable beside what it has set itself for a conflict here
        *(
            run(f"--endpoints={{ep}} move-leader 77 -w {kind}", ETCDCTL_ENDPOINTS="")
            for kind in ("simple", "json", "table")
        ),
    ],
}

# both tools ask one server, and nobody writes: IDs and revisions must be equal too
SHARED = {
    "get_ranges": [
        *in_formats("get w/a"),
        *in_formats("get w --prefix"),
        *in_formats("get nosuch", "simple", "json", "fields", "protobuf"),
        *runs(
            "del nosuch -w protobuf",
            "get w/a w/c",
            "get w/b --from-key",
            "get '' --prefix",
            "get '' --from-key --limit 1 -w json",
        ),
        *runs(
            "get w --prefix --limit 1 -w fields",
            "get w --prefix --keys-only",
            "get w --prefix --keys-only -w json",
        ),
        *runs(
            "get w --prefix --count-only -w fields",
            "get w --prefix --count-only",
            "get w/a --print-value-only",
        ),
        *runs("get w/a --print-value-only -w json", "get w --prefix --print-value-only --hex"),
        *runs(
            "get w --prefix --order=DESCEND",
            "get w --prefix --order=ascend",
            "get w --prefix --sort-by=MODIFY",
        ),
        *runs(
            "get w --prefix --sort-by=value --order descend", "get w --prefix --sort-by=create --keys-only"
        ),
        *runs("get w --prefix --sort-by=VERSION --order=DESCEND --keys-only", "get w/a --rev={rev}"),
        *runs(
            "get w/a --consistency=s", "get w/a --limit -1", "get w/a x y", "get w/a --prefix=false", "g w/a"
        ),
        *runs(
            "get w/a --hex -w fields", "get w/a -wjson", "get w/a -w=json", "--hex get w/a", "get w/a --hex=0"
        ),
        *runs(
            "get w/a --limit=0x10",
            "get w/a --limit=1_0",
            "get w/a --command-timeout 1h1m",
            "--write-out json get w/a",
        ),
    ],
    "get_errors": [
        *runs("get", "get ''", "get a --prefix --from-key", "get a b --prefix", "get a b --from-key"),
        *runs(
            "get a --keys-only --count-only", "get a --order=x", "get a --sort-by=x", "get a --consistency=x"
        ),
        *runs(
            "get a --consistency=",
            "get a --rev=9999999",
            "get a -w nosuch",
            "get a -w table",
            "get -w nosuch",
        ),
        *runs(
            "get a --limit=x", "get a --limit=99999999999999999999", "get a --prefix=maybe", "get a --nosuch"
        ),
        *runs(
            "get a -z", "get a --rev", "get a -w", "get a ---x", "get a --=x", "get --w a", "get a --hex=x"
        ),
        *runs("get a --command-timeout=5", "get a --command-timeout=x", "get a --command-timeout=5q"),
        *runs("get a --cert=", "get a --cert=x", "get a --cert=x --key=y", "get a --cacert=x", "get a -wzx"),
        *runs(
            "get a --command-timeout=1ns",
            "gte",
            "--nosuch",
            "--nosuch get zz",
            "-w",
            "lease --nosuch",
            "getx a",
        ),
    ],
    "help": [
        *runs(
            "get --help",
            "put -h",
            "del -h",
            "txn --help",
            "watch -h",
            "lease",
            "lease nosuch",
            "lease grant -h",
        ),
        *runs(
            "lease keep-alive -h",
            "lease timetolive -h",
            "endpoint",
            "endpoint status --help",
            "endpoint health -h",
        ),
        *runs(
            "endpoint hashkv -h", "member list -h", "compaction -h", "alarm", "alarm list -h",
            "check perf -h", "check datascale -h", "move-leader -h"
        ),
        *runs("help get", "help lease grant", "get a --help=true", "get -hw json", "snapshot save -h"),
    ],
    "watch": [
        run("watch w --prefix --rev={rev}", until="end\n"),
        run("watch w --prefix --rev={rev} --prev-kv", until="end\n"),
        run("watch w/a --rev={rev} --hex", until="\\x30\n"),
        run("watch w --prefix --rev={rev} -w json --prev-kv", until='"Created":false}\n'),
        run("watch w --prefix --rev={rev} -w fields --prev-kv", until='"Value" : "end"\n"Lease" : 0\n'),
        run("watch w --prefix --rev={rev} -w protobuf", until="w/z"),
        run("watch w/a w/zz --rev={rev}", until="end\n"),
        run("watch w/z --rev={rev} extra words", until="end\n"),
        run("watch w --prefix --rev={rev} -- echo hi", until="hi\n" * 6),
        run("watch w/z --rev={rev} -- sh -c env~|~grep~ETCD_WATCH~|~sort", until="ETCD_WATCH_VALUE"),
        run("watch w/z --rev={rev} -- nosuchprogram"),
        run("watch w/z --rev={rev} -- false"),
        run("watch --rev={rev}", until="end\n", ETCDCTL_WATCH_KEY="w/z"),
        run("watch --rev={rev}", until="end\n", ETCDCTL_WATCH_KEY="w/a", ETCDCTL_WATCH_RANGE_END="w/zz"),
        run("watch --rev={rev} -- echo hi", until="hi\n", ETCDCTL_WATCH_KEY="w/z"),
        run("watch w/z w/a --rev={rev}"),
        *runs("watch", "watch --rev=1", "watch a --", "watch --", "watch -- echo hi", "watch a b --prefix"),
        *runs(
            "watch a --from-key", "watch a --rev=x", "watch a --rev=1 -w simple", "watch a --rev=1 -w json"
        ),
        *runs("watch a --rev={rev} -w nosuch", "watch w/a --rev={rev} -w table"),
        run("watch foo --rev={rev}", ETCDCTL_WATCH_KEY="w/z"),
        run("watch w/z", ETCDCTL_WATCH_RANGE_END="x"),
    ],
    "watch_interactive": [
        run("watch -i", stdin=""),
        run("watch -i", stdin="\n"),
        run("watch -i", stdin="foo\nfoo bar\n"),
        run("watch -i", stdin="watch\n"),
        run("watch -i", stdin="watch --nosuch a\n"),
        run("watch -i", stdin="watch a b --prefix\n"),
        run("watch -i", stdin="watch --prefix=x w\n"),
        run("watch -i", stdin="watch a --\n"),
        run("watch -i", stdin="watch -- echo x\nfoo\n"),
        run("watch -i", stdin="watch --rev=1\n"),
    ],
    "cluster": [
        *in_formats("member list"),
        *runs("member add", "member add a b http://x", "member add x", "member add x --peer-urls=foo"),
        *runs("member add x --peer-urls=http://h", "member remove", "member remove zz", "member remove 1234"),
        *runs("member update 1", "member update 1 --peer-urls=http://127.0.0.1:1", "member promote"),
        *runs("member promote 1", "member remove 1 -w fields", "member add -h", "member update -h"),
        *runs(
            "member list --hex -w json",
            "member list --hex",
            "me l",
            "member list extra",
        ),
        *in_formats("endpoint hashkv"),
        *runs(
            "endpoint hashkv --rev={rev}",
            "endpoint hashkv --rev=999999",
            "endpoint hashkv --rev=999999 -w json",
        ),
        *runs(
            "endpoint hashkv --rev=999999 -w table", "endpoint status -w protobuf", "endpoint status extra"
        ),
        *in_formats("alarm list", "simple", "json", "fields", "table", "protobuf"),
        *in_formats("lease list", "simple", "json", "fields", "protobuf"),
        *in_formats("lease timetolive 1234", "simple", "json", "fields", "protobuf"),
        *runs(
            "alarm list x",
            "snapshot save",
            "snapshot save a b",
            "snapshot save /nosuch/dir/x",
            "check perf --load=x",
        ),
    ],
    "environment": [
        run("get w/z", ETCDCTL_WRITE_OUT="json"),
        run("get w/z", ETCDCTL_HEX="true"),
        run("get w/z", ETCDCTL_HEX="yes"),
        run("get w/z", ETCDCTL_DIAL_TIMEOUT="abc"),
        run("get w/z", ETCDCTL_WRITE_OUT="nosuch"),
        run("get w/z", ETCDCTL_API="4"),
        run("get w/z", ETCDCTL_API="3"),
        run("get w/z", ETCDCTL_NOSUCH="x"),
        run("get w/z", ETCDCTL_ENDPOINTS="http://{ep}"),
        run("get w/z", ETCDCTL_ENDPOINTS="http://{ep}/"),
        run("endpoint status -w fields", ETCDCTL_ENDPOINTS="http://{ep}"),
    ],
    "endpoints": [
        run("--endpoints={ep},127.0.0.1:1 get w/z", ETCDCTL_ENDPOINTS=""),
        run("--endpoints={ep},{ep} endpoint hashkv", ETCDCTL_ENDPOINTS=""),
        run("--endpoints=127.0.0.1:1,{ep} get w/z", ETCDCTL_ENDPOINTS=""),
        run("--endpoints=http://{ep} --endpoints=http://127.0.0.1:1 member list", ETCDCTL_ENDPOINTS=""),
        run("--endpoints= get w/z", ETCDCTL_ENDPOINTS=""),
        run("--endpoints", ETCDCTL_ENDPOINTS=""),
        *[
            run(f"--endpoints=127.0.0.1:1 --command-timeout=300ms {line}", ETCDCTL_ENDPOINTS="")
            for line in (
                "get a",
                "put a b",
                "del a",
                "lease grant 500",
                "lease revoke 500",
                "compaction 5",
                "member list",
            )
        ],
        *[
            run(f"--endpoints=127.0.0.1:1,{{ep}} --command-timeout=300ms {line}", ETCDCTL_ENDPOINTS="")
            for line in (
                "endpoint status",
                "endpoint status -w table",
                "endpoint health",
                "endpoint health -w json",
                "endpoint health -w fields",
                "endpoint health -w table",
                "endpoint hashkv",
            )
        ],
        run("--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint status -w json", ETCDCTL_ENDPOINTS=""),
        run("--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint status -w table", ETCDCTL_ENDPOINTS=""),
        run("--endpoints=127.0.0.1:1 --command-timeout=300ms endpoint hashkv -w table", ETCDCTL_ENDPOINTS=""),
    ],
}

# one server that has run out of space
FULL = {
    "alarms": [
        *in_formats("alarm list", "simple", "json", "fields", "protobuf"),
        *in_formats("endpoint health", "simple", "json", "fields", "table"),
        *in_formats("endpoint status", "simple", "json", "fields", "table"),
        *runs("put a b", "lease grant 500", "put a b -w json"),
    ],
}
