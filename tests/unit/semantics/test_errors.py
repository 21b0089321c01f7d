"""The error table against the written contract (``v3_errors.tsv``: symbol, code, name, text, when, notes)."""

import csv
from pathlib import Path

import pytest

from cluster import errors
from cluster.errors import Code, EtcdError

# rows without a constant name, by their text
PARENTHESISED = {
    "(nested)",  # an example: LeaseNotFound's text under Unknown
    "(unknown method)", "(unknown service)", "grpc recv limit",  # texts with values in them
}
# muster never raises these: what etcd says so of does not happen here, or has another row's text
NEVER_RAISED = {
    "(not primary)", "(canceled)", "(proposal dropped)", "Canceled (declared)",
    "DeadlineExceeded (declared)", "ClusterIDMismatch", "ClusterVersionUnavailable", "LeaderChanged",
    "NotCapable", "TimeoutDueToConnectionLost", "TimeoutWaitAppliedIndex",
}  # fmt: skip


def rows() -> list[list[str]]:
    text = (Path(__file__).parent / "v3_errors.tsv").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return list(csv.reader(lines[1:], delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_of_the_contract_has_a_kind_with_its_text_and_code(row: list[str]) -> None:
    symbol, code, _, text = row[:4]
    if symbol == "watch cancel_reason":
        known = {errors.WATCH_RANGE_EMPTY, errors.WATCH_DUPLICATE_ID, errors.WATCH_NEGATIVE_START}
        known |= {
            errors.watch_cancel_reason(EtcdError(kind))
            for kind in (errors.PERMISSION_DENIED, errors.INVALID_AUTH_TOKEN,
                         errors.AUTH_OLD_REVISION, errors.USER_EMPTY)
        }
        assert text in known
    elif symbol in PARENTHESISED:
        return
    elif symbol in NEVER_RAISED:
        assert text not in {kind.text for kind in errors.by_number.values()}
    elif symbol.startswith("(") or symbol.endswith(")"):
        assert any(k.text == text and k.code == int(code) for k in errors.by_number.values())
    else:
        kind = errors.by_name[symbol]
        assert (kind.text, kind.code) == (text, int(code))


def test_an_error_survives_the_wire_with_its_text() -> None:
    for kind in errors.by_number.values():
        error = EtcdError.decode(EtcdError(kind).encode())
        assert (error.kind, error.text) == (kind, kind.text)
    custom = EtcdError.decode(EtcdError(errors.UNMAPPED, "some text").encode())
    assert (custom.code, custom.text, str(custom)) == (Code.UNKNOWN, "some text", "some text")


def test_an_unknown_number_keeps_its_text_as_unknown() -> None:
    error = EtcdError.decode(b"\xff\xffnews")
    assert (error.code, error.text) == (Code.UNKNOWN, "news")


def test_numbers_fit_the_wire() -> None:
    assert all(0 < number < 1 << 16 for number in errors.by_number)
