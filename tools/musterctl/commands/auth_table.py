"""The commands of ``auth``, with etcdctl's usage texts."""

from __future__ import annotations

from tools.musterctl.command import Command, Flag, switch

_FROM_STDIN = "password from stdin instead of interactive terminal"
_FROM_KEY = "permission of keys that are greater than or equal to the given key using byte compare"


def commands() -> list[Command]:
    return [_auth(), _user(), _role()]


def _auth() -> Command:
    return Command(
        "auth <enable or disable>", "Enable or disable authentication",
        children=[
            Command("disable", "Disables authentication", "auth:disable"),
            Command("enable", "Enables authentication", "auth:enable"),
            Command("status", "Returns authentication status", "auth:status"),
        ])


def _user() -> Command:
    return Command(
        "user <subcommand>", "User related commands",
        children=[
            Command(
                "add <user name or user:password> [options]", "Adds a new user", "auth:user_add",
                (
                    switch("interactive", f"Read {_FROM_STDIN}", on=True),
                    Flag("new-user-password", "string", "", "Supply password from the command line flag"),
                    switch("no-password", "Create a user without password (CN based auth only)"))),
            Command("delete <user name>", "Deletes a user", "auth:user_delete"),
            Command(
                "get <user name> [options]",
                "Gets detailed information of a user",
                "auth:user_get",
                (switch("detail", "Show permissions of roles granted to the user"),)),
            Command("grant-role <user name> <role name>", "Grants a role to a user", "auth:user_grant_role"),
            Command("list", "Lists all users", "auth:user_list"),
            Command(
                "passwd <user name> [options]", "Changes password of user", "auth:user_passwd",
                (
                    switch("interactive", f"If true, read {_FROM_STDIN}", on=True),
                )),
            Command(
                "revoke-role <user name> <role name>", "Revokes a role from a user", "auth:user_revoke_role"),
        ])


def _role() -> Command:
    return Command(
        "role <subcommand>", "Role related commands",
        children=[
            Command("add <role name>", "Adds a new role", "auth:role_add"),
            Command("delete <role name>", "Deletes a role", "auth:role_delete"),
            Command("get <role name>", "Gets detailed information of a role", "auth:role_get"),
            Command(
                "grant-permission [options] <role name> <permission type> <key> [endkey]",
                "Grants a key to a role",
                "auth:role_grant_permission",
                (switch("prefix", "grant a prefix permission"), switch("from-key", f"grant a {_FROM_KEY}"))),
            Command("list", "Lists all roles", "auth:role_list"),
            Command(
                "revoke-permission <role name> <key> [endkey]",
                "Revokes a key from a role",
                "auth:role_revoke_permission",
                (switch("prefix", "revoke a prefix permission"), switch("from-key", f"revoke a {_FROM_KEY}")),
            ),
        ])
