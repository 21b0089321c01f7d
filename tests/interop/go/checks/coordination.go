package checks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func init() {
	checks["mutex"] = mutex
	checks["mutex-of-a-dead-session"] = mutexOfTheDead
	checks["election"] = election
	checks["stm"] = stm
	checks["recipes"] = recipes
}

// together runs workers at once, each at a host of its own, and fails with the first that failed.
func together(e *env, n int, work func(worker int, client *clientv3.Client) error) {
	failures := make(chan error, n)
	for i := 0; i < n; i++ {
		client := dial(e.endpoints[i%len(e.endpoints)])
		defer client.Close()
		go func(worker int) { failures <- work(worker, client) }(i)
	}
	for i := 0; i < n; i++ {
		select {
		case err := <-failures:
			done(err, "a worker")
		case <-e.ctx.Done():
			fail("%d of %d workers never finished", n-i, n)
		}
	}
}

func (e *env) session(client *clientv3.Client, ttl int) *concurrency.Session {
	return ok(concurrency.NewSession(client, concurrency.WithTTL(ttl), concurrency.WithContext(e.ctx)))("session")
}

func mutex(e *env) {
	var holders, rounds atomic.Int64
	together(e, 6, func(_ int, client *clientv3.Client) error {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
		if err != nil {
			return err
		}
		defer session.Close()
		lock := concurrency.NewMutex(session, e.key("lock"))
		for i := 0; i < 5; i++ {
			if err := lock.Lock(e.ctx); err != nil {
				return err
			}
			if now := holders.Add(1); now != 1 {
				return fmt.Errorf("%d hold the lock at once", now)
			}
			owned, err := client.Txn(e.ctx).If(lock.IsOwner()).Then(clientv3.OpPut(e.key("guarded"), "")).Commit()
			if err != nil {
				return err
			}
			if !owned.Succeeded {
				return errors.New("the holder is not the owner")
			}
			holders.Add(-1)
			rounds.Add(1)
			if err := lock.Unlock(e.ctx); err != nil {
				return err
			}
		}
		return nil
	})
	equal(rounds.Load(), 30, "times the lock was held")

	first, second := e.session(e.client, 30), e.session(e.client, 30)
	defer first.Close()
	defer second.Close()
	held, tried := concurrency.NewMutex(first, e.key("try")), concurrency.NewMutex(second, e.key("try"))
	done(held.TryLock(e.ctx), "try of a free lock")
	err := tried.TryLock(e.ctx)
	refused(err, concurrency.ErrLocked, "try of a held lock")
	done(held.Unlock(e.ctx), "unlock")
	done(tried.TryLock(e.ctx), "try of the lock that was given back")
}

func mutexOfTheDead(e *env) {
	dying := e.session(dial(e.endpoints[0]), 2)
	done(concurrency.NewMutex(dying, e.key("lock")).Lock(e.ctx), "lock")
	dying.Orphan() // as if its process had been killed: no more keep-alives
	waiting := e.session(e.client, 30)
	defer waiting.Close()
	begin := time.Now()
	done(concurrency.NewMutex(waiting, e.key("lock")).Lock(e.ctx), "lock of a dead holder")
	must(time.Since(begin) < 5*time.Second, "the lock of a session of 2 s came free after %v", time.Since(begin))
}

func election(e *env) {
	first, second := e.session(dial(e.endpoints[0]), 30), e.session(dial(e.endpoints[len(e.endpoints)-1]), 30)
	one, two := concurrency.NewElection(first, e.key("e")), concurrency.NewElection(second, e.key("e"))
	_, err := two.Leader(e.ctx)
	refused(err, concurrency.ErrElectionNoLeader, "leader of an election without candidates")
	done(one.Campaign(e.ctx, "one"), "campaign")
	observed := concurrency.NewElection(e.session(e.client, 30), e.key("e")).Observe(e.ctx)
	seen := func(expected string) {
		select {
		case resp, open := <-observed:
			must(open, "the observation ended before %s", expected)
			equal(string(resp.Kvs[0].Value), expected, "observed")
		case <-e.ctx.Done():
			fail("%s was never observed", expected)
		}
	}
	seen("one")
	done(one.Proclaim(e.ctx, "one again"), "proclaim")
	seen("one again")
	elected := make(chan error, 1)
	go func() { elected <- two.Campaign(e.ctx, "two") }()
	select {
	case <-elected:
		fail("two leaders at once")
	case <-time.After(300 * time.Millisecond):
	}
	done(one.Resign(e.ctx), "resign")
	done(<-elected, "campaign of the second")
	seen("two")
	equal(string(ok(two.Leader(e.ctx))("leader").Kvs[0].Value), "two", "leader")
	done(second.Close(), "end of the second's session")
	_, err = one.Leader(e.ctx)
	refused(err, concurrency.ErrElectionNoLeader, "leader after the last one's session")
}

