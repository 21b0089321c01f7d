// shaken runs clientv3's concurrency recipes while somebody kills leaders under it, and checks that each keeps what
// it promises: Mutex, RWMutex, Election, Session, STM (SerializableSnapshot), Barrier and Queue.
//
// -bases are prefixes that the caller has chosen so that they lie on different shards. Every worker goes around all
// of them, and what it writes under one base it guards under another, so that transactions span shards.
//
// It prints "running" once every recipe has gone a round; a line on stdin tells it to come to an end. What fails with
// an error whose outcome nobody told is done again in the way that this recipe allows; what breaks a promise
// ends the program with exit code 1.
package shaken

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

const (
	ttl      = 15               // seconds; no election takes so long, so no session may die
	patience = 30 * time.Second // within this, every step succeeds
	attempt  = 8 * time.Second  // of each of its tries
)

type run struct {
	endpoints []string
	bases     []string
	stopping  atomic.Bool
	failures  atomic.Int64
	names     []string
	rounds    []*atomic.Int64
	all       sync.WaitGroup
}

// Main is the program.
func Main() {
	log.SetFlags(log.Lmicroseconds)
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	bases := flag.String("bases", "/a/a/,/b/b/", "")
	flag.Parse()
	r := &run{endpoints: strings.Split(*endpoints, ","), bases: strings.Split(*bases, ",")}
	r.mutex()
	r.rwMutex()
	r.election()
	r.sessions()
	r.stm()
	r.barrier()
	finish := r.queue()
	started := time.Now()
	for i, name := range r.names {
		for r.rounds[i].Load() == 0 {
			must(time.Since(started) < patience, "%s has not gone a round in %v", name, patience)
			time.Sleep(20 * time.Millisecond)
		}
	}
	before := make([]int64, len(r.rounds))
	for i := range r.rounds {
		before[i] = r.rounds[i].Load()
	}
	fmt.Println("running")
	bufio.NewScanner(os.Stdin).Scan()
	r.stopping.Store(true)
	ended := make(chan struct{})
	go func() { r.all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * patience):
		log.Fatalf("not every worker came to its end")
	}
	finish()
	r.sums()
	for i, name := range r.names {
		fmt.Printf("%s: %d rounds\n", name, r.rounds[i].Load())
		must(r.rounds[i].Load() > before[i], "%s did not go on", name)
	}
	fmt.Printf("%d attempts failed and were made again\n", r.failures.Load())
}

// worker runs a recipe's rounds until the end.
func (r *run) worker(name string, round func(number int, client *clientv3.Client)) {
	r.names = append(r.names, name)
	counter := &atomic.Int64{}
	r.rounds = append(r.rounds, counter)
	r.all.Add(1)
	go func() {
		defer r.all.Done()
		client := r.dial()
		defer client.Close()
		for number := 0; !r.stopping.Load(); number++ {
			round(number, client)
			counter.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	}()
}

func (r *run) dial() *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		// a client gives a lease up whose first renewal takes a second more than this, whatever its TTL
		Endpoints: r.endpoints, DialTimeout: (ttl - 1) * time.Second,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		Logger: zap.NewNop(), // attempts that fail are expected here, and counted
	})
	must(err == nil, "dial: %v", err)
	return client
}

func (r *run) base(number int) string { return r.bases[number%len(r.bases)] }

// insist calls until it succeeds.
func (r *run) insist(what string, call func(ctx context.Context) error) {
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), attempt)
		err := call(ctx)
		cancel()
		if err == nil {
			return
		}
		must(!errors.Is(err, concurrency.ErrSessionExpired), "%s: %v", what, err)
		must(time.Now().Before(deadline), "%s fails for %v: %v", what, patience, err)
		r.failures.Add(1)
		time.Sleep(30 * time.Millisecond)
	}
}

// session is one that lives as long as its client lets it.
func (r *run) session(client *clientv3.Client) *concurrency.Session {
	var session *concurrency.Session
	r.insist("session", func(ctx context.Context) (err error) {
		var grant *clientv3.LeaseGrantResponse
		if grant, err = client.Grant(ctx, ttl); err != nil {
			return err
		}
		session, err = concurrency.NewSession(client, concurrency.WithLease(grant.ID))
		return err
	})
	return session
}

func alive(session *concurrency.Session) {
	select {
	case <-session.Done():
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		left, err := session.Client().TimeToLive(ctx, session.Lease()) // -1: the server ended it
		log.Fatalf("session %x died though its client lives: %d s left, %v", session.Lease(), left.TTL, err)
	default:
	}
}

// end revokes the session's lease: whatever hangs on it is gone when this returns.
func (r *run) end(client *clientv3.Client, session *concurrency.Session) {
	alive(session)
	session.Orphan()
	r.insist("revoke", func(ctx context.Context) error {
		_, err := client.Revoke(ctx, session.Lease())
		if err != nil && strings.Contains(err.Error(), "requested lease not found") {
			return nil // an attempt whose answer was lost
		}
		return err
	})
}

func must(ok bool, format string, args ...any) {
	if !ok {
		log.Fatalf(format, args...)
	}
}
