// failover uses all hosts while one of them is killed: it writes, watches, keeps a lock and a lease, and
// checks that nothing acknowledged is lost, nothing comes twice and everything goes on.
//
// It prints "running" once all of it runs; a line on stdin then tells it that the host was killed.
package failover

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

const (
	before = 50
	after  = 100
	limit  = 45 * time.Second
	wait   = 15 * time.Second // the longest that one write may take, all its attempts together
)

// Main is the program.
func Main() {
	log.SetFlags(log.Lmicroseconds)
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	apart := flag.Bool("apart", false, "each key in a directory of its own")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
	check(err, "dial")
	key := fmt.Sprintf("/failover/%d/", time.Now().UnixNano())
	if *apart {
		key = strings.ReplaceAll(key, "/", "-")
	}

	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	check(err, "session")
	lock := concurrency.NewMutex(session, key+"lock")
	check(lock.Lock(ctx), "lock")

	events := make(chan int, 100_000)
	go follow(ctx, client, key+"counter", lock.Header().Revision+1, events)

	killed := make(chan struct{})
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		close(killed)
	}()
	slowest, failed, n := time.Duration(0), 0, 0
	for left := after; left > 0; n++ {
		select {
		case <-killed:
			left--
		default:
			time.Sleep(5 * time.Millisecond)
		}
		begin := time.Now()
		failed += write(ctx, client, key+"counter", n)
		slowest = max(slowest, time.Since(begin))
		if n == before {
			fmt.Println("running")
		}
	}

	found, err := client.Get(ctx, key+"counter")
	check(err, "get")
	kv := found.Kvs[0]
	if string(kv.Value) != strconv.Itoa(n-1) || kv.Version != int64(n) {
		log.Fatalf("after %d writes: value %s, version %d", n, kv.Value, kv.Version)
	}
	for i := 0; i < n; i++ {
		select {
		case value := <-events:
			if value != i {
				log.Fatalf("the watch delivered value %d where %d was due", value, i)
			}
		case <-ctx.Done():
			log.Fatalf("the watch stopped before value %d of %d", i, n)
		}
	}
	select {
	case <-session.Done():
		log.Fatal("the session died though its client lived")
	default:
	}
	owned, err := client.Txn(ctx).If(lock.IsOwner()).Commit()
	check(err, "owner of the lock")
	if !owned.Succeeded {
		log.Fatal("the lock was lost though its session lived")
	}
	check(lock.Unlock(ctx), "unlock")
	fmt.Printf("%d writes, %d failed attempts, the slowest took %v\n", n, failed, slowest.Round(time.Millisecond))
}

// write makes a value the next version of the key, once, however many attempts that takes: an attempt whose
// fate nobody told may have been the one that did it, even later. It tells how many attempts failed.
func write(ctx context.Context, client *clientv3.Client, key string, value int) (failed int) {
	deadline := time.Now().Add(wait)
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := client.Txn(attempt).
			If(clientv3.Compare(clientv3.Version(key), "=", value)).
			Then(clientv3.OpPut(key, strconv.Itoa(value))).
			Else(clientv3.OpGet(key)).Commit()
		cancel()
		if err == nil {
			if !resp.Succeeded {
				kvs := resp.Responses[0].GetResponseRange().Kvs
				if failed == 0 || len(kvs) != 1 || kvs[0].Version != int64(value+1) {
					log.Fatalf("before write %d, after %d failed attempts, the key is %v", value, failed, kvs)
				}
			}
			return failed
		}
		if time.Now().After(deadline) {
			log.Fatalf("write %d is not acknowledged for %v: %v", value, wait, err)
		}
		failed++
		time.Sleep(20 * time.Millisecond)
	}
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
