// measure prints puts and gets a second by clientv3, and the process's own CPU, as tools/client/measure.py does for Python's
// clients: client, work, goroutines, calls a second, microseconds of CPU a call, p50 in milliseconds.
package measure

import (
	"context"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const duration = 3 * time.Second

// Main is the program.
func Main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go run -modfile=v36.mod . measure HOST:PORT")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: os.Args[1:], DialTimeout: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	value := strings.Repeat("x", 64)
	works := []struct {
		name string
		call func(key string) error
	}{
		{"put", func(key string) error { _, err := client.Put(context.Background(), key, value); return err }},
		{"get", func(key string) error { _, err := client.Get(context.Background(), key); return err }},
	}
	for _, work := range works {
		for _, tasks := range []int{1, 100} {
			if err := work.call("/measure/000"); err != nil {
				log.Fatal(err)
			}
			measure(work.name, tasks, work.call)
		}
	}
}

func measure(name string, tasks int, call func(key string) error) {
	times := make([][]time.Duration, tasks)
	used, began := cpu(), time.Now()
	var all sync.WaitGroup
	for i := range tasks {
		all.Add(1)
		go func() {
			defer all.Done()
			key := fmt.Sprintf("/measure/%03d", i)
			for start := time.Now(); start.Sub(began) < duration; start = time.Now() {
				if err := call(key); err != nil {
					log.Fatal(err)
				}
				times[i] = append(times[i], time.Since(start))
			}
		}()
	}
	all.Wait()
	took, spent := time.Since(began), cpu()-used
	var whole []time.Duration
	for _, one := range times {
		whole = append(whole, one...)
	}
	sort.Slice(whole, func(i, j int) bool { return whole[i] < whole[j] })
	count := len(whole)
	fmt.Printf("clientv3\t%s\t%d\t%.0f\t%.0f\t%.2f\n", name, tasks, float64(count)/took.Seconds(),
		float64(spent.Microseconds())/float64(count), float64(whole[count/2].Microseconds())/1000)
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
