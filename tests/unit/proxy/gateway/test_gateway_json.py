"""The JSON gateway's translation: what Go's jsonpb takes and writes, and its words for what it does not
take."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from cluster.pb import rpc_pb2
from proxy.gateway import asked as requests
from proxy.gateway.decode import check_binary_header, fill
from proxy.gateway.encode import encode, error, http_status, stream_error
from proxy.gateway.encode import text as go_text
from proxy.gateway.go_json import Mistake, Number, Values, loads, whole
from proxy.gateway.paths import BOTH, MANY, TARGETS

LARGE = b" " * 5000  # before a body that is walked
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-1e99, 1e99), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
PUTS = st.builds(
    rpc_pb2.PutRequest,
    key=st.binary(max_size=9),
    value=st.binary(max_size=9),
    lease=INT64,
    prev_kv=st.booleans(),
)
RANGES = st.builds(
    rpc_pb2.RangeRequest, key=st.binary(max_size=9), limit=INT64, sort_order=st.sampled_from([0, 1, 2])
)
OPS = st.one_of(
    st.builds(rpc_pb2.RequestOp, request_put=PUTS), st.builds(rpc_pb2.RequestOp, request_range=RANGES)
)
COMPARES = st.builds(
    rpc_pb2.Compare, key=st.binary(max_size=9), version=INT64, result=st.sampled_from([0, 1, 2, 3])
)
TXNS = st.builds(
    rpc_pb2.TxnRequest,
    compare=st.lists(COMPARES, max_size=3),
    success=st.lists(OPS, max_size=3),
    failure=st.lists(OPS, max_size=3),
)


def request(body: str, kind: type = rpc_pb2.PutRequest) -> object:
    """The message of a body."""
    message = kind()
    whole(fill(message, whole(Values(body.encode()).next())))
    return message


def mistake(body: str, kind: type = rpc_pb2.PutRequest) -> str:
    """Why a body is refused."""
    with pytest.raises(Mistake) as raised:
        request(body, kind)
    return str(raised.value)


@given(TXNS)
def test_what_is_written_is_read_back(txn: rpc_pb2.TxnRequest) -> None:
    assert request(encode(txn), rpc_pb2.TxnRequest) == txn


@given(TXNS)
def test_protobufs_own_json_is_the_same(txn: rpc_pb2.TxnRequest) -> None:
    expected = json_format.MessageToDict(txn, preserving_proto_field_name=True)
    assert json.loads(encode(txn)) == expected
    assert request(json_format.MessageToJson(txn), rpc_pb2.TxnRequest) == txn


def test_bytes_of_a_path_that_are_not_utf8_are_written_as_go_writes_them() -> None:
    """``DELETE /v2/members/%ff`` met a fault, and was answered 500."""
    path = b"no \xff <\xc3\xa9\xc3>".decode("utf-8", "surrogateescape")
    assert go_text(path) == '"no \\ufffd \\u003cé\\ufffd\\u003e"'
    assert go_text("é\ud800\udfff") == '"é\\ufffd\\ufffd"'


def test_control_characters_are_written_as_by_the_go_of_etcd() -> None:
    """Later ones write ``\\b`` and ``\\f``."""
    assert go_text('\b\f\n\r\t\0\x1f\x7f\\b"') == r'"\u0008\u000c\n\r\t\u0000\u001f' + '\x7f\\\\b\\""'


@given(st.text(max_size=40))
def test_no_text_does_anything_but_make_a_mistake(text: str) -> None:
    for read in (lambda: request(text), lambda: loads(text)):
        with contextlib.suppress(Mistake, EOFError):
            read()


@pytest.mark.parametrize(("body", "message"), [
    ('{"key":5}', "json: cannot unmarshal number into Go value of type []uint8"),
    ('{"key":"Zm9"}', "illegal base64 data at input byte 0"),
    ('{"key":"Zm9v!"}', "illegal base64 data at input byte 4"),
    ('{"key":"Zm9v="}', "illegal base64 data at input byte 4"),
    ('{"key":"Zg=x"}', "illegal base64 data at input byte 2"),
    ('{"lease":"x"}', "invalid character 'x' looking for beginning of value"),
    ('{"lease":""}', "unexpected end of JSON input"),
    ('{"lease":"1 2"}', "invalid character '2' after top-level value"),
    ('{"lease":1.5}', "json: cannot unmarshal number 1.5 into Go value of type int64"),
    ('{"lease":9223372036854775808}',
     "json: cannot unmarshal number 9223372036854775808 into Go value of type int64"),
    ('{"prev_kv":"true"}', "json: cannot unmarshal string into Go value of type bool"),
    ("[]", "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"),
    ("{", "unexpected EOF"),
    ("{]", "invalid character ']' looking for beginning of object key string"),
    ('{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
    ('{"a":[1 2]}', "invalid character '2' after array element"),
    ('{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
    ("'", r"invalid character '\'' looking for beginning of value"),
    ("{\x7f", r"invalid character '\u007f' looking for beginning of object key string"),
    ("[" * 20_000, "invalid character '[' exceeded max depth"),
])  # fmt: skip
def test_mistakes_are_told_in_gos_words(body: str, message: str) -> None:
    assert mistake(body) == message


@pytest.mark.parametrize("body", [
    b'{"a":"\xc3\xa9"} \xc3\xa9', b'"\xff"\xff', b'{"a":"\\x"}', b'{"a":"\n"}', b"0 -", b"1.x",
])  # fmt: skip
def test_a_large_body_has_the_mistakes_of_a_small_one(body: bytes) -> None:
    assert read(LARGE + body) == read(body)


@given(VALUES, st.binary(max_size=3), st.binary(max_size=3))
def test_a_large_body_has_the_values_of_a_small_one(value: object, head: bytes, tail: bytes) -> None:
    """One is walked, the other is read by C."""
    for ascii_only in (False, True):
        text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        body = text + b'"' + head + b'"' + text + tail
        assert read(LARGE + body) == read(body)


def read(body: bytes) -> list[object]:
    """All values of a body, and the mistake behind them."""
    values, found = Values(body), list[object]()
    try:
        while True:
            found.append(whole(values.next()))
    except (EOFError, Mistake) as end:
        return [*found, str(end)]


@pytest.mark.parametrize(("text", "least"), [
    (b"{}" * 1000, 1000),  # each
    (b'{"create_request":{"filters":[' + b"0," * 1000 + b"0]}}", 30),  # read, and then put into the message
    (b'{"create_request":{"key":[' + b"1," * 1000 + b"1]}}", 30),
    (b'{"x":[' + b"[],{}," * 500 + b"1]}", 15),
    (b'{"x":{' + b'"a":1,' * 1000 + b'"a":1}}', 15),
])  # fmt: skip
def test_a_large_text_is_translated_in_many_steps(
    text: bytes, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of 12 MB held a thread for 24 s, and all of them for 3 s."""
    monkeypatch.setattr(requests, "STEP_S", 0.0)
    monkeypatch.setattr(requests, "_UNTIMED", 1)
    asked, steps = requests.Asked(requests.requests_of(TARGETS["/v3/watch"], LARGE + text)), 0
    while not asked.ended:
        asked.step()
        steps += 1
    assert (asked.mistake, steps > least) == (None, True)


