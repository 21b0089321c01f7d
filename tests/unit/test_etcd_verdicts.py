"""How a run of etcd's own tests is judged by the list of what is known not to hold."""

from __future__ import annotations

from tests.interop.etcd import run
from tests.interop.etcd.verdicts import Judgement, Known, Outcome, Verdict, judge, known, outcome

PASSED = "=== RUN   TestA\n    a_test.go:1: some words\n--- PASS: TestA (0.10s)\nPASS\n"
PARTS = """
--- FAIL: TestA (0.10s)
    --- PASS: TestA/one (0.01s)
    --- FAIL: TestA/two (0.01s)
        --- FAIL: TestA/two/deep (0.01s)
"""
LIST = """# release, tests, shards, why
3.6\tTestA/two TestB\t1\treasons
3.6\tTestC\t2\tof several shards
"""
FAILED = Outcome(Verdict.FAILED, ("TestA/two/deep",))


def test_a_test_has_passed_if_it_says_so_whatever_is_left_running_when_it_is_over() -> None:
    leak = PASSED + "Unexpected goroutines running after all test(s).\n"
    assert outcome("TestA", leak) == Outcome(Verdict.PASSED)


def test_of_a_test_that_fails_the_innermost_parts_are_named() -> None:
    assert outcome("TestA", PARTS) == FAILED


def test_a_test_that_does_not_come_to_an_end_has_failed() -> None:
    assert outcome("TestA", "=== RUN   TestA\n") == Outcome(Verdict.FAILED, ("TestA",))


def test_a_skipped_test_is_neither() -> None:
    assert outcome("TestA", "--- SKIP: TestA (0.00s)\n").verdict is Verdict.SKIPPED


def test_the_list_is_read_row_by_row() -> None:
    assert known(LIST) == [
        Known(("TestA/two", "TestB"), 1, "reasons"), Known(("TestC",), 2, "of several shards"),
    ]  # fmt: skip


def test_another_release_has_rows_of_its_own_besides() -> None:
    table = LIST + "3.5\tTestD\t1\told\n"
    assert known(table) == known(LIST)
    rows = known(table, "3.5")
    assert [(row.names[0], row.elsewhere) for row in rows] == [
        ("TestA/two", True), ("TestC", True), ("TestD", False),
    ]  # fmt: skip
    passed = {name: Outcome(Verdict.PASSED) for name in ("TestB", "TestD")}
    assert judge(passed, rows, 1) == Judgement(outdated=["TestD"]), "TestB may hold in the other release"


def test_what_fails_and_is_not_in_the_list_is_told() -> None:
    outcomes = {"TestA": FAILED, "TestC": Outcome(Verdict.FAILED, ("TestC",))}
    assert judge(outcomes, known(LIST), 1) == Judgement(unexpected=["TestC"])
    assert judge(outcomes, known(LIST), 3) == Judgement()


def test_what_holds_though_it_is_in_the_list_is_told() -> None:
    outcomes = {"TestA": Outcome(Verdict.PASSED), "TestB": Outcome(Verdict.SKIPPED)}
    assert judge(outcomes, known(LIST), 1) == Judgement(outdated=["TestA/two"])


def test_each_row_of_the_list_has_a_reason() -> None:
    rows = known(run.LIST.read_text())
    names = [name for row in rows for name in row.names]
    assert names
    assert all(row.why for row in rows)
    assert len(names) == len(set(names))
