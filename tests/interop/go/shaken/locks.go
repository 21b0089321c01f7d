package shaken

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// mutex: one holder at a time, who is the owner by the store's word too; a counter under another base counts the
// holders without a gap.
func (r *run) mutex() {
	holders := make([]atomic.Int64, len(r.bases))
	for i := 0; i < 3; i++ {
		r.worker(fmt.Sprintf("mutex %d", i), func(number int, client *clientv3.Client) {
			place := number % len(r.bases)
			var lock *concurrency.Mutex
			session := r.holding("lock", client, func(ctx context.Context, session *concurrency.Session) error {
				lock = concurrency.NewMutex(session, r.base(number)+"mutex")
				return lock.Lock(ctx)
			})
			must(holders[place].Add(1) == 1, "two hold the mutex of %s", r.base(number))
			alive(session)
			r.count(client, lock.IsOwner(), r.base(number+1)+"held"+strconv.Itoa(place))
			holders[place].Add(-1)
			r.unlock(client, lock.Key(), session)
		})
	}
}

// holding calls until it succeeds, each time with a session of its own: a failed attempt, and what it does to
// tidy up, may take effect later, and must not meet the next one's key.
func (r *run) holding(
	what string, client *clientv3.Client, call func(context.Context, *concurrency.Session) error,
) (session *concurrency.Session) {
	r.insist(what, func(ctx context.Context) error {
		if session != nil {
			r.end(client, session)
		}
		session = r.session(client)
		return call(ctx, session)
	})
	return session
}

func (r *run) unlock(client *clientv3.Client, key string, session *concurrency.Session) {
	r.insist("unlock", func(ctx context.Context) error {
		_, err := client.Delete(ctx, key)
		return err
	})
	r.end(client, session)
}

// sessions: one that lives as long as its client.
func (r *run) sessions() {
	var session *concurrency.Session
	r.worker("session", func(_ int, client *clientv3.Client) {
		if session == nil {
			session = r.session(client)
		}
		r.insist("time to live", func(ctx context.Context) error {
			left, err := client.TimeToLive(ctx, session.Lease())
			must(err != nil || left.TTL > 0, "a session's lease is gone though its client lives")
			return err
		})
		alive(session)
		time.Sleep(100 * time.Millisecond)
	})
}

// count adds one to a key, once, for the owner.
func (r *run) count(client *clientv3.Client, owner clientv3.Cmp, key string) {
	var version int64
	r.insist("get", func(ctx context.Context) error {
		found, err := client.Get(ctx, key)
		if err == nil && len(found.Kvs) > 0 {
			version = found.Kvs[0].Version
			must(string(found.Kvs[0].Value) == strconv.FormatInt(version, 10), "%v was counted twice, or not", found.Kvs[0])
		}
		return err
	})
	wanted, tries := strconv.FormatInt(version+1, 10), 0
	r.insist("count", func(ctx context.Context) error {
		tries++
		resp, err := client.Txn(ctx).
			If(owner, clientv3.Compare(clientv3.Version(key), "=", version)).
			Then(clientv3.OpPut(key, wanted)).
			Else(clientv3.OpGet(key)).Commit()
		if err != nil || resp.Succeeded {
			return err
		}
		kvs := resp.Responses[0].GetResponseRange().Kvs
		done := tries > 1 && len(kvs) == 1 && kvs[0].Version == version+1 // by an attempt whose answer was lost
		must(done, "the holder is not the owner, or another one counts: %v after %d", kvs, version)
		return nil
	})
}