@pytest.mark.parametrize(("inner", "elements"), [
    ({"requestRange": {}}, 1),
    ({"requestPut": {"key": [Number("1")] * 30}}, 31),
    ({"requestTxn": {"compare": [{}] * 30}}, 31),
])  # fmt: skip
def test_short_lists_in_short_lists_are_put_into_a_message_in_many_steps(
    inner: object, elements: int
) -> None:
    """One step took 3 s for 5 MB: no list had 64 elements."""
    value = {"success": [{"requestTxn": {"success": [inner] * 30}}] * 30}
    assert sum(1 for _ in fill(rpc_pb2.TxnRequest(), value)) == (30 + 30 * 30 * elements) // 64


def test_a_text_that_stands_for_a_number_is_bounded() -> None:
    """Each of its characters was looked at: 12 MB took six seconds."""
    assert mistake('{"lease":"[' + 100_000 * "0," + 'x"}') == "unexpected end of JSON input"


def test_what_is_nested_too_deep_for_a_message_is_a_mistake() -> None:
    """The values, as Python 3.12 and later read them: 3.11 reads none so deep."""
    nested: object = {}
    for _ in range(1_000):
        nested = {"success": [{"requestTxn": nested}]}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)  # hypothesis may have raised it
    try:
        with pytest.raises(Mistake, match="exceeded max depth"):
            whole(fill(rpc_pb2.TxnRequest(), nested))
    finally:
        sys.setrecursionlimit(limit)


