// contend takes part in recipes beside a library in another language: each line on stdin is a command, its name and
// arguments, and runs at once; "done <line>: <what it gave>" is printed at its end.
package contend

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

type command func(client *clientv3.Client, base string, number int) (string, error)

var commands = map[string]command{
	"mutex": mutex, "election": election, "read": rwRead, "write": rwWrite,
	"queue-put": queuePut, "queue-take": queueTake, "priority-put": priorityPut, "priority-take": priorityTake,
	"barrier": barrier, "double": double, "stm": stm, "register": register, "list": list,
}

// alone counts one more holder of what nobody else may hold: a second one at the same time is an error.
func alone(client *clientv3.Client, base string) error {
	inside := base + "inside"
	resp, err := client.Txn(context.Background()).
		If(clientv3.Compare(clientv3.Version(inside), "=", 0), clientv3.Compare(clientv3.Version(base+"readers/"), "=", 0).WithPrefix()).
		Then(clientv3.OpPut(inside, "go")).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("two hold it")
	}
	time.Sleep(2 * time.Millisecond)
	_, err = client.Delete(context.Background(), inside)
	return err
}

func times(client *clientv3.Client, number int, hold func(session *concurrency.Session) error) (string, error) {
	for i := 0; i < number; i++ {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		if err != nil {
			return "", err
		}
		if err := hold(session); err != nil {
			return "", err
		}
		if err := session.Close(); err != nil {
			return "", err
		}
	}
	return strconv.Itoa(number), nil
}

func mutex(client *clientv3.Client, base string, number int) (string, error) {
	return times(client, number, func(session *concurrency.Session) error {
		lock := concurrency.NewMutex(session, base+"lock")
		if err := lock.Lock(context.Background()); err != nil {
			return err
		}
		if err := alone(client, base); err != nil {
			return err
		}
		return lock.Unlock(context.Background())
	})
}

func election(client *clientv3.Client, base string, number int) (string, error) {
	return times(client, number, func(session *concurrency.Session) error {
		one := concurrency.NewElection(session, base+"election")
		if err := one.Campaign(context.Background(), "go"); err != nil {
			return err
		}
		if err := alone(client, base); err != nil {
			return err
		}
		return one.Resign(context.Background())
	})
}

func rwRead(client *clientv3.Client, base string, number int) (string, error) {
	return times(client, number, func(session *concurrency.Session) error {
		lock := recipe.NewRWMutex(session, base+"rw")
		if err := lock.RLock(); err != nil {
			return err
		}
		own := fmt.Sprintf("%sreaders/%x", base, session.Lease())
		resp, err := client.Txn(context.Background()).
			If(clientv3.Compare(clientv3.Version(base+"inside"), "=", 0)).Then(clientv3.OpPut(own, "")).Commit()
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			return fmt.Errorf("a reader is beside a writer")
		}
		time.Sleep(2 * time.Millisecond)
		if _, err := client.Delete(context.Background(), own); err != nil {
			return err
		}
		return lock.RUnlock()
	})
}

func rwWrite(client *clientv3.Client, base string, number int) (string, error) {
	return times(client, number, func(session *concurrency.Session) error {
		lock := recipe.NewRWMutex(session, base+"rw")
		if err := lock.Lock(); err != nil {
			return err
		}
		if err := alone(client, base); err != nil {
			return err
		}
		return lock.Unlock()
	})
}

func queuePut(client *clientv3.Client, base string, number int) (string, error) {
	for i := 0; i < number; i++ {
		if err := recipe.NewQueue(client, base+"queue").Enqueue(fmt.Sprintf("go-%d", i)); err != nil {
			return "", err
		}
	}
	return strconv.Itoa(number), nil
}

func taken(number int, take func() (string, error)) (string, error) {
	values := make([]string, 0)
	for i := 0; i < number; i++ {
		value, err := take()
		if err != nil {
			return "", err
		}
		values = append(values, value)
	}
	return strings.Join(values, " "), nil
}

func queueTake(client *clientv3.Client, base string, number int) (string, error) {
	return taken(number, recipe.NewQueue(client, base+"queue").Dequeue)
}

func priorityPut(client *clientv3.Client, base string, number int) (string, error) {
	queue := recipe.NewPriorityQueue(client, base+"priority")
	for i := number - 1; i >= 0; i-- {
		if err := queue.Enqueue(fmt.Sprintf("go-%d", i), uint16(10*i)); err != nil {
			return "", err
		}
	}
	return strconv.Itoa(number), nil
}

func priorityTake(client *clientv3.Client, base string, number int) (string, error) {
	return taken(number, recipe.NewPriorityQueue(client, base+"priority").Dequeue)
}

func barrier(client *clientv3.Client, base string, _ int) (string, error) {
	return "", recipe.NewBarrier(client, base+"barrier").Wait()
}

func double(client *clientv3.Client, base string, number int) (string, error) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return "", err
	}
	defer session.Close()
	one := recipe.NewDoubleBarrier(session, base+"double", number)
	if err := one.Enter(); err != nil {
		return "", err
	}
	fmt.Println("entered")
	return "", one.Leave()
}

func stm(client *clientv3.Client, base string, number int) (string, error) {
	for i := 0; i < number; i++ {
		if _, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
			count, _ := strconv.Atoi(stm.Get(base + "count"))
			stm.Put(base+"count", strconv.Itoa(count+1))
			return nil
		}); err != nil {
			return "", err
		}
	}
	return strconv.Itoa(number), nil
}

func register(client *clientv3.Client, base string, number int) (string, error) {
	manager, err := endpoints.NewManager(client, base+"service")
	if err != nil {
		return "", err
	}
	address := fmt.Sprintf("10.0.0.9:%d", number)
	return address, manager.AddEndpoint(context.Background(), base+"service/"+address,
		endpoints.Endpoint{Addr: address, Metadata: map[string]string{"zone": "go"}})
}

func list(client *clientv3.Client, base string, _ int) (string, error) {
	manager, err := endpoints.NewManager(client, base+"service")
	if err != nil {
		return "", err
	}
	found, err := manager.List(context.Background())
	told := make([]string, 0)
	for _, one := range found {
		told = append(told, fmt.Sprintf("%s=%v", one.Addr, one.Metadata))
	}
	sort.Strings(told)
	return strings.Join(told, " "), err
}

// Main is the program.
func Main() {
	addresses := flag.String("endpoints", "127.0.0.1:2379", "")
	base := flag.String("base", "/contend/", "")
	flag.Parse()
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*addresses, ","), DialTimeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		line := lines.Text()
		words := strings.Fields(line)
		number, _ := strconv.Atoi(words[1])
		go func() {
			told, err := commands[words[0]](client, *base, number)
			if err != nil {
				log.Fatalf("%s: %v", line, err)
			}
			fmt.Printf("done %s: %s\n", line, told)
		}()
	}
}
