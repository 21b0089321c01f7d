package checks

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
)

func init() {
	checks["put-get-delete"] = putGetDelete
	checks["ranges"] = ranges
	checks["txn"] = txn
	checks["every-host-reads-what-was-written"] = everyHost
	checks["compact"] = compact
	checks["namespace"] = inNamespace
	checks["limits"] = limits
}

func putGetDelete(e *env) {
	first := e.put("a", "1")
	must(first.PrevKv == nil, "a put that did not ask for it got a prev_kv")
	second := e.put("a", "2", clientv3.WithPrevKV())
	equal(string(second.PrevKv.Value), "1", "prev_kv of the second put")
	must(second.Header.Revision > first.Header.Revision, "revisions do not grow: %d, %d", first.Header.Revision, second.Header.Revision)
	got := e.get("a")
	equal(got.Count, 1, "count")
	kv := got.Kvs[0]
	equal(string(kv.Value), "2", "value")
	equal(kv.Version, 2, "version")
	equal(kv.CreateRevision, first.Header.Revision, "create_revision")
	equal(kv.ModRevision, second.Header.Revision, "mod_revision")
	equal(string(e.get("a", clientv3.WithRev(first.Header.Revision)).Kvs[0].Value), "1", "value at the first revision")

	e.put("a", "", clientv3.WithIgnoreValue())
	equal(string(e.get("a").Kvs[0].Value), "2", "value after a put that ignores it")
	_, err := e.client.Put(e.ctx, e.key("none"), "", clientv3.WithIgnoreValue())
	refused(err, rpctypes.ErrKeyNotFound, "ignore_value of a key that is not there")
	_, err = e.client.Put(e.ctx, "", "x")
	refused(err, rpctypes.ErrEmptyKey, "a put of no key")

	deleted := ok(e.client.Delete(e.ctx, e.key("a"), clientv3.WithPrevKV()))("delete")
	equal(deleted.Deleted, 1, "deleted")
	equal(string(deleted.PrevKvs[0].Value), "2", "prev_kv of the delete")
	equal(ok(e.client.Delete(e.ctx, e.key("a")))("delete again").Deleted, 0, "deleted by a second delete")
	equal(e.get("a").Count, 0, "count of a deleted key")
}

func ranges(e *env) {
	for i, name := range strings.Fields("c a e b d") {
		e.put(name, fmt.Sprint(9-i))
	}
	all := e.get("", clientv3.WithPrefix())
	equal(e.names(all), "a b c d e", "all keys of the prefix")
	equal(all.Count, 5, "count")
	must(!all.More, "more of a whole range")

	some := e.get("", clientv3.WithPrefix(), clientv3.WithLimit(2))
	equal(e.names(some), "a b", "with a limit of 2")
	must(some.More, "no more where a limit cut off")
	equal(some.Count, 5, "count beside a limit")

	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))), "e d c b a", "keys descending")
	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend))), "c a e b d", "by mod_revision")
	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend), clientv3.WithLimit(2))), "d b", "by value, 2 of them")
	equal(e.names(e.get("b", clientv3.WithRange(e.key("d")))), "b c", "from b to d")
	equal(e.names(e.get("", clientv3.WithFirstCreate()...)), "c", "the first created")
	equal(e.names(e.get("", clientv3.WithLastRev()...)), "d", "the last modified")

	fromKey := e.get("d", clientv3.WithFromKey(), clientv3.WithLimit(2))
	equal(e.names(fromKey), "d e", "from a key on")
	keysOnly := e.get("", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	equal(e.names(keysOnly), "a b c d e", "keys only")
	must(len(keysOnly.Kvs[0].Value) == 0, "a value where only keys were asked for")
	counted := e.get("", clientv3.WithPrefix(), clientv3.WithCountOnly())
	equal(counted.Count, 5, "count only")
	equal(len(counted.Kvs), 0, "keys beside a count")
	e.put("a", "again")
	last := e.get("a").Kvs[0].ModRevision
	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithMinModRev(last))), "a", "by min_mod_revision")
	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithMaxModRev(last-1))), "b c d e", "by max_mod_revision")
	equal(e.names(e.get("", clientv3.WithPrefix(), clientv3.WithSerializable())), "a b c d e", "serializable, from this very host")

	deleted := ok(e.client.Delete(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV()))("delete of the prefix")
	equal(deleted.Deleted, 5, "deleted")
	equal(len(deleted.PrevKvs), 5, "prev_kvs of the delete")
	equal(e.get("", clientv3.WithPrefix()).Count, 0, "count after the delete")
}

