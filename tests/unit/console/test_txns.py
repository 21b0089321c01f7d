"""A transaction's form, and the text of it that ``etcdctl txn`` reads (tools.console.store.txn)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from muster_client import Done, Found, KeyValue, TxnResult
from muster_client.pb import rpc_pb2 as pb

from tools.console.names import shown
from tools.console.store.txn import SIGNS, Compare, Form, Step, result_lines, send
from tools.musterctl.commands.keys.txn import parse_compare, parse_request

T = TypeVar("T")
ODD = st.text(st.sampled_from("a-=. \"'\\é\n\t文"), min_size=1)
WORDS = st.binary(min_size=1, max_size=6).map(shown) | ODD
KEYS = WORDS.filter(lambda word: ".." not in word and word == word.strip())
RANGES = st.tuples(st.just("") | KEYS, st.just("") | KEYS).map("..".join)
NUMBERS = st.integers(0, 2**62).flatmap(lambda n: st.sampled_from([str(n), hex(n)]))
NUMBERED = st.sampled_from(["version", "create_revision", "mod_revision", "lease"])
SIGN = st.sampled_from(SIGNS)
COMPARES = st.builds(Compare, KEYS, st.just("value"), SIGN, st.just("") | WORDS) | st.builds(
    Compare, KEYS, NUMBERED, SIGN, NUMBERS
)
STEPS = st.builds(Step, st.just("put"), WORDS, st.just("") | WORDS) | st.builds(
    Step, st.sampled_from(["get", "delete"]), KEYS | RANGES
)
FORMS = st.builds(Form, *(st.lists(one, max_size=2) for one in (COMPARES, STEPS, STEPS)))


def read(text: str) -> pb.TxnRequest:
    """As ``musterctl txn`` reads it, which reads what ``etcdctl txn`` does."""
    lines = iter(text.removesuffix("\n").split("\n"))

    def block(parse: Callable[[str], T]) -> Iterator[T]:
        while line := next(lines).strip():
            yield parse(line)

    request = pb.TxnRequest(
        compare=list(block(parse_compare)), success=list(block(parse_request)),
        failure=list(block(parse_request)))  # fmt: skip
    assert next(lines, None) is None
    return request


@given(FORMS)
@example(Form([], [Step("get", "a..")], [Step("delete", "..")]))
@example(Form([], [Step("get", "..b")]))
@example(Form([Compare("0xff", "value", "=", "0xfe")], [Step("put", "0xff", "0xfd")], [Step("get", "0xff")]))
@example(Form([Compare("a", "lease", "=", "0x10")], [Step("put", "a..b", "1")]))
@example(Form([Compare("a", "lease", "=", "16")], [Step("put", "-k", "-v")], [Step("get", "-a..")]))
def test_the_text_of_a_form_is_read_as_its_transaction(form: Form) -> None:
    try:
        sent = form.txn().request
    except ValueError:  # an empty range, say
        return
    for op in (*sent.success, *sent.failure):
        if op.HasField("request_range"):
            op.request_range.limit = 0  # etcdctl shows all
    assert read(form.text()) == sent


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("put", "/a", 'it is "x"'), r'put "/a" "it is \"x\""'),
        (Step("get", "/a"), 'get "/a"'),
        (Step("get", "a..b"), 'get "a" "b"'),
        (Step("get", "a.."), 'get "a" --from-key'),
        (Step("delete", "0xff"), r'del "\xff"'),
    ],
)
def test_a_step_is_a_line(step: Step, text: str) -> None:
    assert step.text() == text


def test_of_a_large_value_that_a_transaction_reads_the_beginning_is_shown() -> None:
    kv = KeyValue(b"/a", b"\xff" * 1_000_000, 1, 2, 1)
    (line,) = result_lines(TxnResult(True, 2, (Found((kv,), 1, 2),)), ["get"])
    assert line.startswith("/a = 0xffff")
    assert line.endswith("…  (mod 2)")
    assert len(line) < 3000


@pytest.mark.parametrize("held", [False, True])
def test_a_delete_of_nothing_is_told_as_such(held: bool) -> None:
    class Client:
        async def txn(self, _: object) -> TxnResult:
            form.success.clear()  # by another click
            form.failure.clear()
            return TxnResult(held, 2, (Done(2), Done(2, 0), Done(2, 3)))

    deletes = [Step("delete", "/a"), Step("delete", "/b")]
    form = Form([], [Step("put", "/c"), *deletes], [Step("put", "/d"), *deletes])
    client: Any = Client()
    _, lines = asyncio.run(send(client, form))
    assert lines == ["OK", "deleted 0", "deleted 3"]
