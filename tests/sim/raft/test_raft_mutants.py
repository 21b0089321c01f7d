"""Take one rule out of Raft, and the simulator's checker must notice, by the right name.

Rules whose absence takes a rare interleaving to hurt are in ``test_raft_directed``.
"""

from __future__ import annotations

import pytest

from cluster.raft import Raft
from tests.sim.raft import raft_mutants as mutants
from tests.sim.raft.raft_checks import Violation
from tests.sim.raft.raft_sim import Simulation

_SEEDS = 400  # at most; most are noticed within ten

_ON_DISKS = "I2 committed is on a quorum's disks"
_NOTICED = "I1 or I2, noticed by a replica"
_ONE_ENTRY = "I1 one committed entry per index"


@pytest.mark.parametrize(
    ("mutant", "rules"),
    [
        (mutants.LeaderCountsItselfBeforeItsSync, {_ON_DISKS}),
        (mutants.CandidateCountsItsVoteBeforeItsSync, {"I2 a leader's own vote is synced"}),
        (mutants.VoteLeavesBeforeItsSync, {"I2 no vote before its sync", "I2 no term before its sync"}),
        (
            mutants.VoteRequestLeavesBeforeTheLogsSync,
            {"I2 no vote request before the log's sync", "I2 no term before its sync"},
        ),
        (mutants.AckLeavesBeforeItsSync, {"I2 no ack before its sync", "I2 no term before its sync"}),
        (mutants.TermLeavesBeforeItsSync, {"I2 no term before its sync"}),
        (mutants.VoteIsForgotten, {"I2 no vote before its sync", "I2 a leader's own vote is synced"}),
        (mutants.VotesTwiceInATerm, {"I1 one leader per term", "I2 no vote before its sync"}),
        (mutants.VotesForAnyLog, {"I1 leader completeness"}),
        (mutants.ComparesLogsByLengthOnly, {"I1 leader completeness"}),
        (mutants.TruncatesWithoutConflict, {_NOTICED, _ON_DISKS, "I2 no ack before its sync", "liveness"}),
        (mutants.AppendsWithoutLookingAtTheEntryBefore, {"I1 log matching", _ONE_ENTRY}),
        (
            mutants.ForgetsThatATruncationUndoesSyncs,
            {"I2 no ack before its sync", "H10 state never ahead of the log"},
        ),
        (mutants.TellsFollowersACommitTheyMayNotHave, {_ONE_ENTRY}),
        (mutants.ReadJoinsARoundUnderWay, {"I13 read index"}),
        (mutants.ReadNeedsNoRound, {"I13 read index"}),
        (mutants.ReadBeforeAnEntryOfTheOwnTerm, {"I13 read index"}),
        (mutants.AppliesWhatItsOwnDiskLacks, {"H10 state never ahead of the log"}),
        (mutants.ForgetsWhatWasCommitted, {"I25 a restart takes nothing back"}),
        (mutants.StartsWithAllThatItLogged, {_ONE_ENTRY, _NOTICED}),
        (mutants.UsesAConfigurationOnlyOnceItIsOld, {_ON_DISKS}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_checker_notices_that_a_rule_is_missing(mutant: type[Raft], rules: set[str]) -> None:
    for seed in range(_SEEDS):
        try:
            Simulation(seed, mutant, duration_ms=4_000).run()
        except Violation as violation:
            if violation.rule in rules:
                return
            if violation.rule != "liveness":
                raise
    raise AssertionError(f"{_SEEDS} runs without {mutant.__name__}'s rule, and nobody noticed")