func txn(e *env) {
	create := func(value string) *clientv3.TxnResponse {
		return ok(e.client.Txn(e.ctx).
			If(clientv3.Compare(clientv3.CreateRevision(e.key("lock")), "=", 0)).
			Then(clientv3.OpPut(e.key("lock"), value)).
			Else(clientv3.OpGet(e.key("lock"))).Commit())("create " + value)
	}
	won := create("first")
	must(won.Succeeded, "create of a new key did not succeed")
	lost := create("second")
	must(!lost.Succeeded, "create of a key that is there succeeded")
	equal(string(lost.Responses[0].GetResponseRange().Kvs[0].Value), "first", "what the loser sees")

	kv := e.get("lock").Kvs[0]
	key := e.key("lock")
	all := ok(e.client.Txn(e.ctx).If(
		clientv3.Compare(clientv3.Value(key), "=", "first"), clientv3.Compare(clientv3.Value(key), "<", "firsu"),
		clientv3.Compare(clientv3.Version(key), "=", 1), clientv3.Compare(clientv3.Version(key), "!=", 2),
		clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision), clientv3.Compare(clientv3.ModRevision(key), ">", kv.ModRevision-1),
		clientv3.Compare(clientv3.LeaseValue(key), "=", clientv3.NoLease),
		clientv3.Compare(clientv3.Version(e.prefix).WithPrefix(), ">", 0),
	).Then(
		clientv3.OpPut(e.key("x"), "1"),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(key), "=", 1)},
			[]clientv3.Op{clientv3.OpPut(e.key("y"), "2"), clientv3.OpGet(e.key("y"))}, nil),
		clientv3.OpGet(e.prefix, clientv3.WithPrefix()),
		clientv3.OpDelete(key, clientv3.WithPrevKV()),
	).Commit())("a transaction of all compares")
	must(all.Succeeded, "the compares do not hold")
	equal(len(all.Responses), 4, "responses")
	nested := all.Responses[1].GetResponseTxn()
	must(nested.Succeeded, "the nested compare does not hold")
	equal(string(nested.Responses[1].GetResponseRange().Kvs[0].Value), "2", "what the nested get sees")
	equal(all.Responses[2].GetResponseRange().Count, 3, "what a get after the puts sees")
	equal(string(all.Responses[3].GetResponseDeleteRange().PrevKvs[0].Value), "first", "prev_kv of the delete")
	x, y := e.get("x").Kvs[0], e.get("y").Kvs[0]
	equal(x.ModRevision, all.Header.Revision, "mod_revision of a put")
	equal(y.ModRevision, x.ModRevision, "one revision for the whole transaction")

	_, err := e.client.Txn(e.ctx).Then(clientv3.OpPut(key, "1"), clientv3.OpPut(key, "2")).Commit()
	refused(err, rpctypes.ErrDuplicateKey, "two puts of a key")
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpPut(e.key(fmt.Sprint(i)), "")
	}
	_, err = e.client.Txn(e.ctx).Then(many...).Commit()
	refused(err, rpctypes.ErrTooManyOps, "129 operations")
	must(ok(e.client.Txn(e.ctx).Then(many[:128]...).Commit())("128 operations").Succeeded, "128 operations did not succeed")
}

