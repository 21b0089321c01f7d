from cluster.pb import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnableGrowthRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: int
    def __init__(self, level: _Optional[int] = ...) -> None: ...

class AddShardRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AddShardResponse(_message.Message):
    __slots__ = ("header", "shard")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    shard: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., shard: _Optional[int] = ...) -> None: ...

class RetireShardRequest(_message.Message):
    __slots__ = ("shard", "with_keys")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    WITH_KEYS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    with_keys: bool
    def __init__(self, shard: _Optional[int] = ..., with_keys: _Optional[bool] = ...) -> None: ...

class RetireShardResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

class EnableGrowthResponse(_message.Message):
    __slots__ = ("header", "level")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    level: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., level: _Optional[int] = ...) -> None: ...

class MoveRequest(_message.Message):
    __slots__ = ("key", "range_end", "target")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    target: int
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., target: _Optional[int] = ...) -> None: ...

class MoveResponse(_message.Message):
    __slots__ = ("header", "move")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    move: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., move: _Optional[int] = ...) -> None: ...

class SplitRequest(_message.Message):
    __slots__ = ("key", "target")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    target: int
    def __init__(self, key: _Optional[bytes] = ..., target: _Optional[int] = ...) -> None: ...

class SplitResponse(_message.Message):
    __slots__ = ("header", "move")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    move: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., move: _Optional[int] = ...) -> None: ...

class CancelMoveRequest(_message.Message):
    __slots__ = ("move",)
    MOVE_FIELD_NUMBER: _ClassVar[int]
    move: int
    def __init__(self, move: _Optional[int] = ...) -> None: ...

class CancelMoveResponse(_message.Message):
    __slots__ = ("header", "move")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    move: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., move: _Optional[int] = ...) -> None: ...

class MovesRequest(_message.Message):
    __slots__ = ("table",)
    TABLE_FIELD_NUMBER: _ClassVar[int]
    table: bool
    def __init__(self, table: _Optional[bool] = ...) -> None: ...

class MovesResponse(_message.Message):
    __slots__ = ("header", "moves", "last_move", "table")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    LAST_MOVE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    last_move: int
    table: bytes
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ..., last_move: _Optional[int] = ..., table: _Optional[bytes] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("move", "key", "range_end", "sources", "target", "step", "failed_switches", "copies", "waits_for")
    class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Move.Step]
        COPYING: _ClassVar[Move.Step]
        SWITCHING: _ClassVar[Move.Step]
        PAUSING: _ClassVar[Move.Step]
        SWITCHED: _ClassVar[Move.Step]
        CANCELLED: _ClassVar[Move.Step]
    UNKNOWN: Move.Step
    COPYING: Move.Step
    SWITCHING: Move.Step
    PAUSING: Move.Step
    SWITCHED: Move.Step
    CANCELLED: Move.Step
    class Copy(_message.Message):
        __slots__ = ("member", "keys", "bytes", "whole", "lag_ms")
        MEMBER_FIELD_NUMBER: _ClassVar[int]
        KEYS_FIELD_NUMBER: _ClassVar[int]
        BYTES_FIELD_NUMBER: _ClassVar[int]
        WHOLE_FIELD_NUMBER: _ClassVar[int]
        LAG_MS_FIELD_NUMBER: _ClassVar[int]
        member: int
        keys: int
        bytes: int
        whole: bool
        lag_ms: int
        def __init__(self, member: _Optional[int] = ..., keys: _Optional[int] = ..., bytes: _Optional[int] = ..., whole: _Optional[bool] = ..., lag_ms: _Optional[int] = ...) -> None: ...
    MOVE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FAILED_SWITCHES_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    move: int
    key: bytes
    range_end: bytes
    sources: _containers.RepeatedScalarFieldContainer[int]
    target: int
    step: Move.Step
    failed_switches: int
    copies: _containers.RepeatedCompositeFieldContainer[Move.Copy]
    waits_for: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, move: _Optional[int] = ..., key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., sources: _Optional[_Iterable[int]] = ..., target: _Optional[int] = ..., step: _Optional[_Union[Move.Step, str]] = ..., failed_switches: _Optional[int] = ..., copies: _Optional[_Iterable[_Union[Move.Copy, _Mapping]]] = ..., waits_for: _Optional[_Iterable[int]] = ...) -> None: ...

class AdviceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AdviceResponse(_message.Message):
    __slots__ = ("header", "mode", "action", "text", "shard", "target", "key", "range_end", "share", "for_s", "holds", "last", "stopped", "shards", "hosts")
    class Shard(_message.Message):
        __slots__ = ("shard", "leader", "cpu", "rate", "live_bytes", "hottest_key", "hottest_share")
        SHARD_FIELD_NUMBER: _ClassVar[int]
        LEADER_FIELD_NUMBER: _ClassVar[int]
        CPU_FIELD_NUMBER: _ClassVar[int]
        RATE_FIELD_NUMBER: _ClassVar[int]
        LIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
        HOTTEST_KEY_FIELD_NUMBER: _ClassVar[int]
        HOTTEST_SHARE_FIELD_NUMBER: _ClassVar[int]
        shard: int
        leader: int
        cpu: float
        rate: float
        live_bytes: int
        hottest_key: bytes
        hottest_share: float
        def __init__(self, shard: _Optional[int] = ..., leader: _Optional[int] = ..., cpu: _Optional[float] = ..., rate: _Optional[float] = ..., live_bytes: _Optional[int] = ..., hottest_key: _Optional[bytes] = ..., hottest_share: _Optional[float] = ...) -> None: ...
    class Host(_message.Message):
        __slots__ = ("member", "name", "tells", "cpus", "free_cpus", "free_disk")
        MEMBER_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        TELLS_FIELD_NUMBER: _ClassVar[int]
        CPUS_FIELD_NUMBER: _ClassVar[int]
        FREE_CPUS_FIELD_NUMBER: _ClassVar[int]
        FREE_DISK_FIELD_NUMBER: _ClassVar[int]
        member: int
        name: str
        tells: bool
        cpus: float
        free_cpus: float
        free_disk: float
        def __init__(self, member: _Optional[int] = ..., name: _Optional[str] = ..., tells: _Optional[bool] = ..., cpus: _Optional[float] = ..., free_cpus: _Optional[float] = ..., free_disk: _Optional[float] = ...) -> None: ...
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    mode: str
    action: str
    text: str
    shard: int
    target: int
    key: bytes
    range_end: bytes
    share: float
    for_s: float
    holds: _containers.RepeatedScalarFieldContainer[str]
    last: str
    stopped: str
    shards: _containers.RepeatedCompositeFieldContainer[AdviceResponse.Shard]
    hosts: _containers.RepeatedCompositeFieldContainer[AdviceResponse.Host]
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., mode: _Optional[str] = ..., action: _Optional[str] = ..., text: _Optional[str] = ..., shard: _Optional[int] = ..., target: _Optional[int] = ..., key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., share: _Optional[float] = ..., for_s: _Optional[float] = ..., holds: _Optional[_Iterable[str]] = ..., last: _Optional[str] = ..., stopped: _Optional[str] = ..., shards: _Optional[_Iterable[_Union[AdviceResponse.Shard, _Mapping]]] = ..., hosts: _Optional[_Iterable[_Union[AdviceResponse.Host, _Mapping]]] = ...) -> None: ...
