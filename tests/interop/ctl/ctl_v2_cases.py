"""The command lines of the v2 API that etcdctl and musterctl must answer alike; a scenario shares state.

``{ep}`` stands for the address of the server, with ``http://``, ``{index}`` for the index before the watched
history; ``~`` is a blank within a word.
"""

from __future__ import annotations

from tests.interop.ctl.ctl_cases import Run, run


def lines(text: str) -> list[Run]:
    """A command line in each line."""
    return [run(line) for line in text.strip().splitlines()]


_DEEP = "deep" + "/a" * 700

# each tool has a server of its own, so that indexes are the same on both
TWIN: dict[str, list[Run]] = {
    "depths": [
        run(f"set /{_DEEP} 1"),
        *lines("""
            ls -r /
            ls -r -p /deep
            -o json ls -r /deep
            rm -r /deep
        """),
        run(f"get /{_DEEP}"),
    ],
    "values": [
        *lines("""
            set a 1
            get a
            set a
            set
            get
            get nokey
            get a --sort
            get a -q
            get a --quorum=false
            set a 2 --ttl=0x400
            -o extended get a
            -o json get a
            -o yaml get a
            -o yaml set a 3
            -o json set a 4 --ttl 1000
            -o extended set a 5
            -o=json get a
            -output json get a
            set a 6 --swap-with-value 5
            set a 6 --swap-with-value 5
            set a 7 --swap-with-index 1
            -o json set b 7 --swap-with-index 1
            set a 9 --ttl=-5
            -o json update a 9 --ttl 10000000000
            -o json mk --in-order --ttl 9223372036854775807 q 9
            -o extended get a
            update a 9
            -o json update a 9
            -o extended update a 9
            update nokey 2
            update
            update a
            set -- k -v
            get k
            set k -v
            set k -- -v
            get k x y
            get //d/../k
            get /k/
        """),
        run("set from/stdin", stdin="one\ntwo\n"),
        *lines("""
            get from/stdin
        """),
        run("mk from/other", stdin="x"),
        run("update from/other", stdin="<&>é"),
        *lines("""
            -o json get from/other
            set a~b/ü?x v~w&
            -o json get a~b/ü?x
        """),
    ],
    "new_keys": [
        *lines("""
            set a 1
            mk a 1
            mk m 1
            -o json mk m2 1 --ttl 500
            mk --in-order q x
            -o json mk --in-order q y
            -o extended mk --in-order --ttl 300 q y
            mk q x
            mk
            mk mm
            ls --sort q
            -o json ls --sort --recursive q
        """),
    ],
    "directories": [
        *lines("""
            mkdir
            mkdir d
            mkdir d
            -o json mkdir d2 --ttl 300
            -o extended mkdir d3
            -o json mkdir d4
            setdir e
            -o json setdir e2
            -o extended setdir e3 --ttl 300
            setdir d
            setdir
            set f 1
            setdir f
            updatedir
            updatedir nodir
            set f2 1
            updatedir f2
            update d 2
            set d 2
            set d/x 2
            get d
            -o json get d
            get d --sort
            get /
            ls --sort
            ls d
            ls nodir
            ls f2
            ls f2 d
            ls -p --sort
            ls --sort --recursive
            ls -r -p --sort /
            ls /d/
            -o extended ls --sort
            -o json ls --sort d
            ls e
            set /_hidden/x 1
            ls --sort
            ls /_hidden
        """),
    ],
    "deletes": [
        *lines("""
            mkdir d
            set d/x 1
            mkdir e
            mkdir e2
            mkdir e3
            set a 1
            rmdir d
            rmdir e
            -o json rmdir e2
            -o extended rmdir e3
            rmdir a
            rmdir
            rmdir nope
            set a 1
            rm d
            rm d --dir
            rm d --recursive
            rm
            rm a --with-value 2
            rm a --with-value 1
            set a 1
            rm a --with-index 1
            -o json rm a
            set a 1
            -o extended rm a
            rm a --with-index 1
            rm nokey
            set g/h 1
            -o extended rm g --recursive
            mkdir i
            -o json rm i --dir
        """),
    ],
    "users_and_roles": [
        *lines("""
            role list
            role list x
            role add
            role add r1
            role add r1
            role add root
            role get r1
            role get
            role get nosuch
            role get root
            role grant r1
            role grant r1 --path /a/*
            role grant r1 --path a --read
            role grant r1 --path /a/* --read
            role grant r1 --path /a/* --read
            role grant r1 --path /a/* --write
            role grant --path /b --rw r1
            role get r1
            role revoke r1 --path /b --write
            role revoke r1 --path /b --write
            role revoke nosuch --path /b --write
            role grant --path //b/../c --read nosuch
            role remove r1
            role remove r1
            role remove root
            role add r1
            user list
            user list x
            user add
            user add u1:p
            user add u1:q
            user add u2:p
            user list
            user get u1
            user get nosuch
            user get
            user grant u1
            user grant u1 --roles r1
            user grant u1 --roles r1
            user grant --roles r1 --roles root u2
            user get u1
            user get u2
            user revoke u1 --roles r1
            user revoke u1 --roles r1
            user revoke nosuch --roles r1
        """),
        run("user add u3", stdin="secret\n"),
        run("user passwd u3", stdin="other\n"),
        run("user passwd nosuch", stdin="x\n"),  # makes one, and fails
        *lines("""
            user remove nosuch
            user passwd u3
            user remove u2
            user remove u2
            auth enable
            auth enable x
            auth disable
            user add root:rp
            auth enable
            auth enable
            role list
            -u root:rp role list
            -u root:rp get nokey
            -u root:bad ls
        """),
        run("-u root ls nokey", stdin="rp\n"),
        run("-u root set large", stdin="rp\n" + "x" * 20_000),
        run("-u root:rp rm large"),
        run("ls nokey", ETCDCTL_USERNAME="root:rp"),
        *lines("""
            -u u1:q user list
            user list
            -u root:rp user list
            -u root:rp user remove root
            -u root:rp role remove guest
            ls nokey
            auth disable
            -u root:rp auth disable
            auth disable
            user remove root
            role remove r1
            role list
        """),
    ],
}