func stm(e *env) {
	const accounts, total = 5, 500
	account := func(i int) string { return e.key(fmt.Sprint("account/", i)) }
	for i := 0; i < accounts; i++ {
		ok(e.client.Put(e.ctx, account(i), "100"))("put")
	}
	e.settle("account/0")
	levels := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads}
	together(e, 6, func(worker int, client *clientv3.Client) error {
		for round := 0; round < 10; round++ {
			from, to := account((worker+round)%accounts), account((worker*3+round*2+1)%accounts)
			if from == to {
				continue
			}
			_, err := concurrency.NewSTM(client, func(s concurrency.STM) error {
				f, err1 := strconv.Atoi(s.Get(from))
				t, err2 := strconv.Atoi(s.Get(to))
				if err := errors.Join(err1, err2); err != nil {
					return err
				}
				s.Put(from, strconv.Itoa(f-7))
				s.Put(to, strconv.Itoa(t+7))
				return nil
			}, concurrency.WithIsolation(levels[worker%len(levels)]), concurrency.WithAbortContext(e.ctx))
			if err != nil {
				return err
			}
		}
		return nil
	})
	sum := 0
	for _, kv := range e.get("account/", clientv3.WithPrefix()).Kvs {
		sum += ok(strconv.Atoi(string(kv.Value)))("a balance")
	}
	equal(sum, total, "sum of all accounts")
}

func recipes(e *env) {
	queue := recipe.NewQueue(e.client, e.key("queue"))
	taken := make(chan string, 10)
	var all sync.WaitGroup
	for i := 0; i < 2; i++ {
		client := dial(e.endpoints[i%len(e.endpoints)])
		defer client.Close()
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < 5; j++ {
				value, err := recipe.NewQueue(client, e.key("queue")).Dequeue()
				if err != nil {
					value = err.Error()
				}
				taken <- value
			}
		}()
	}
	for i := 0; i < 10; i++ {
		done(queue.Enqueue(fmt.Sprint(i)), "enqueue")
	}
	all.Wait()
	found := map[string]bool{}
	for i := 0; i < 10; i++ {
		found[<-taken] = true
	}
	for i := 0; i < 10; i++ {
		must(found[fmt.Sprint(i)], "%d was never taken from the queue: %v", i, found)
	}

	priority := recipe.NewPriorityQueue(e.client, e.key("priority"))
	done(priority.Enqueue("late", 9), "enqueue")
	done(priority.Enqueue("soon", 1), "enqueue")
	equal(ok(priority.Dequeue())("dequeue"), "soon", "first of the priority queue")
	equal(ok(priority.Dequeue())("dequeue"), "late", "second of the priority queue")

	barrier := recipe.NewBarrier(e.client, e.key("barrier"))
	done(barrier.Hold(), "hold")
	passed := make(chan error, 1)
	go func() { passed <- recipe.NewBarrier(e.client, e.key("barrier")).Wait() }()
	select {
	case <-passed:
		fail("the barrier did not hold")
	case <-time.After(200 * time.Millisecond):
	}
	done(barrier.Release(), "release")
	done(<-passed, "wait for the barrier")

	var inside atomic.Int64
	together(e, 3, func(_ int, client *clientv3.Client) error {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(30), concurrency.WithContext(context.Background()))
		if err != nil {
			return err
		}
		defer session.Close()
		double := recipe.NewDoubleBarrier(session, e.key("double"), 3)
		inside.Add(1)
		if err := double.Enter(); err != nil {
			return err
		}
		if n := inside.Load(); n != 3 {
			return fmt.Errorf("entered a barrier of 3 when %d had come", n)
		}
		return double.Leave()
	})

	reader, writer := e.session(e.client, 30), e.session(e.client, 30)
	defer reader.Close()
	defer writer.Close()
	shared, exclusive := recipe.NewRWMutex(reader, e.key("rw")), recipe.NewRWMutex(writer, e.key("rw"))
	done(shared.RLock(), "read lock")
	locked := make(chan error, 1)
	go func() { locked <- exclusive.Lock() }()
	select {
	case <-locked:
		fail("a write lock beside a read lock")
	case <-time.After(200 * time.Millisecond):
	}
	done(shared.RUnlock(), "read unlock")
	done(<-locked, "write lock")
	done(exclusive.Unlock(), "write unlock")
}
