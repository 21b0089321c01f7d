"""The commands and options of the v2 API, with etcdctl's words."""

from __future__ import annotations

from dataclasses import dataclass

from tools.musterctl.v2.line import HELP, Option

_INSTEAD = 'DEPRECATED - "--endpoints" should be used instead'
_LISTED = "a comma-delimited list of machine addresses in the cluster"
_DEFAULT = "http://127.0.0.1:2379,http://127.0.0.1:4001"

GLOBAL = (
    Option(("debug",), "bool", "output cURL commands which can be used to reproduce the request"),
    Option(("no-sync",), "bool", "don't synchronize cluster information before sending request"),
    Option(
        ("output", "o"),
        "string",
        "output response in the given format (`simple`, `extended` or `json`)",
        "simple"),
    Option(
        ("discovery-srv", "D"), "string", "domain name to query for SRV records describing cluster endpoints"
    ),
    Option(("insecure-discovery",), "bool", "accept insecure SRV records describing cluster endpoints"),
    Option(("peers", "C"), "string", _INSTEAD),
    Option(("endpoint",), "string", _INSTEAD),
    Option(("endpoints",), "string", f'{_LISTED} (default: "{_DEFAULT}")'),
    Option(("cert-file",), "string", "identify HTTPS client using this SSL certificate file"),
    Option(("key-file",), "string", "identify HTTPS client using this SSL key file"),
    Option(("ca-file",), "string", "verify certificates of HTTPS-enabled servers using this CA bundle"),
    Option(
        ("username", "u"), "string", "provide username[:password] and prompt if password is not supplied."
    ),
    Option(("timeout",), "duration", "connection timeout per request", "2s"),
    Option(("total-timeout",), "duration", "timeout for the command execution (except watch)", "5s"),
    HELP,
    Option(("version", "v"), "bool", "print the version"))
DEFAULT_ENDPOINTS = _DEFAULT


@dataclass(slots=True, frozen=True)
class Command:
    name: str
    usage: str
    args: str = ""
    run: str = ""  # "module:function" of ``commands``, imported when it runs
    options: tuple[Option, ...] = ()
    description: str = ""
    children: tuple[Command, ...] = ()
    hidden: bool = False  # from the list of commands: etcdctl 3 lacks it


def _switch(usage: str, *names: str) -> Option:
    return Option(names, "bool", usage)


_TTL = Option(("ttl",), "int", "key time-to-live in seconds", "0")
_SORT = _switch("returns result in sorted order", "sort")
_QUORUM = _switch("require quorum for get request", "quorum", "q")
_AFTER = Option(("after-index",), "int", "watch after the given index", "0")

_SET = """Set sets the value of a key.

   When <value> begins with '-', <value> is interpreted as a flag.
   Insert '--' for workaround:

   $ set -- <key> <value>"""

_BACKUP = """Performs an offline backup of etcd directory.

Moved to `./etcdutl backup` and going to be decomissioned in v3.5

The recommended (online) backup command is: `./etcdctl snapshot save ...`.

"""


def _permissions(verb: str, access: str) -> tuple[Option, ...]:
    return (
        Option(("path",), "string", f"Path {verb} for the role to access"),
        _switch(f"{access} {'read-only' if access == 'Grant' else 'read'} access", "read"),
        _switch(f"{access} {'write-only' if access == 'Grant' else 'write'} access", "write"),
        _switch(f"{access} read-write access", "readwrite", "rw"))


_ROLES = (Option(("roles",), "list", "List of roles to grant or revoke"),)

