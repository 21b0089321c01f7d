"""I16 under random interleavings: writes, slow nodes, late history, lost links, snapshots, slow clients,
watches that come and go, users that change. Per watch: every matching event from its start, once, in order,
each revision whole."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.watch.stream import WatchStream
from tests.unit.proxy.watch.watching import Client, World, in_range

RANGES = [(b"a", b""), (b"b", b""), (b"a", b"c"), (b"\0", b"\0"), (b"b", b"\0")]
KEYS = [b"a", b"ab", b"b", b"c"]


@dataclass
class Made:
    """A watch and what it must get: events of revision > ``after``, up to ``until`` if it was cancelled."""

    client: Client
    watch_id: int
    key: bytes
    end: bytes
    filters: int
    after: int
    cancelled: bool = False


class Race:
    """One random run."""

    def __init__(self, random: Random, shards: int = 1) -> None:
        self.random = random
        self.shards = shards
        self.world = World(shards=shards)
        self.clients = [Client(self.world) for _ in range(3)]
        self.made: list[Made] = []
        hub = self.world.net.context.hub
        hub.room.limit_bytes = random.choice((0, 600, 6000, 1 << 20))
        hub.rings.limit_bytes = random.choice((0, 100, 1000, 1 << 20))
        for source in self.world.every.values():
            source.slice_events = random.choice((1, 2, 5))
            source.at_once = lambda: random.choice((1, 2, 5))

    def step(self) -> None:
        random, world, net = self.random, self.world, self.world.net
        member = random.choice((1, 1, 1, 2, 3))
        shard = random.randrange(self.shards)
        source = world.every[shard, member]
        alive = source.node.alive
        action = random.choices(
            ("write", "apply", "serve", "late", "run", "create", "cancel", "block", "read", "cut", "restart",
             "install", "time", "sip", "begin", "alone", "users"),
            (8, 8, 6, 5, 8, 4, 1, 1, 2, 1, 2, 1, 1, 3, 2, 1, 2))[0]
        if action == "write":
            keys = random.sample(KEYS, random.choice((1, 1, 2, 3)))
            world.store.write(*[(random.choice((0, 0, 1)), k) for k in keys])
        elif action == "apply" and alive and source.node.revision < world.store.revision:
            source.apply(random.randint(source.node.revision + 1, world.store.revision))
        elif action == "begin" and alive and not source.begun and source.node.revision < world.store.revision:
            source.begin(random.randint(source.node.revision + 1, world.store.revision))
        elif action == "serve" and alive:
            source.serve()
        elif action == "late" and alive:
            source.send_late()
        elif action == "run":
            net.run()
        elif action == "create" and len(self.made) < 16:
            client, (key, end) = random.choice(self.clients), random.choice(RANGES)
            start = random.choice((0, 0, 1, random.randint(1, world.store.revision + 5)))
            filters = random.choice(([], [], [0], [1]))
            for _ in range(random.choice((1, 1, 4))):
                self.create(client, key, end, start, filters)
        elif action == "cancel" and self.made:
            made = random.choice(self.made)
            if not made.cancelled:
                made.cancelled = True
                made.client.cancel(made.watch_id)
        elif action == "block":
            call = random.choice(self.clients).call
            call.reads = False
            # at once, or in the midst of many
            call.unread = random.choice((2 << 20, (1 << 20) - 70, (1 << 20) - 1000))
        elif action == "read":
            random.choice(self.clients).call.read_all()
        elif action == "sip":  # a blocked client reads enough for a few responses
            call = random.choice(self.clients).call
            if not call.reads and call.on_drain is not None:
                call.unread = (1 << 20) - random.choice((1, 100, 300))
                call.on_drain()
        elif action == "cut" and alive:
            world.cut(member, shard)
        elif action == "restart" and not source.node.up:
            # a node that lost what it had not flushed applies it again
            world.restart(member, random.randint(1, source.node.revision), shard)
        elif action == "install" and alive:
            source.install(random.randint(source.node.revision, world.store.revision))
        elif action == "time":
            net.pass_time(random.choice((0.2, 0.2, 2.5)))
        elif action == "alone":  # a node loses its leader, or finds it again
            source.node.leader = random.choice((0, 2))
        elif action == "users":  # they have changed: nobody gets anything before a node has judged
            world.net.context.hub.permissions.changed()

    def create(self, client: Client, key: bytes, end: bytes, start: int, filters: list[int]) -> None:
        before = len(client.responses())
        client.create(key, end, start=start, filters=filters)
        created = [r for r in client.responses()[before:] if r.created]
        if not created:
            return  # no node has been heard at all; the request waits, and is not part of this test
        after = start - 1 if start else created[0].header.revision
        bits = sum(1 << f for f in filters)
        self.made.append(Made(client, created[0].watch_id, key, end, bits, after))

    def finish(self) -> None:
        world = self.world
        for client in self.clients:
            client.call.read_all()
        for (shard, member), source in world.every.items():
            source.node.leader = 2
            if not source.node.up:
                world.restart(member, shard=shard)
        for _ in range(10):
            due, world.net.loop.later = world.net.loop.later, []
            for callback in due:
                callback()
            world.net.pass_time(0.3)
            world.settle()
        world.write((0, b"a"), (0, b"b"), (0, b"c"))
        for _ in range(3):
            world.net.pass_time(0.3)
            world.settle()

    def check(self) -> None:
        for made in self.made:
            want = [
                (revision, kind, key) for revision, kind, key, _ in self.world.store.events
                if revision > made.after and in_range(key, made.key, made.end)
                and not made.filters & (2 if kind else 1)
            ]
            got = made.client.events(made.watch_id)
            if made.cancelled:
                want = want[: len(got)]
                if got:  # the last revision is whole
                    after = [e for e in self.world.store.events if e[0] == got[-1][0]
                             and in_range(e[2], made.key, made.end) and not made.filters & (2 if e[1] else 1)]
                    assert got[-len(after):] == [e[:3] for e in after]
            assert got == want, made
            for response in made.client.responses():
                if response.watch_id == made.watch_id and response.events:
                    assert response.header.revision >= response.events[-1].kv.mod_revision
        for client in self.clients:
            self.check_created_first(client)
            self.check_headers(client)
        hub = self.world.net.context.hub
        assert (hub.room.held_bytes, hub.rings.held_bytes, hub.rings.held_events) == (0, 0, 0)

    def check_created_first(self, client: Client) -> None:
        created: set[int] = set()
        for response in client.responses():
            if response.created:
                created.add(response.watch_id)
            else:
                assert response.watch_id in created

    def check_headers(self, client: Client) -> None:
        """A watch's never go back from events to events."""
        told: dict[int, int] = {}
        for response in client.responses():
            if response.events:
                assert response.header.revision >= told.get(response.watch_id, 0), response
                told[response.watch_id] = response.header.revision


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((1, 1, 2, 3)))
def test_i16_every_watch_gets_every_event_once_in_order_whatever_happens(seed: int, shards: int) -> None:
    race = Race(Random(seed), shards)
    with (patch("proxy.watch.cohort.DIRECT_BYTES", race.random.choice((1, 200, 16_384))),  # watches at once
          patch("proxy.watch.subscription._RESPONSE_BYTES", race.random.choice((1, 100, 16_384))),  # events
          patch("proxy.watch.parts._HELD_BYTES", race.random.choice((600, 6000, 1 << 20)))):
        for _ in range(race.random.choice((30, 100, 200))):
            race.step()
    race.finish()
    race.check()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((1, 3)))
