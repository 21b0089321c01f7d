// checks runs one named check of clientv3 against a cluster and says in one line what was wrong.
//
// Every check has keys of its own, so that one cluster serves them all: under one directory, or with -apart each in
// a directory of its own, so that they lie on all shards of a server that has several.
package checks

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const limit = 90 * time.Second

// env is what a check gets: clients of the whole cluster and of single hosts, and a prefix for its keys.
type env struct {
	ctx       context.Context
	endpoints []string
	client    *clientv3.Client
	prefix    string
}

var checks = map[string]func(*env){}

// failure is what must and fail panic with: the checks are straight lines.
type failure struct{ error }

func fail(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

func must(condition bool, format string, args ...any) {
	if !condition {
		fail(format, args...)
	}
}

func ok[T any](value T, err error) func(what string) T {
	return func(what string) T {
		if err != nil {
			fail("%s: %w", what, err)
		}
		return value
	}
}

func done(err error, what string) {
	if err != nil {
		fail("%s: %w", what, err)
	}
}

func refused(err, expected error, what string) {
	if !errors.Is(err, expected) {
		fail("%s: got %v (%T), expected %v", what, err, err, expected)
	}
}

func equal[T comparable](found, expected T, what string) {
	if found != expected {
		fail("%s: got %v, expected %v", what, found, expected)
	}
}

func dial(endpoints ...string) *clientv3.Client {
	return ok(clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 30 * time.Second, TLS: secure()}))("dial")
}

func (e *env) key(name string) string { return e.prefix + name }

// settle has every host's replica apply what has been acknowledged by now: a linearizable read brings it there.
// Serializable reads, which clientv3 uses in places, may be behind on another host than the one that was written to.
func (e *env) settle(name string) {
	for _, endpoint := range e.endpoints {
		client := dial(endpoint)
		ok(client.Get(e.ctx, e.key(name)))("settle " + endpoint)
		client.Close()
	}
}

func (e *env) put(name, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	return ok(e.client.Put(e.ctx, e.key(name), value, opts...))("put " + name)
}

func (e *env) get(name string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	return ok(e.client.Get(e.ctx, e.key(name), opts...))("get " + name)
}

// names are the keys of an answer without the prefix.
func (e *env) names(resp *clientv3.GetResponse) string {
	found := make([]string, 0)
	for _, kv := range resp.Kvs {
		found = append(found, strings.TrimPrefix(string(kv.Key), e.prefix))
	}
	return strings.Join(found, " ")
}

func run(name string, endpoints []string, apart bool) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	defer func() {
		if caught := recover(); caught != nil {
			told, expected := caught.(failure)
			if !expected {
				panic(caught)
			}
			err = told.error
		}
	}()
	client := dial(endpoints...)
	defer client.Close()
	prefix := fmt.Sprintf("/checks/%s-%d/", name, time.Now().UnixNano())
	if apart {
		prefix = strings.ReplaceAll(prefix, "/", "-")
	}
	checks[name](&env{ctx, endpoints, client, prefix})
	return nil
}

// Main is the program.
func Main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	list := flag.Bool("list", false, "")
	apart := flag.Bool("apart", false, "")
	cacert, cert, key = flag.String("cacert", "", ""), flag.String("cert", "", ""), flag.String("key", "", "")
	flag.Parse()
	if *list {
		names := make([]string, 0)
		for name := range checks {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Println(strings.Join(names, "\n"))
		return
	}
	for _, name := range flag.Args() {
		if err := run(name, strings.Split(*endpoints, ","), *apart); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}