// rwMutex: readers together, a writer alone.
func (r *run) rwMutex() {
	type state struct{ readers, writers atomic.Int64 }
	states := make([]state, len(r.bases))
	round := func(client *clientv3.Client, number int, writes bool) {
		now := &states[number%len(r.bases)]
		session := r.holding("read or write lock", client, func(_ context.Context, session *concurrency.Session) error {
			lock := recipe.NewRWMutex(session, r.base(number)+"rw")
			if writes {
				return lock.Lock()
			}
			return lock.RLock()
		})
		if writes {
			must(now.writers.Add(1) == 1 && now.readers.Load() == 0, "a writer of %s is not alone", r.base(number))
		} else {
			now.readers.Add(1)
			must(now.writers.Load() == 0, "a reader of %s beside a writer", r.base(number))
		}
		time.Sleep(5 * time.Millisecond)
		alive(session)
		if writes {
			now.writers.Add(-1)
		} else {
			now.readers.Add(-1)
		}
		r.end(client, session)
	}
	for i := 0; i < 3; i++ {
		writes := i == 0
		r.worker(fmt.Sprintf("rwmutex %d", i), func(number int, client *clientv3.Client) { round(client, number, writes) })
	}
}

// election: one leader at a time, whom the others see; its proclamations are fenced by its key.
func (r *run) election() {
	leaders := make([]atomic.Int64, len(r.bases))
	for i := 0; i < 3; i++ {
		name := fmt.Sprintf("candidate %d", i)
		r.worker("election "+strconv.Itoa(i), func(number int, client *clientv3.Client) {
			place := number % len(r.bases)
			var election *concurrency.Election
			session := r.holding("campaign", client, func(ctx context.Context, session *concurrency.Session) error {
				election = concurrency.NewElection(session, r.base(number)+"election")
				return election.Campaign(ctx, name)
			})
			must(leaders[place].Add(1) == 1, "two lead the election of %s", r.base(number))
			alive(session)
			r.insist("leader", func(ctx context.Context) error {
				resp, err := election.Leader(ctx)
				must(err != concurrency.ErrElectionNoLeader, "the leader is not seen")
				if err == nil {
					must(string(resp.Kvs[0].Value) == name, "%s leads, not %s", resp.Kvs[0].Value, name)
				}
				return err
			})
			owner := clientv3.Compare(clientv3.CreateRevision(election.Key()), "=", election.Rev())
			r.count(client, owner, r.base(number+2)+"led"+strconv.Itoa(place))
			leaders[place].Add(-1)
			r.unlock(client, election.Key(), session)
		})
	}
}

// barrier: nobody passes before it is released, all do after.
func (r *run) barrier() {
	const waiters = 2
	r.worker("barrier", func(number int, client *clientv3.Client) {
		key := fmt.Sprintf("%sbarrier%d", r.base(number), number)
		tries := 0
		r.insist("hold", func(context.Context) error {
			tries++
			err := recipe.NewBarrier(client, key).Hold()
			if err == recipe.ErrKeyExists && tries > 1 {
				return nil // by an attempt whose answer was lost
			}
			return err
		})
		var released atomic.Bool
		passed := make(chan bool, waiters)
		for i := 0; i < waiters; i++ {
			go func() {
				r.insist("wait", func(context.Context) error { return pass(client, key) })
				passed <- released.Load()
			}()
		}
		time.Sleep(50 * time.Millisecond)
		released.Store(true) // before the request: it may take effect long before its answer
		r.insist("release", func(context.Context) error { return recipe.NewBarrier(client, key).Release() })
		for i := 0; i < waiters; i++ {
			select {
			case after := <-passed:
				must(after, "a barrier did not hold")
			case <-time.After(patience):
				must(false, "nobody passes the barrier that was released")
			}
		}
	})
}

// pass waits for a barrier's release. That of clientv3 3.5 waits for the put first, which it does not see where another
// key was written between Hold and its Get (mended in 3.6).
func pass(client *clientv3.Client, key string) error {
	if !strings.HasPrefix(version.Version, "3.5.") {
		return recipe.NewBarrier(client, key).Wait()
	}
	found, err := client.Get(context.Background(), key)
	if err != nil || len(found.Kvs) == 0 {
		return err
	}
	_, err = recipe.WaitEvents(client, key, found.Header.Revision+1, []mvccpb.Event_EventType{mvccpb.DELETE})
	return err
}
