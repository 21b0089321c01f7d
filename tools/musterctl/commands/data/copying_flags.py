"""``import`` and ``make-mirror`` as the table of commands has them."""

from __future__ import annotations

from tools.musterctl.command import Command, Flag


def commands() -> list[Command]:
    return [
        Command(
            "import --from-etcd ENDPOINTS [options]",
            "Copies keys and leases from a running etcd; with --follow its later changes, too",
            "data.copying:import_",
            of_etcdctl=False,
            flags=(
                Flag("from-etcd", "list", "", "gRPC endpoints of the etcd to copy from"),
                Flag("from-cacert", "string", "",
                     "verify the certificates of that etcd using this CA bundle"),
                Flag("from-cert", "string", "", "identify to that etcd using this TLS certificate file"),
                Flag("from-key", "string", "", "identify to that etcd using this TLS key file"),
                Flag("from-user", "string", "", "username:password at that etcd"),
                Flag("follow", "bool", "false", "copy later changes, too, until interrupted"),
                Flag("since", "int", "0", "revision that an earlier import told last: delete what the source "
                     "has deleted since then. Without this flag, import leaves it"),
                Flag("prefix", "string", "", "key-value prefix to copy"),
                Flag("max-txn-ops", "uint", "128",
                     "maximum number of operations permitted in a transaction")),
        ),
        Command(
            "make-mirror [options] <destination>", "Makes a mirror at the destination etcd cluster",
            "data.copying:make_mirror",
            flags=(
                Flag("prefix", "string", "", "Key-value prefix to mirror"),
                Flag("rev", "int", "0", "Specify the kv revision to start to mirror"),
                Flag("max-txn-ops", "uint", "128", "Maximum number of operations permitted in a transaction "
                     "during syncing updates"),
                Flag("dest-prefix", "string", "",
                     "destination prefix to mirror a prefix to a different prefix in the destination "
                     "cluster"),
                Flag("no-dest-prefix", "bool", "false",
                     "mirror key-values to the root of the destination cluster"),
                Flag("dest-cert", "string", "",
                     "Identify secure client using this TLS certificate file for the destination cluster"),
                Flag("dest-key", "string", "", "Identify secure client using this TLS key file"),
                Flag("dest-cacert", "string", "",
                     "Verify certificates of TLS enabled secure servers using this CA bundle"),
                Flag("dest-insecure-transport", "bool", "true", "Disable transport security for client "
                     "connections"),
                Flag("dest-user", "string", "", "Destination username[:password] for authentication"),
                Flag("dest-password", "string", "", "Destination password for authentication"))),
    ]
