from cluster.pb import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
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
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: int
    def __init__(self, shard: _Optional[int] = ...) -> None: ...

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
