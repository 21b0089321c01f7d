// discover is the seed's discovery program, for today's clientv3 (rows S0-043 to S0-045): the live services
// under a prefix in a map, kept up to date by a watch, each change logged as the seed logs it.
//
// A line on stdin asks for the list: it prints "list <n>: <values, sorted>".
package discover

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type clientDis struct {
	client     *clientv3.Client
	lock       sync.Mutex
	serverList map[string]string
}

func (dis *clientDis) getService(prefix string) error {
	resp, err := dis.client.Get(context.Background(), prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		dis.set(string(kv.Key), string(kv.Value))
	}
	// the seed watches from "now" and so may miss what happens between its get and its watch
	go dis.watcher(prefix, resp.Header.Revision+1)
	return nil
}

func (dis *clientDis) watcher(prefix string, revision int64) {
	for resp := range dis.client.Watch(context.Background(), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision)) {
		if err := resp.Err(); err != nil {
			log.Fatal(err)
		}
		for _, event := range resp.Events {
			switch event.Type {
			case mvccpb.PUT:
				dis.set(string(event.Kv.Key), string(event.Kv.Value))
			case mvccpb.DELETE:
				dis.del(string(event.Kv.Key))
			}
		}
	}
	log.Fatal("the watch has ended")
}

func (dis *clientDis) set(key, value string) {
	dis.lock.Lock()
	defer dis.lock.Unlock()
	dis.serverList[key] = value
	log.Println("set data key :", key, "val:", value)
}

func (dis *clientDis) del(key string) {
	dis.lock.Lock()
	defer dis.lock.Unlock()
	delete(dis.serverList, key)
	log.Println("del data key:", key)
}

func (dis *clientDis) list() []string {
	dis.lock.Lock()
	defer dis.lock.Unlock()
	values := make([]string, 0)
	for _, value := range dis.serverList {
		values = append(values, value)
	}
	sort.Strings(values)
	return values
}

// Main is the program.
func Main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	prefix := flag.String("prefix", "/node", "")
	flag.Parse()
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	dis := &clientDis{client: client, serverList: make(map[string]string)}
	if err := dis.getService(*prefix); err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		values := dis.list()
		fmt.Printf("list %d: %s\n", len(values), strings.Join(values, " "))
	}
}
