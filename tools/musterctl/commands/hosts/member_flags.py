"""The commands that change members."""

from __future__ import annotations

from tools.musterctl.command import Command, Flag

_URLS = Flag("peer-urls", "string", "", "comma separated peer URLs for the new member.")
_MOVED = Flag("peer-urls", "string", "", "comma separated peer URLs for the updated member.")
_LEARNER = Flag("learner", "bool", "false", "indicates if the new member is raft learner")


def commands() -> list[Command]:
    return [
        Command("add <memberName> [options]", "Adds a member into the cluster", "hosts.member:add",
                (_URLS, _LEARNER)),
        Command("promote <memberID>", "Promotes a non-voting member in the cluster", "hosts.member:promote",
                long="Promotes a non-voting learner member to a voting one in the cluster."),
        Command("remove <memberID>", "Removes a member from the cluster", "hosts.member:remove"),
        Command("update <memberID> [options]", "Updates a member in the cluster", "hosts.member:update",
                (_MOVED,)),
    ]
