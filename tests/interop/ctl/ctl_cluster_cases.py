"""The command lines that etcdctl gives to each host of a muster and of an etcd, in scenarios with a history.

``{r1}``, ``{r2}``, ... stand for the revisions that a scenario's changes make, ``{lease}`` and ``{ep}`` for
what they stand for in ``ctl_cases``.
"""

from __future__ import annotations

from tests.interop.ctl.ctl_cases import Run, in_formats, run, runs, txns

# what has happened before a scenario of ``ctl_cases.SHARED``
HISTORY = runs("put w/a 1", "put w/a 2", "put w/b x", "del w/a", "put w/a 0", "put w/z end")

# each runs on every host
SCENARIOS: dict[str, list[Run]] = {
    "put": [
        *in_formats("put a 1", "simple", "json", "fields"),
        *in_formats("put a 2 --prev-kv", "simple", "json", "fields"),
        *runs("put a --ignore-value", "put a x --ignore-lease", "put none --ignore-value",
              "put none x --ignore-lease"),
        *runs("put '' x", "put a x --lease=123", "put a", "put k\u00e9y v\u2028<a>&\x7f",
              "get k\u00e9y -w json"),
        run("put s", stdin="from stdin\nsecond line\n"),
        run("put big", stdin="x" * 1_400_000),
        run("put big", stdin="x" * 1_600_000),
        run("put big", stdin="x" * 2_200_000),
        *runs("get big --keys-only", "del big", "del a --prefix", "del k s"),
    ],
    "get": [
        *runs("put g/a 1", "put g/a 2", "put g/b 3", "put g/c 4", "del g/c", "put g/c 5", "put h 6"),
        *in_formats("get g/a", "simple", "json", "fields"),
        *in_formats("get g --prefix", "simple", "json", "fields"),
        *in_formats("get none", "simple", "json", "fields"),
        *in_formats("get g --prefix --limit 1", "simple", "json", "fields"),
        *runs("get g --prefix --keys-only", "get g --prefix --count-only -w fields",
              "get g/a --print-value-only"),
        *runs("get g/a g/c", "get g/b --from-key", "get g/b --from-key --limit 2 -w json", "get g/a --hex"),
        *runs("get g --prefix --order=DESCEND", "get g --prefix --sort-by=MODIFY --order=DESCEND"),
        *runs("get g --prefix --sort-by=VERSION", "get g --prefix --sort-by=CREATE",
              "get g --prefix --sort-by=VALUE"),
        *runs("get g/a --rev={r1}", "get g --prefix --rev={r4} -w json", "get g --prefix --rev={r5}",
              "get g/a --rev=999999"),
        *runs("get g/a --rev={r1} -w json --consistency=s", "get g/a --consistency=s",
              "get g/a --command-timeout=1ns"),
        *runs("get ''", "get", "get g/a --limit -1", "del g --prefix --prev-kv", "del h"),
    ],
    "del": [
        *runs("put d1 1", "put d2 2", "put d3 3", "put d4 4", "put d5 5", "put d6 6", "put d7 7"),
        *in_formats("del none", "simple", "json", "fields"),
        *runs("del d1", "del d1", "del d2 d4 --prev-kv", "del d4 -w json --prev-kv",
              "del d5 -w fields --prev-kv"),
        *runs("del d --prefix -w json", "del ''", "put z 1", "del z --from-key", "get d --prefix"),
    ],
    "txn": [
        *runs("put t1 v1", "put t2 v2"),
        *txns(
            'val("t1") = "v1"\n\nget t1\nput t3 "a b"\n\nget t2\n\n',
            'val("t1") = "nope"\n\nget t1\n\nget t2\nget t1 --keys-only\nput z "a\\nb"\n\n',
            'mod("t1") > "0"\ncreate("t1") > "0"\nver("t1") != "0"\nmod("t1") < "{r9}"\n\nput t4 y\n\n\n',
            "\n\n\n",
            "\ndel t4 --prev-kv\nget t --prefix\n\n\n",
            "\nput x y\nput x z\n\n\n",
            "\nput x y\ndel x\n\n\n",
            '\nput "" y\n\n\n',
            "\nget t1 --rev=999999\n\n\n",
            "\nput x y --lease=99\n\n\n",
            "\n" + "".join(f"put x{i} y\n" for i in range(129)) + "\n\n",
        ),
        *txns('val("t1") = "v1"\n\nget t1\nput t1 v1 --prev-kv\ndel t2 --prev-kv\n\n\n', flags="-w fields"),
        *txns('val("t1") = "v1"\n\nget t1\nput t1 v1 --prev-kv\ndel t2 --prev-kv\n\n\n', flags="-w json"),
        *txns('val("none") = ""\n\nput none 1\n\nget t1\n\n', 'ver("none") = "0"\n\nput t5 1\n\nget t1\n\n'),
        *runs("del t --prefix", "del z"),
    ],
    "watch": [
        *runs("put w/a 1", "put w/a 2", "put w/b 3", "del w/a", "put w/a 4", "put w/z end"),
        run("watch w --prefix --rev={r1}", until="end\n"),
        run("watch w --prefix --rev={r1} --prev-kv", until="end\n"),
        run("watch w --prefix --rev={r1} -w json --prev-kv", until='"Created":false}\n'),
        run("watch w --prefix --rev={r1} -w fields", until='"Value" : "end"\n"Lease" : 0\n'),
        run("watch w/a w/zz --rev={r4}", until="end\n"),
        run("watch w/z --rev={r1} -- echo hi", until="hi\n"),
        run("watch w/z --rev={r1} -- sh -c env~|~grep~ETCD_WATCH~|~sort", until="ETCD_WATCH_VALUE"),
        run("watch -i", stdin="watch --nosuch a\n"),
        *runs("watch '' --rev=1 --progress-notify=x", "del w --prefix"),
    ],
    "lease": [
        *runs("lease grant 300", "put l1 x --lease={lease}", "put l1 y --ignore-lease", "put l2 z"),
        *in_formats("lease timetolive {lease} --keys", "simple", "json", "fields"),
        *in_formats("lease timetolive {lease}", "simple", "json", "fields"),
        *in_formats("lease list", "simple", "json", "fields"),
        *in_formats("lease keep-alive --once {lease}", "simple", "json", "fields"),
        run("lease keep-alive {lease}", until="keepalived"),
        *runs("get l1 -w json", "get l1 -w fields", "lease revoke {lease}", "lease revoke {lease}",
              "get l --prefix"),
        *runs("lease timetolive {lease}", "lease timetolive {lease} --keys -w json",
              "lease keep-alive --once {lease}"),
        *runs("lease keep-alive {lease}", "lease list", "lease grant 0", "lease grant -5",
              "lease grant 9999999999"),
        *runs("lease grant 200 -w json", "lease grant 200", "lease revoke {lease} -w fields",
              "lease revoke 7b -w json"),
    ],
    "compaction": [
        *runs("put c 1", "put c 2", "put c 3", "compaction {r2}", "compaction {r2}", "compaction {r1}",
              "compaction 999999"),
        *runs("get c --rev={r1}", "get c --rev={r2}", "watch c --rev={r1}", "watch c --rev={r1} -w json"),
        *runs("compaction {r3} --physical", "get c", "compaction -- -1", "del c"),
    ],
    "cluster": [
        *in_formats("member list", "simple", "json", "fields", "table"),
        run("member list --hex -w json"),
        *in_formats("endpoint status", "simple", "json", "fields", "table"),
        *in_formats("endpoint status --cluster", "simple", "json", "fields", "table"),
        *in_formats("endpoint health", "simple", "json", "fields", "table"),
        *in_formats("endpoint health --cluster", "simple", "json", "fields", "table"),
        *in_formats("endpoint hashkv", "simple", "json", "fields", "table"),
        *runs("endpoint hashkv --cluster", "endpoint hashkv --rev=999999",
              "endpoint status --endpoints=127.0.0.1:1 --command-timeout=3s"),
        *in_formats("alarm list", "simple", "json", "fields"),
        *in_formats("alarm disarm", "simple", "json"),  # 3.5's own printer of fields crashes
        *runs("snapshot save /nosuch/dir/x", "--endpoints=127.0.0.1:1,{ep} get none -w json"),
    ],
    "concurrency": [
        run("lock door", until="door/"),
        run("lock door echo held"),
        run("lock door --ttl=30 false"),
        run("elect hall me", until="me\n"),
    ],
}  # fmt: skip

# of members, users and files: what they change is undone, and nothing is asked that ends a host
UPKEEP = [
    *runs("defrag", "defrag --cluster", "alarm disarm"),
    *runs("member remove 1", "member update 1 --peer-urls=http://127.0.0.1:1", "member promote 1"),
    *runs("auth enable", "user list", "user get x", "user add x:y", "user list", "role list", "role add x"),
    *runs("role list", "user grant-role x x", "user get x", "role delete x", "user delete x", "user list"),
]
