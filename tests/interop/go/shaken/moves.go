package shaken

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

const perAccount = 100

func (r *run) account(i int) string { return r.base(i) + "account" + strconv.Itoa(i) }

func (r *run) accounts() int { return len(r.bases) + 1 }

// stm: transfers between accounts on all shards; every transaction that reads all of them finds the same sum, and
// what was acknowledged to a worker stands in its own counter, which the same transaction writes.
func (r *run) stm() {
	client := r.dial()
	defer client.Close()
	for i := 0; i < r.accounts(); i++ {
		r.insist("put", func(ctx context.Context) error {
			_, err := client.Put(ctx, r.account(i), strconv.Itoa(perAccount))
			return err
		})
	}
	for i := 0; i < 3; i++ {
		done, unknown := make([]int, len(r.bases)), make([]int, len(r.bases))
		r.worker(fmt.Sprintf("stm %d", i), func(number int, client *clientv3.Client) {
			from, to := r.account((number+i)%r.accounts()), r.account((number*3+i*2+1)%r.accounts())
			place := number % len(r.bases)
			own := r.base(number) + "done" + strconv.Itoa(i)
			if from == to {
				return
			}
			counted := 0
			ctx, cancel := context.WithTimeout(context.Background(), attempt)
			defer cancel()
			_, err := concurrency.NewSTM(client, func(s concurrency.STM) error {
				f, err1 := strconv.Atoi(s.Get(from))
				t, err2 := strconv.Atoi(s.Get(to))
				counted, _ = strconv.Atoi(s.Get(own))
				s.Put(from, strconv.Itoa(f-1))
				s.Put(to, strconv.Itoa(t+1))
				s.Put(own, strconv.Itoa(counted+1))
				return errors.Join(err1, err2)
			}, concurrency.WithIsolation(concurrency.SerializableSnapshot), concurrency.WithAbortContext(ctx))
			if err != nil { // it may have been done all the same
				unknown[place]++
				r.failures.Add(1)
				return
			}
			must(done[place] <= counted && counted <= done[place]+unknown[place],
				"%s counted %d before: %d were acknowledged, %d unknown", own, counted, done[place], unknown[place])
			done[place]++
		})
	}
	r.worker("stm reader", func(_ int, client *clientv3.Client) {
		r.insist("sum", func(ctx context.Context) error {
			sum := 0
			_, err := concurrency.NewSTM(client, func(s concurrency.STM) error {
				sum = 0
				for i := 0; i < r.accounts(); i++ {
					n, err := strconv.Atoi(s.Get(r.account(i)))
					if err != nil {
						return err
					}
					sum += n
				}
				return nil
			}, concurrency.WithIsolation(concurrency.SerializableSnapshot), concurrency.WithAbortContext(ctx))
			if err == nil {
				must(sum == perAccount*r.accounts(), "a transaction saw a sum of %d", sum)
			}
			return err
		})
	})
}

// sums looks once more when all is quiet.
func (r *run) sums() {
	client := r.dial()
	defer client.Close()
	sum := 0
	for i := 0; i < r.accounts(); i++ {
		r.insist("get", func(ctx context.Context) error {
			found, err := client.Get(ctx, r.account(i))
			if err == nil {
				n, _ := strconv.Atoi(string(found.Kvs[0].Value))
				sum += n
			}
			return err
		})
	}
	must(sum == perAccount*r.accounts(), "the sum is %d at the end", sum)
}

// queue: what was put in comes out, once; only an attempt whose outcome nobody told may take one more away or put
// one in twice. The function that it returns empties the queues at the end and looks.
func (r *run) queue() func() {
	var mu sync.Mutex
	put, taken := map[string]int{}, map[string]int{} // value -> attempts to put it in that may have done so; times it came out
	var acked, lost atomic.Int64
	enter := func(client *clientv3.Client, base, value string) {
		r.insist("enqueue", func(context.Context) error {
			mu.Lock()
			put[value]++
			mu.Unlock()
			return recipe.NewQueue(client, base+"queue").Enqueue(value)
		})
	}
	take := func(client *clientv3.Client, base, spare string) string {
		value, tries := "", 0
		r.insist("dequeue", func(context.Context) (err error) {
			if tries++; tries > 1 { // the attempt before may have taken the last one away
				enter(client, base, spare)
			}
			if value, err = recipe.NewQueue(client, base+"queue").Dequeue(); err != nil {
				lost.Add(1)
			}
			return err
		})
		mu.Lock()
		defer mu.Unlock()
		taken[value]++
		must(taken[value] <= put[value], "%s came out of the queue %d times, and was put in %d times", value, taken[value], put[value])
		return value
	}
	for i := 0; i < 2; i++ {
		r.worker(fmt.Sprintf("queue %d", i), func(number int, client *clientv3.Client) {
			value := fmt.Sprintf("%d-%d", i, number)
			enter(client, r.base(number), value)
			acked.Add(1)
			take(client, r.base(number), "spare-"+value) // its own or another's
		})
	}
	return func() {
		client := r.dial()
		defer client.Close()
		for number, base := range r.bases {
			end := fmt.Sprintf("end-%d", number)
			enter(client, base, end)
			for take(client, base, end) != end {
			}
		}
		missing := int64(0)
		for value := range put {
			if taken[value] == 0 {
				missing++
			}
		}
		must(missing <= lost.Load(), "%d of %d never came out, though only %d attempts to take one failed", missing, acked.Load(), lost.Load())
	}
}
