// rolling uses all hosts while they are stopped in order and started again, one after the other: no request may fail.
//
// It prints "running" once all of it runs, and "more" each time that every worker has done ten more requests; a line on
// stdin ends it. Workers put, read, and transact over two directories; a watch sees every value once; a lease and a lock live.
package rolling

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	limit   = 300 * time.Second
	attempt = 20 * time.Second // no request may take longer
	workers = 6
)

type worker struct {
	client *clientv3.Client
	one    string
	other  string
	done   atomic.Int64
	rounds int
}

// Main is the program.
func Main() {
	log.SetFlags(log.Lmicroseconds)
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	start := time.Now().UnixNano()
	all := make([]*worker, workers)
	for i := range all {
		client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second})
		check(err, "dial")
		all[i] = &worker{client: client, one: fmt.Sprintf("/r%d/a%d/n", start, i), other: fmt.Sprintf("/r%d/b%d/n", start, i+1)}
	}
	session, err := concurrency.NewSession(all[0].client, concurrency.WithTTL(15))
	check(err, "session")
	lock := concurrency.NewMutex(session, fmt.Sprintf("/r%d/lock", start))
	check(lock.Lock(ctx), "lock")
	events := make(chan int, 1_000_000)
	go follow(ctx, all[1].client, all[0].one, lock.Header().Revision+1, events)

	stop := make(chan struct{})
	ended := make(chan time.Duration, workers)
	for _, w := range all {
		go func() { ended <- w.run(ctx, stop) }()
	}
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		close(stop)
	}()
	said := false
	for goal := int64(10); ; goal += 10 {
		for least(all) < goal {
			select {
			case <-stop:
			case <-ctx.Done():
				log.Fatalf("%d requests of a worker are not done in time", goal)
			case <-time.After(5 * time.Millisecond):
				continue
			}
			break
		}
		select {
		case <-stop:
		default:
			if !said {
				fmt.Println("running")
				said = true
			}
			fmt.Println("more")
			continue
		}
		break
	}
	slowest, requests := time.Duration(0), int64(0)
	for range all {
		slowest = max(slowest, <-ended)
	}
	for _, w := range all {
		requests += w.done.Load()
		found, err := w.client.Get(ctx, w.one)
		check(err, "get")
		if kv := found.Kvs[0]; string(kv.Value) != strconv.Itoa(w.rounds-1) || kv.Version != int64(w.rounds) {
			log.Fatalf("after %d rounds: value %s, version %d", w.rounds, kv.Value, kv.Version)
		}
	}
	for i := 0; i < all[0].rounds; i++ {
		select {
		case value := <-events:
			if value != i {
				log.Fatalf("the watch delivered value %d where %d was due", value, i)
			}
		case <-ctx.Done():
			log.Fatalf("the watch stopped before value %d of %d", i, all[0].rounds)
		}
	}
	select {
	case <-session.Done():
		log.Fatal("the session died though its client lived")
	default:
	}
	check(lock.Unlock(ctx), "unlock")
	fmt.Printf("%d requests, none failed, the slowest took %v\n", requests, slowest.Round(time.Millisecond))
}

// run makes requests until told to stop, and tells how long the slowest took. A failure ends the program.
func (w *worker) run(ctx context.Context, stop <-chan struct{}) (slowest time.Duration) {
	timed := func(what string, call func(context.Context) error) {
		limited, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		begin := time.Now()
		if err := call(limited); err != nil {
			log.Fatalf("FAILED: %s after %v: %v", what, time.Since(begin).Round(time.Millisecond), err)
		}
		slowest = max(slowest, time.Since(begin))
		w.done.Add(1)
	}
	for ; ; w.rounds++ {
		select {
		case <-stop:
			return slowest
		default:
		}
		value := strconv.Itoa(w.rounds)
		timed("txn", func(ctx context.Context) error {
			resp, err := w.client.Txn(ctx).
				If(clientv3.Compare(clientv3.Version(w.one), "=", w.rounds), clientv3.Compare(clientv3.Version(w.other), "=", w.rounds)).
				Then(clientv3.OpPut(w.one, value), clientv3.OpPut(w.other, value)).Commit()
			if err == nil && !resp.Succeeded {
				err = fmt.Errorf("the counters are not at %d", w.rounds)
			}
			return err
		})
		timed("put", func(ctx context.Context) error {
			_, err := w.client.Put(ctx, w.one+"/p", value)
			return err
		})
		timed("get", func(ctx context.Context) error {
			resp, err := w.client.Get(ctx, w.other)
			if err == nil && (len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != value) {
				err = fmt.Errorf("read %v, where %s was written", resp.Kvs, value)
			}
			return err
		})
		timed("delete", func(ctx context.Context) error {
			resp, err := w.client.Delete(ctx, w.one+"/p")
			if err == nil && resp.Deleted != 1 {
				err = fmt.Errorf("deleted %d", resp.Deleted)
			}
			return err
		})
		time.Sleep(5 * time.Millisecond)
	}
}

func least(all []*worker) int64 {
	found := all[0].done.Load()
	for _, w := range all {
		found = min(found, w.done.Load())
	}
	return found
}

func follow(ctx context.Context, client *clientv3.Client, key string, revision int64, events chan<- int) {
	for resp := range client.Watch(ctx, key, clientv3.WithRev(revision)) {
		check(resp.Err(), "watch")
		for _, event := range resp.Events {
			value, err := strconv.Atoi(string(event.Kv.Value))
			check(err, "a watched value")
			events <- value
		}
	}
	if ctx.Err() == nil {
		log.Fatal("the watch has ended")
	}
}

func check(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
