"""Downgrades: which versions may be named, and what is decided."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.effects.records import Item, items
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import requests
from cluster.features import downgrade
from cluster.pb import rpc_pb2 as pb


class Nothing:
    revision = 7


def _set(action: int, version: str, enabled: bytes | None) -> requests.Outcome:
    request = pb.DowngradeRequest(action=action, version=version)  # type: ignore[arg-type]
    outcome, _ = requests.set_downgrade(Nothing(), request.SerializeToString(), enabled)  # type: ignore[arg-type]
    return outcome


@pytest.mark.parametrize("text", ["3.4", "3.4.0", "3.4.99", "03.4", "3.4.1-rc", "3.4.1-rc.2+build", "3.4.0-"])
def test_a_version_may_be_written_in_many_ways(text: str) -> None:
    assert downgrade.target_version(text) == "3.4.0"


@pytest.mark.parametrize(
    "text",
    ["", "3", "x.y", "v3.4", " 3.4", "3.4.x", "3.4.0.0", "+3.4", "3.4-rc", "3.4.1-r_c", "3." + "9" * 40],
)
def test_what_is_no_version_is_refused_as_such(text: str) -> None:
    with pytest.raises(EtcdError) as e:
        downgrade.target_version(text)
    assert e.value.kind is errors.WRONG_DOWNGRADE_VERSION_FORMAT


@pytest.mark.parametrize(
    ("text", "enabled", "kind"),
    [
        ("zz", b"3.4.0", errors.WRONG_DOWNGRADE_VERSION_FORMAT),
        ("3.5", b"3.4.0", errors.INVALID_DOWNGRADE_TARGET_VERSION),
        ("2.4", None, errors.INVALID_DOWNGRADE_TARGET_VERSION),
        ("3.4", b"3.4.0", errors.DOWNGRADE_IN_PROCESS),
    ],
)
def test_only_the_version_just_below_may_be_named_and_only_once(
    text: str, enabled: bytes | None, kind: ErrorKind
) -> None:
    for ask in (lambda: downgrade.check_target(text, enabled), lambda: _set(downgrade.ENABLE, text, enabled)):
        with pytest.raises(EtcdError) as e:
            ask()
        assert e.value.kind is kind


def test_a_downgrade_is_noted_until_it_is_cancelled() -> None:
    begun, ended = _set(downgrade.ENABLE, "3.4", None), _set(downgrade.CANCEL, "", b"3.4.0")
    noted = [
        [(kind, outcome.items[at:to]) for kind, at, to in items(outcome.items)] for outcome in (begun, ended)
    ]
    assert noted == [[(Item.DOWNGRADE, b"3.4.0")], [(Item.DOWNGRADE, b"")]]
    assert not begun.changed, "it takes no revision"
    assert pb.DowngradeResponse.FromString(begun.tail).version == "3.5.0"
    with pytest.raises(EtcdError) as e:
        _set(downgrade.CANCEL, "", None)
    assert e.value.kind is errors.NO_INFLIGHT_DOWNGRADE