# questions to one server
SHARED: dict[str, list[Run]] = {
    "help": [
        *lines("""
            help
            h set
            help nosuch
            help help
            help h
            help -h
            h --help
            help -h get
            help --help=false get
            help get --bogus
            help --bogus
            help -h=x
            member help -h
            member help --bogus
            member help help
            user h h
            member ''
            member '' x
            member help ''
            set --help
            backup --help
            exec-watch -h
            member
            user --help
            role
            auth --help
            member help list
            user grant --help
            nosuch
            member nosuch
            version
            --version
            -v
            cluster-health --help
            role grant -h
            help member
            member help
            rmdir -h
            updatedir -h
            ls -h
        """),
    ],
    "wrong_lines": [
        *lines("""
            get -x a
            --nope get a
            get a --quorum=maybe
            set a 2 --ttl
            set a 2 --ttl x
            set a 2 --ttl -5
            -o
            --timeout x get k
            --timeout 5 get k
            ls -r --recursive
            member --nope
            member list --nope
            ---x get
            mk a b --ttl 99999999999999999999
            --no-sync=maybe get k
            -=x get
            get ---
            -o json --output json get k
        """),
    ],
    "endpoints": [
        *lines("""
            --endpoints http://127.0.0.1:1 get a
            --endpoints http://127.0.0.1:1 --no-sync get a
            --endpoints http://127.0.0.1:1 --no-sync mk a 1
            --endpoints http://127.0.0.1:1 --no-sync rm a
            --endpoints http://127.0.0.1:1 --no-sync update a 1
            --endpoints http://127.0.0.1:1 --no-sync mkdir a
            --endpoints http://127.0.0.1:1 --no-sync member list
            --endpoints http://127.0.0.1:1 --no-sync role list
            --endpoints http://127.0.0.1:1 --no-sync watch a
            --endpoints http://127.0.0.1:1 cluster-health
            --endpoints http://127.0.0.1:1 member list
            --endpoints ftp://127.0.0.1:1 get k
            --endpoints {ep}/ get k
            --endpoints {ep}?x get k
            --endpoints {ep}/?x#y --no-sync get k
            --endpoints {ep}#y member list
            member update ../x http://127.0.0.1:1
            --endpoints http://[::1 get k
            --endpoints :2379 get k
            --endpoints http:// get k
            --endpoints http://127.0.0.1:99999 get k
            --endpoints http://127.0.0.1:x get k
            --total-timeout 1ns get k
            --total-timeout 0 get k
            --ca-file /nope get k
            --cert-file /nope get k
            --cert-file /nope --key-file /nope get k
        """),
        run("--peers {ep} get k", ETCDCTL_ENDPOINTS=""),
        run("-C {ep} get k", ETCDCTL_ENDPOINTS=""),
        run("--endpoint {ep} get k", ETCDCTL_ENDPOINTS=""),
        run("get k", ETCDCTL_ENDPOINTS="", ETCDCTL_PEERS="{ep}"),
        run("get k", ETCDCTL_ENDPOINTS="", ETCDCTL_ENDPOINT="{ep}"),
    ],
    "debug": [
        *lines("""
            --debug get k
            --debug --no-sync get k
            --debug ls --sort -r w
            --debug member list
            --debug user list
            --debug --no-sync --output json get --quorum --sort nokey
            --debug cluster-health
            --debug updatedir nokey
            --debug --no-sync setdir ''
            --debug --no-sync rm -r ''
            --debug --no-sync update é/<a>~b v~w&
            --debug --no-sync rm nokey --dir --recursive --with-value v --with-index 3
        """),
    ],
    "members": [
        *lines("""
            member list
            member list x
            member add x
            member add x y
            member add
            member remove
            member remove abc
            member remove default
            member update
            member update abc
            member update abc x
            member update zz http://127.0.0.1:44444
            member add x http://127.0.0.1
            member add x http://127.0.0.1:1/a
            member add x 127.0.0.1:1
            member add x :1
            member add x http://a:b
            member update 12 http://a|b:1
            cluster-health
            cluster-health x
            -o json cluster-health
        """),
    ],
    "watches": [
        *lines("""
            watch
            watch --after-index {index} w/b
            -o json watch --after-index {index} w/b
            watch w/b --after-index 1
            watch --after-index {index} --recursive w
            -o extended watch --after-index {index} --recursive w
        """),
        run("watch --after-index {index} --forever --recursive w", until="[set] /w/z\nend\n"),
        run("-o json watch --after-index {index} -f -r w", until='"/w/z","value":"end"'),
        *lines("""
            exec-watch
            exec-watch w/b
            exec-watch --after-index {index} w/b -- nosuchcommand
        """),
        run("exec-watch --after-index {index} w/z -- sh -c env|grep~ETCD_WATCH|sort", until="VALUE=end\n"),
        run("exec-watch w/z --after-index {index} -- echo seen", until="seen\n"),
    ],
}
