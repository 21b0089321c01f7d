// register is the seed's registration program, for today's clientv3 (rows S0-036 to S0-042): a key that lives
// as long as this process, by a lease of 5 s kept alive on a stream, with one printed line per answer.
//
// SIGUSR1 calls what the seed's main never did: revoke. SIGTERM and SIGKILL just end it, as in the seed.
package register

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type serviceReg struct {
	client    *clientv3.Client
	lease     clientv3.LeaseID
	cancel    context.CancelFunc
	keepAlive <-chan *clientv3.LeaseKeepAliveResponse
	closed    chan struct{}
}

func newServiceReg(endpoints []string, ttl int64) (*serviceReg, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	reg := &serviceReg{client: client, closed: make(chan struct{})}
	grant, err := client.Grant(context.TODO(), ttl)
	if err != nil {
		return nil, err
	}
	if grant.TTL != ttl {
		return nil, fmt.Errorf("asked for a lease of %d s, got one of %d s", ttl, grant.TTL)
	}
	ctx, cancel := context.WithCancel(context.TODO())
	reg.lease, reg.cancel = grant.ID, cancel
	if reg.keepAlive, err = client.KeepAlive(ctx, grant.ID); err != nil {
		return nil, err
	}
	go reg.listen()
	return reg, nil
}

func (reg *serviceReg) listen() {
	for range reg.keepAlive {
		fmt.Println("续租成功")
	}
	fmt.Println("已经关闭续租功能")
	close(reg.closed)
}

func (reg *serviceReg) put(key, value string) error {
	_, err := reg.client.Put(context.TODO(), key, value, clientv3.WithLease(reg.lease))
	return err
}

func (reg *serviceReg) revoke() error {
	reg.cancel()
	time.Sleep(2 * time.Second)
	_, err := reg.client.Revoke(context.TODO(), reg.lease)
	return err
}

// Main is the program.
func Main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	key := flag.String("key", "/node/111", "")
	value := flag.String("value", "heiheihei", "")
	flag.Parse()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	reg, err := newServiceReg(strings.Split(*endpoints, ","), 5)
	if err != nil {
		log.Fatal(err)
	}
	if err := reg.put(*key, *value); err != nil {
		log.Fatal(err)
	}
	<-signals
	if err := reg.revoke(); err != nil {
		log.Fatal(err)
	}
	<-reg.closed
}