def test_names_may_be_in_camel_case_and_unknown_ones_are_passed_over() -> None:
    assert request('{"prevKv":true,"x":{"y":[null]},"key":[102,111]}') == rpc_pb2.PutRequest(
        key=b"fo", prev_kv=True
    )


def test_null_is_nothing_and_a_name_that_comes_twice_counts_once() -> None:
    assert request('{"key":"YQ==","key":"Yg==","value":null}') == rpc_pb2.PutRequest(key=b"b")
    assert request("null") == rpc_pb2.PutRequest()


def test_enums_are_names_or_numbers() -> None:
    for body in ('{"sort_order":"DESCEND"}', '{"sort_order":2}'):
        assert request(body, rpc_pb2.RangeRequest) == rpc_pb2.RangeRequest(sort_order=2)
    assert mistake('{"sort_order":"UP"}', rpc_pb2.RangeRequest) == (
        r'unknown value "\"UP\"" for enum etcdserverpb.RangeRequest.SortOrder'
    )


def test_a_body_is_several_values_until_it_ends() -> None:
    values = Values(b' {"a":1}\n[]5 ')
    assert [whole(values.next()) for _ in range(3)] == [{"a": "1"}, [], "5"]
    with pytest.raises(EOFError):
        whole(values.next())


def test_errors_are_told_twice_and_streams_errors_with_both_codes() -> None:
    assert json.loads(error(3, "a<b")) == {"error": "a<b", "code": 3, "message": "a<b"}
    assert json.loads(stream_error(14, "gone")) == {
        "error": {"grpc_code": 14, "http_code": 503, "message": "gone", "http_status": "Service Unavailable"}
    }
    assert [http_status(code) for code in (0, 1, 5, 16, 99)] == [200, 408, 404, 401, 500]


def test_every_method_of_etcd_has_its_path() -> None:
    assert len(TARGETS) == 59
    assert {path for path, target in TARGETS.items() if target.kind in (MANY, BOTH)} == {
        "/v3/watch",
        "/v3/lease/keepalive",
        "/v3/maintenance/snapshot",
        "/v3/election/observe",
    }
    assert TARGETS["/v3/kv/compaction"].method == "/etcdserverpb.KV/Compact"


@pytest.mark.parametrize(
    ("field", "at"),
    [("", None), ("QQ==", None), ("QQ", None), ("QUI", None), ("QUJDRA==", None), ("!!!", 0), ("!!!!", 0),
     ("Q", 0), ("QQ=", 2), ("QQ=Q", 2), ("Q===", 1), ("QUJDR!", 5), ("QUJDR", 4), ("QUJD\xe9", 4)],
)  # fmt: skip
def test_binary_metadata_is_base64_with_or_without_its_padding(field: str, at: int | None) -> None:
    """As etcd 3.5.1 answers each."""
    try:
        check_binary_header(field.encode("latin-1"))
        found = ""
    except Mistake as mistake:
        found = str(mistake)
    assert found == ("" if at is None else f"illegal base64 data at input byte {at}")