func everyHost(e *env) {
	hosts := make([]*clientv3.Client, len(e.endpoints))
	for i, endpoint := range e.endpoints {
		hosts[i] = dial(endpoint)
		defer hosts[i].Close()
	}
	for i := 0; i < 30; i++ {
		value := fmt.Sprint(i)
		ok(hosts[i%len(hosts)].Put(e.ctx, e.key("k"), value))("put")
		for h, host := range hosts {
			found := ok(host.Get(e.ctx, e.key("k")))("get")
			equal(string(found.Kvs[0].Value), value, fmt.Sprintf("linearizable read at host %d of write %d", h, i))
		}
	}
}

func compact(e *env) {
	first := e.put("k", "1").Header.Revision
	second := e.put("k", "2").Header.Revision
	_, err := e.client.Get(e.ctx, e.key("k"), clientv3.WithRev(second+100000))
	refused(err, rpctypes.ErrFutureRev, "a read in the future")
	ok(e.client.Compact(e.ctx, second, clientv3.WithCompactPhysical()))("compact")
	for _, endpoint := range e.endpoints { // an acknowledged compaction holds on every host
		host := dial(endpoint)
		_, err = host.Get(e.ctx, e.key("k"), clientv3.WithRev(first))
		refused(err, rpctypes.ErrCompacted, "a read below the compaction at "+endpoint)
		found := ok(host.Get(e.ctx, e.key("k"), clientv3.WithRev(second)))("a read at the compaction at " + endpoint)
		equal(string(found.Kvs[0].Value), "2", "value at the compaction")
		host.Close()
	}
	_, err = e.client.Compact(e.ctx, second)
	refused(err, rpctypes.ErrCompacted, "the same compaction again")
	_, err = e.client.Compact(e.ctx, second+100000)
	refused(err, rpctypes.ErrFutureRev, "a compaction in the future")
	resp, open := <-e.client.Watch(e.ctx, e.key("k"), clientv3.WithRev(first))
	must(open, "a watch from a compacted revision ended without a word")
	refused(resp.Err(), rpctypes.ErrCompacted, "a watch from a compacted revision")
	must(resp.CompactRevision >= second, "compact_revision %d, expected at least %d", resp.CompactRevision, second)
}

func inNamespace(e *env) {
	kv := namespace.NewKV(e.client.KV, e.prefix)
	watch := namespace.NewWatcher(e.client.Watcher, e.prefix).Watch(e.ctx, "in/", clientv3.WithPrefix())
	ok(kv.Put(e.ctx, "in/a", "1"))("put")
	ok(kv.Txn(e.ctx).Then(clientv3.OpPut("in/b", "2")).Commit())("txn")
	equal(string(e.get("in/a").Kvs[0].Value), "1", "the key outside of its namespace")
	found := ok(kv.Get(e.ctx, "in/", clientv3.WithPrefix()))("get")
	equal(string(found.Kvs[1].Key), "in/b", "the key inside its namespace")
	for _, expected := range []string{"in/a", "in/b"} {
		equal(string((<-watch).Events[0].Kv.Key), expected, "the watched key")
	}
}

func limits(e *env) {
	big := strings.Repeat("x", 1<<20)
	e.put("big", big)
	equal(len(e.get("big").Kvs[0].Value), len(big), "size of a value of 1 MiB")
	_, err := e.client.Put(e.ctx, e.key("huge"), strings.Repeat("x", 1600*1024))
	refused(err, rpctypes.ErrRequestTooLarge, "a put of 1600 KiB")
	for i := 0; i < 6; i++ {
		e.put(fmt.Sprintf("many/%d", i), big)
	}
	equal(len(e.get("many/", clientv3.WithPrefix()).Kvs), 6, "values in an answer of 6 MiB")
	ok(e.client.Delete(e.ctx, e.prefix, clientv3.WithPrefix()))("delete")
}
