"""The table of commands and flags, with etcdctl's usage texts. A command that muster's servers cannot do is
missing, and so is unknown."""

from __future__ import annotations

from tools.musterctl.command import Command, Flag, number, switch
from tools.musterctl.commands import auth_table
from tools.musterctl.commands.data import copying_flags, snapshots
from tools.musterctl.commands.hosts import member_flags
from tools.musterctl.global_flags import GLOBAL_FLAGS

_PUT_LONG = """Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>."""

_ROW_LONG = (
    "When --write-out is set to simple, this command prints out comma-separated {} lists for each "
    "endpoint.\n"
    "The items in the lists are {}.")


def get_command() -> Command:
    """A new one each time, as a txn's lines are parsed with it."""
    return Command(
        "get [options] <key> [range_end]", "Gets the key or a range of keys", "keys.kv:get",
        (
            Flag("consistency", "string", "l", "Linearizable(l) or Serializable(s)"),
            Flag("order", "string", "", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
            Flag("sort-by", "string", "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
            number("limit", "Maximum number of results"),
            switch("prefix", "Get keys with matching prefix"),
            switch("from-key", "Get keys that are greater than or equal to the given key using byte compare"),
            number("rev", "Specify the kv revision"),
            switch("keys-only", "Get only the keys"),
            switch("count-only", "Get only the count"),
            switch("print-value-only", 'Only write values when using the "simple" output format'),
            number("min-create-rev", "Minimum create revision", newer=True),
            number("max-create-rev", "Maximum create revision", newer=True),
            number("min-mod-rev", "Minimum modification revision", newer=True),
            number("max-mod-rev", "Maximum modification revision", newer=True),
            Flag("stream", "bool", "false", "Use the RangeStream RPC", newer=True)))


def put_command() -> Command:
    return Command(
        "put [options] <key> <value> (<value> can also be given from stdin)",
        "Puts the given key into the store",
        "keys.kv:put",
        (
            Flag("lease", "string", "0", "lease ID (in hexadecimal) to attach to the key"),
            switch("prev-kv", "return the previous key-value pair before modification"),
            switch("ignore-value", "updates the key using its current value"),
            switch("ignore-lease", "updates the key using its current lease")),
        long=_PUT_LONG)


def del_command() -> Command:
    return Command(
        "del [options] <key> [range_end]", "Removes the specified key or range of keys [key, range_end)",
        "keys.kv:delete",
        (
            switch("prefix", "delete keys with matching prefix"),
            switch("prev-kv", "return deleted key-value pairs"),
            switch(
                "from-key", "delete keys that are greater than or equal to the given key using byte compare"),
            Flag("range", "bool", "false", "delete range of keys without delay", newer=True)))


def watch_command() -> Command:
    return Command(
        "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
        "Watches events stream on keys or prefixes", "keys.watch:watch",
        (
            switch("interactive", "Interactive mode", "i"),
            switch("prefix", "Watch on a prefix if prefix is set"),
            number("rev", "Revision to start watching"),
            switch("prev-kv", "get the previous key-value pair before the event happens"),
            switch("progress-notify", "get periodic watch progress notification from server")))


def _lease_command() -> Command:
    once = "Resets the keep-alive time to its original value and cobrautl.Exits immediately"
    return Command(
        "lease <subcommand>", "Lease related commands",
        children=[
            Command("grant <ttl>", "Creates leases", "keys.lease:grant"),
            Command("revoke <leaseID>", "Revokes leases", "keys.lease:revoke"),
            Command(
                "timetolive <leaseID> [options]",
                "Get lease information",
                "keys.lease:time_to_live",
                (switch("keys", "Get keys attached to this lease"),)),
            Command("list", "List all active leases", "keys.lease:list_leases"),
            Command(
                "keep-alive [options] <leaseID>",
                "Keeps leases alive (renew)",
                "keys.lease:keep_alive",
                (switch("once", once),)),
        ])


def _endpoint_command() -> Command:
    items = (
        "endpoint, ID, version, db size, is leader, is learner, raft term, raft index, raft applied index, "
        "errors")
    return Command(
        "endpoint <subcommand>",
        "Endpoint related commands",
        inherited=(switch("cluster", "use all endpoints from the cluster member list"),),
        children=[
            Command(
                "health", "Checks the healthiness of endpoints specified in `--endpoints` flag",
                "hosts.endpoint:health"),
            Command(
                "status",
                "Prints out the status of endpoints specified in `--endpoints` flag",
                "hosts.endpoint:status",
                long=_ROW_LONG.format("status", items)),
            Command(
                "hashkv",
                "Prints the KV history hash for each endpoint in --endpoints",
                "hosts.endpoint:hash_kv",
                (number("rev", "maximum revision to hash (default: all revisions)"),)),
        ])


_TO = number("to", "the shard that gets the keys")
_NOT_WAITING = switch("no-wait", "return once the move has begun, not once it has ended")


_ADVICE = Command(
    "advice", "Prints whether a shard or a move would help, with the figures",
    "hosts.shard_advice:advice",
    long="--growth advise, the default, advises; auto also acts; off does neither.")


def _shard_command() -> Command:
    return Command(
        "shard <subcommand>",
        "Shard related commands (muster only)",
        of_etcdctl=False,
        children=[
            Command(
                "list", "Lists every shard on every host of the cluster", "hosts.shard:list_shards",
                long="Prints each shard on each host: role, term, indexes of the shard's log and of the "
                "order log,\n"
                "order records behind the newest host, keys, size, share of one CPU, and the host that "
                "feeds it.\n"
                "A table, unless --write-out is simple, fields or json."),
            Command(
                "enable-growth", "Lets the cluster store data that older versions cannot read",
                "hosts.shard:enable_growth",
                long="Every host must have run a version of muster that can read such data.\n"
                "This cannot be undone: older versions are refused from then on."),
            Command(
                "add [options]", "Adds a shard, with a node on every host",
                "hosts.shard_changes:add",
                (switch("no-wait", "return once the shard forms, not once it serves"),),
                long="Needs enable-growth first, and every host. Prints the new shard's id. It owns no keys "
                "until some move there."),
            Command(
                "move [options] <key> [range_end] --to <shard>", "Moves a key or a range to another shard",
                "hosts.shard_moves:move",
                (
                    _TO, switch("prefix", "move all keys with this prefix"),
                    switch("from-key", "move all keys from this one on"), _NOT_WAITING),
                long="Prints the move's number, span and step. Clients work meanwhile. One move at a time."),
            Command(
                "split [options] <key> --to <shard>", "Moves a shard's keys from the given key on",
                "hosts.shard_moves:split", (_TO, _NOT_WAITING),
                long="Up to the end of the span that has the key, or of its directory if that places it."),
            Command(
                "moves", "Lists the running move and the last ended ones", "hosts.shard_moves:moves",
                long="A host lists the moves that ended since it started."),
            Command("cancel <move>", "Ends a move before it switches", "hosts.shard_moves:cancel",
                    long="No key changes its shard then."),
            Command(
                "retire [options] <shard>", "Moves a shard's keys away, and removes its nodes",
                "hosts.shard_changes:retire",
                (number("to", "the shard that gets the keys; default: the others by turns"),
                 switch("with-others", "move also keys of other shards that lie among its own"),
                 switch("no-wait", "return once the shard owns no keys, not once it is dropped")),
                long="Its id is never used again. Run it again if it was interrupted. With several first\n"
                "shards a hash spreads keys over them: theirs can leave only together."),
            _ADVICE,
            Command(
                "of [options] <key> [range_end]", "Prints the shards that a key or a range can touch",
                "hosts.shard:of",
                (
                    switch("prefix", "the shards of all keys with this prefix"),
                    switch("from-key", "the shards of all keys from this one on"),
                    number("rev", "the shards that had them at this revision")),
                long="A revision below the compaction that the placement was pruned by is refused as "
                "compacted.\nAt the last revision before a move both shards can answer: the older one is "
                "printed."),
        ])


def _load_flags(check: str, prefix: str) -> tuple[Flag, ...]:
    model = f"The {check} check's workload model."
    return (
        Flag("load", "string", "s", f"{model} Accepted workloads: s(small), m(medium), l(large), xl(xLarge)"),
        Flag("prefix", "string", prefix, f"The prefix for writing the {check} check's keys."),
        switch("auto-compact", "Compact storage with last revision after test is finished."),
        switch("auto-defrag", "Defragment storage after test is finished."))


def _check_command() -> Command:
    perf = Command(
        "perf [options]",
        "Check the performance of the etcd cluster",
        "data.check:perf",
        _load_flags("performance", "/etcdctl-check-perf/"))
    scale = Command(
        "datascale [options]",
        "Check the memory usage of holding data for different workloads on a given server endpoint.",
        "data.datascale:datascale",
        _load_flags("datascale", "/etcdctl-check-datascale/"),
        long="If no endpoint is provided, localhost will be used. "
        "If multiple endpoints are provided, first endpoint will be used.")
    return Command(
        "check <subcommand>", "commands for checking properties of the etcd cluster", children=[perf, scale])


def _move_leader_command() -> Command:
    return Command(
        "move-leader <transferee-member-id>", "Transfers leadership to another etcd cluster member.",
        "hosts.leading:move_leader")


def _completion_command() -> Command:
    shells = ("bash", "fish", "powershell", "zsh")
    return Command(
        "completion <shell>", "Generate completion script",
        children=[
            Command(shell, f"Completion script for {shell}", "completion:completion") for shell in shells
        ])


def _downgrade_command() -> Command:
    return Command(
        "downgrade <TARGET_VERSION>", "Downgrade related commands",
        children=[
            Command(
                "validate <TARGET_VERSION>", "Validate downgrade capability before starting downgrade",
                "hosts.leading:downgrade_validate"),
            Command(
                "enable <TARGET_VERSION>", "Start a downgrade action to cluster",
                "hosts.leading:downgrade_enable"),
            Command("cancel", "Cancel the ongoing downgrade action to cluster",
                    "hosts.leading:downgrade_cancel"),
        ])


def _store_commands() -> list[Command]:
    return [
        Command("txn [options]", "Txn processes all the requests in one transaction", "keys.txn:txn",
                (switch("interactive", "Input transaction in interactive mode", "i"),)),
        Command("compaction [options] <revision>", "Compacts the event history in etcd", "keys.kv:compaction",
                (switch("physical",
                        "'true' to wait for compaction to physically remove all old revisions"),)),
        Command("alarm <subcommand>", "Alarm related commands", children=[
            Command("disarm", "Disarms all alarms", "hosts.maintenance:alarm_disarm"),
            Command("list", "Lists all alarms", "hosts.maintenance:alarm_list"),
        ]),
        Command("defrag", "Defragments the storage of the etcd members with given endpoints",
                "hosts.maintenance:defrag", (
            switch("cluster", "use all endpoints from the cluster member list"),
            Flag("data-dir", "string", "",
                 "Optional. If present, defragments a data directory not in use by etcd."))),
    ]


def _member_command() -> Command:
    items = "ID, Status, Name, Peer Addrs, Client Addrs, Is Learner"
    return Command("member <subcommand>", "Membership related commands", children=[
        Command("list", "Lists all members in the cluster", "hosts.maintenance:member_list",
                (Flag("consistency", "string", "l", "Linearizable(l) or Serializable(s)", newer=True),),
                long=_ROW_LONG.format("member", items)),
        *member_flags.commands(),
    ])


def _other_commands() -> list[Command]:
    return [
        Command("lock <lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock",
                "keys.concurrency:lock", (Flag("ttl", "int", "10", "timeout for session"),)),
        Command("elect <election-name> [proposal]", "Observes and participates in leader election",
                "keys.concurrency:elect", (switch("listen", "observation mode", "l"),)),
        Command("peer-keys <filename>", "Generates the key file that encrypts traffic between hosts",
                "hosts.maintenance:peer_keys", of_etcdctl=False),
        Command("options", "Prints the global flags that every command takes", "help:options"),
        Command("help [command]", "Help about any command", "help:help_command",
                long="Help provides help for any command in the application.\n"
                "Simply type musterctl help [path to command] for full details."),
    ]


def root() -> Command:
    return Command(
        "musterctl", "A simple command line client for muster and etcd.", inherited=GLOBAL_FLAGS, children=[
            get_command(), put_command(), del_command(), *_store_commands(), _endpoint_command(),
            _shard_command(), watch_command(),
            Command("version", "Prints the version of musterctl", "hosts.maintenance:version"),
            _lease_command(), _member_command(), snapshots.command(), snapshots.hashkv_command(),
            *copying_flags.commands(), *auth_table.commands(), _check_command(), _move_leader_command(),
            _downgrade_command(), _completion_command(), *_other_commands(),
        ])