COMMANDS = (
    Command(
        "backup", "--data-dir=... --backup-dir={output}", "", "backup:backup",
        (
            Option(("data-dir",), "string", "Path to the etcd data dir"),
            Option(("wal-dir",), "string", "Path to the etcd wal dir"),
            Option(("backup-dir",), "string", "Path to the backup dir"),
            Option(("backup-wal-dir",), "string", "Path to the backup wal dir"),
            _switch("Backup v3 backend data", "with-v3")),
        _BACKUP),
    Command(
        "cluster-health",
        "check the health of the etcd cluster",
        " ",
        "member:cluster_health",
        (_switch("forever check the health every 10 second until CTRL+C", "forever", "f"),)),
    Command(
        "mk",
        "make a new key with a given value",
        "<key> <value>",
        "kv:mk",
        (_switch("create in-order key under directory <key>", "in-order"), _TTL)),
    Command("mkdir", "make a new directory", "<key>", "kv:mkdir", (_TTL,)),
    Command(
        "rm", "remove a key or a directory", "<key>", "kv:rm",
        (
            _switch("removes the key if it is an empty directory or a key-value pair", "dir"),
            _switch("removes the key and all child keys(if it is a directory)", "recursive", "r"),
            Option(("with-value",), "string", "previous value"),
            Option(("with-index",), "int", "previous index", "0"))),
    Command("rmdir", "removes the key if it is an empty directory or a key-value pair", "<key>", "kv:rmdir"),
    Command(
        "get",
        "retrieve the value of a key",
        "<key>",
        "kv:get",
        (_SORT, _QUORUM, Option(("consistent",), "bool", ""))),
    Command(
        "ls", "retrieve a directory", "[key]", "kv:ls",
        (
            _SORT,
            _switch("returns all key names recursively for the given path", "recursive", "r"),
            _switch("append slash (/) to directories", "p"),
            _QUORUM)),
    Command(
        "set", "set the value of a key", "<key> <value>", "kv:set_",
        (
            _TTL,
            Option(("swap-with-value",), "string", "previous value"),
            Option(("swap-with-index",), "int", "previous index", "0")),
        _SET),
    Command(
        "setdir", "create a new directory or update an existing directory TTL", "<key>", "kv:setdir", (_TTL,)
    ),
    Command("update", "update an existing key with a given value", "<key> <value>", "kv:update", (_TTL,)),
    Command("updatedir", "update an existing directory", "<key> <value>", "kv:updatedir", (_TTL,)),
    Command(
        "watch", "watch a key for changes", "<key>", "watch:watch",
        (
            _switch("forever watch a key until CTRL+C", "forever", "f"),
            _AFTER,
            _switch("returns all values for key and child keys", "recursive", "r"))),
    Command(
        "exec-watch",
        "watch a key for changes and exec an executable",
        "<key> <command> [args...]",
        "watch:exec_watch",
        (_AFTER, _switch("watch all values for key and child keys", "recursive", "r"))),
    Command(
        "member", "member add, remove and list subcommands",
        children=(
            Command("list", "enumerate existing cluster members", " ", "member:list_"),
            Command("add", "add a new member to the etcd cluster", "<name> <peerURL>", "member:add"),
            Command(
                "remove", "remove an existing member from the etcd cluster", "<memberID>", "member:remove"),
            Command(
                "update", "update an existing member in the etcd cluster", "<memberID> <peerURLs>",
                "member:update"))),
    Command(
        "user", "user add, grant and revoke subcommands",
        children=(
            Command("add", "add a new user for the etcd cluster", "<user>", "auth:user_add"),
            Command("get", "get details for a user", "<user>", "auth:user_get"),
            Command("list", "list all current users", "<user>", "auth:user_list"),
            Command("remove", "remove a user for the etcd cluster", "<user>", "auth:user_remove"),
            Command("grant", "grant roles to an etcd user", "<user>", "auth:user_grant", _ROLES),
            Command("revoke", "revoke roles for an etcd user", "<user>", "auth:user_revoke", _ROLES),
            Command("passwd", "change password for a user", "<user>", "auth:user_passwd"))),
    Command(
        "role", "role add, grant and revoke subcommands",
        children=(
            Command("add", "add a new role for the etcd cluster", "<role> ", "auth:role_add"),
            Command("get", "get details for a role", "<role>", "auth:role_get"),
            Command("list", "list all roles", " ", "auth:role_list"),
            Command("remove", "remove a role from the etcd cluster", "<role>", "auth:role_remove"),
            Command(
                "grant",
                "grant path matches to an etcd role",
                "<role>",
                "auth:role_grant",
                _permissions("granted", "Grant")),
            Command(
                "revoke",
                "revoke path matches for an etcd role",
                "<role>",
                "auth:role_revoke",
                _permissions("revoked", "Revoke")))),
    Command(
        "auth", "overall auth controls",
        children=(
            Command("enable", "enable auth access controls", " ", "auth:enable"),
            Command("disable", "disable auth access controls", " ", "auth:disable"))),
    Command(
        "import", "import a snapshot to a cluster", "", "copying:import_",
        (
            Option(("snap",), "string", "Path to the valid etcd 0.4.x snapshot file."),
            Option(("hidden",), "list", "Hidden key spaces to import from snapshot"),
            Option(("c",), "int", "Number of concurrent clients to import the data", "10")),
        hidden=True))
HELP_COMMAND = Command("help", "Shows a list of commands or help for one command")


def find(commands: tuple[Command, ...], name: str) -> Command | None:
    return next((command for command in commands if command.name == name), None)