def test_progress_is_never_given_before_the_events_that_it_covers_nor_older_than_what_was_told(
    seed: int, shards: int
) -> None:
    """And each request has an answer, unless the stream has no watch then, or one that begins later than what
    the request is owed."""
    race = Race(Random(seed), shards)
    client, due = race.clients[0], race.world.net.context.hub._progress._due
    router = race.world.net.router
    owed: list[int] = []
    seen = 0
    tell = WatchStream.tell_progress

    def told(stream: WatchStream, least: int) -> int | None:
        waiting = len(due[stream])
        if (revision := tell(stream, least)) is not None and revision <= 0:
            owed[-waiting:] = [one for one in owed[-waiting:] if revision and one > -revision]
        return revision

    def check() -> int:
        responses = client.responses()
        for at in range(seen, len(responses)):
            progress = responses[at]
            if progress.watch_id == -1 and not progress.created:
                assert progress.header.revision >= owed.pop(0)
                _check_covered(race, client, responses[:at], progress.header.revision)
        return len(responses)

    with patch.object(WatchStream, "tell_progress", told):
        for _ in range(120):
            race.step()
            if race.random.random() < 0.2 and not client.call.closed:
                if race.random.random() < 0.5:
                    router.header(race.world.store.revision, 1)  # somebody is told of the last write
                for _ in range(race.random.choice((1, 1, 3))):
                    owed.append(router.highest)
                    client.ask_progress()
                race.world.net.run()
            seen = check()
        race.finish()
        check()
    assert not owed or client.call.closed


def _check_covered(race: Race, client: Client, told: list[Any], revision: int) -> None:
    """Every event up to a revision is among what was told to the watches of a client."""
    for made in race.made:
        if made.client is client and not made.cancelled and any(
                r.created and not r.canceled and r.watch_id == made.watch_id for r in told):
            want = [e[:3] for e in race.world.store.events if made.after < e[0] <= revision
                    and in_range(e[2], made.key, made.end) and not made.filters & (2 if e[1] else 1)]
            got = [(e.kv.mod_revision, e.type, e.kv.key) for r in told if r.watch_id == made.watch_id
                   for e in r.events]
            assert [e for e in got if e[0] <= revision] == want
