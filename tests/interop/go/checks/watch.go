package checks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/mirror"
)

func init() {
	checks["watch"] = watch
	checks["watch-filters"] = watchFilters
	checks["watch-from-old-revision"] = watchOld
	checks["watch-progress"] = watchProgress
	checks["watch-fragments"] = watchFragments
	checks["watch-many"] = watchMany
	checks["mirror"] = mirrored
}

// next is the next response of a watch, which must be a good one.
func next(e *env, responses clientv3.WatchChan, what string) clientv3.WatchResponse {
	select {
	case resp, open := <-responses:
		must(open, "%s: the watch has ended", what)
		done(resp.Err(), what)
		return resp
	case <-e.ctx.Done():
		fail("%s: nothing came", what)
		panic("not reached")
	}
}

// told puts n events of a watch into words.
func told(e *env, responses clientv3.WatchChan, n int) string {
	found := make([]string, 0)
	for len(found) < n {
		for _, event := range next(e, responses, fmt.Sprintf("waiting for event %d of %d, after %v", len(found)+1, n, found)).Events {
			text := fmt.Sprintf("%s %s=%s", event.Type, strings.TrimPrefix(string(event.Kv.Key), e.prefix), event.Kv.Value)
			if event.PrevKv != nil {
				text += " was " + string(event.PrevKv.Value)
			}
			found = append(found, text)
		}
	}
	return strings.Join(found, ", ")
}

func watch(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	responses := e.client.Watch(ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	created := next(e, responses, "created")
	must(created.Created && created.Header.Revision > 0, "the first response is not created: %+v", created)
	e.put("a", "1")
	e.put("a", "2")
	ok(e.client.Txn(e.ctx).Then(clientv3.OpPut(e.key("c"), "3"), clientv3.OpPut(e.key("b"), "4"), clientv3.OpDelete(e.key("a"))).Commit())("txn")
	equal(told(e, responses, 5), "PUT a=1, PUT a=2 was 1, PUT c=3, PUT b=4, DELETE a= was 2", "events")
	cancel()
	for range responses { // ends
	}
	equal(ok(e.client.Get(e.ctx, e.key("b")))("get after a cancelled watch").Count, 1, "count")
}

func watchFilters(e *env) {
	puts := e.client.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
	deletes := e.client.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	one := e.client.Watch(e.ctx, e.key("b"), clientv3.WithCreatedNotify())
	for _, responses := range []clientv3.WatchChan{puts, deletes, one} {
		next(e, responses, "created")
	}
	e.put("a", "1")
	e.put("b", "2")
	ok(e.client.Delete(e.ctx, e.key("a")))("delete")
	e.put("b", "3")
	equal(told(e, puts, 3), "PUT a=1, PUT b=2, PUT b=3", "without deletes")
	equal(told(e, deletes, 1), "DELETE a=", "without puts")
	equal(told(e, one, 2), "PUT b=2, PUT b=3", "of one key")
}

func watchOld(e *env) {
	first := e.put("k", "0").Header.Revision
	for i := 1; i < 200; i++ {
		e.put("k", fmt.Sprint(i))
	}
	for _, endpoint := range e.endpoints {
		host := dial(endpoint)
		responses := host.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithRev(first))
		last, count := int64(0), 0
		for count < 200 {
			for _, event := range next(e, responses, fmt.Sprintf("after %d events", count)).Events {
				must(event.Kv.ModRevision > last, "revision %d after %d", event.Kv.ModRevision, last)
				equal(string(event.Kv.Value), fmt.Sprint(count), "value of the event")
				last = event.Kv.ModRevision
				count++
			}
		}
		host.Close()
	}
	future := e.get("k").Header.Revision + 3
	responses := e.client.Watch(e.ctx, e.key("k"), clientv3.WithRev(future))
	for i := 0; i < 4; i++ {
		e.put("k", "later")
	}
	got := next(e, responses, "a watch from the future").Events[0].Kv.ModRevision
	equal(got, future, "first revision of a watch from the future")
}

func watchProgress(e *env) {
	revision := e.put("a", "1").Header.Revision
	responses := e.client.Watch(e.ctx, e.key("nobody"), clientv3.WithCreatedNotify())
	next(e, responses, "created")
	for {
		done(e.client.RequestProgress(e.ctx), "RequestProgress")
		select {
		case resp, open := <-responses:
			must(open, "the watch has ended")
			must(resp.IsProgressNotify(), "not a progress notification: %+v", resp)
			if resp.Header.Revision >= revision {
				return
			}
		case <-time.After(500 * time.Millisecond):
			must(e.ctx.Err() == nil, "no progress of revision %d came", revision)
		}
	}
}

func watchFragments(e *env) {
	big := strings.Repeat("x", 500_000)
	first := e.put("0", big).Header.Revision
	for i := 1; i < 10; i++ {
		e.put(fmt.Sprint(i), big)
	}
	for _, opts := range [][]clientv3.OpOption{{clientv3.WithFragment()}, {}} {
		responses := e.client.Watch(e.ctx, e.prefix, append(opts, clientv3.WithPrefix(), clientv3.WithRev(first))...)
		for i := 0; i < 10; {
			for _, event := range next(e, responses, fmt.Sprintf("after %d big events", i)).Events {
				equal(string(event.Kv.Key), e.key(fmt.Sprint(i)), "key")
				equal(len(event.Kv.Value), len(big), "size of the value")
				i++
			}
		}
	}
	ok(e.client.Delete(e.ctx, e.prefix, clientv3.WithPrefix()))("delete")
}

func watchMany(e *env) {
	const keys = 300
	var all sync.WaitGroup
	failures := make(chan string, keys)
	ready := make(chan struct{}, keys)
	for i := 0; i < keys; i++ {
		all.Add(1)
		go func(key string) {
			defer all.Done()
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			responses := e.client.Watch(ctx, key, clientv3.WithCreatedNotify())
			<-responses
			ready <- struct{}{}
			resp, open := <-responses
			if !open || resp.Err() != nil || len(resp.Events) != 1 || string(resp.Events[0].Kv.Key) != key {
				failures <- fmt.Sprintf("watch of %s: open %v, %v, %+v", key, open, resp.Err(), resp)
			}
		}(e.key(fmt.Sprint(i)))
	}
	for i := 0; i < keys; i++ {
		<-ready
	}
	for i := 0; i < keys; i++ {
		e.put(fmt.Sprint(i), "v")
	}
	all.Wait()
	close(failures)
	for failure := range failures {
		fail("%s", failure)
	}
}

func mirrored(e *env) {
	for i := 0; i < 5; i++ {
		e.put(fmt.Sprint(i), "base")
	}
	syncer := mirror.NewSyncer(e.client, e.prefix, 0)
	copied := map[string]string{}
	responses, errs := syncer.SyncBase(e.ctx)
	for resp := range responses {
		for _, kv := range resp.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	done(<-errs, "SyncBase")
	updates := syncer.SyncUpdates(e.ctx)
	ok(e.client.Delete(e.ctx, e.key("0")))("delete")
	e.put("1", "new")
	e.put("end", "")
	for copied[e.key("end")] = "missing"; copied[e.key("end")] == "missing"; {
		for _, event := range next(e, updates, "updates").Events {
			if event.Type == mvccpb.DELETE {
				delete(copied, string(event.Kv.Key))
			} else {
				copied[string(event.Kv.Key)] = string(event.Kv.Value)
			}
		}
	}
	equal(len(copied), 5, "keys in the mirror")
	equal(copied[e.key("1")], "new", "a changed key in the mirror")
	equal(copied[e.key("2")], "base", "an unchanged key in the mirror")
}
