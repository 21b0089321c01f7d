// Package testserver takes the place of Kubernetes' own (k8s.io/apiserver/pkg/storage/etcd3/testserver) when its storage
// tests are run on muster: it starts a host of muster where that starts an embedded etcd. See run.py.
package testserver

import (
	"bufio"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// freePorts returns the first of so many ports in a row that are free now.
func freePorts(count int) (int, error) {
	for try := 0; try < 1000; try++ {
		base := 11000 + rand.Intn(20000)
		var taken []net.Listener
		for i := 0; i < count; i++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
			if err != nil {
				break
			}
			taken = append(taken, l)
		}
		for _, l := range taken {
			l.Close()
		}
		if len(taken) == count {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no free ports")
}

func shards() int {
	if count, err := strconv.Atoi(os.Getenv("MUSTER_TEST_SHARDS")); err == nil {
		return count
	}
	return 1
}

// NewTestConfig returns what a host of muster needs to know, in etcd's form.
func NewTestConfig(t testing.TB) *embed.Config {
	cfg := embed.NewConfig()
	base, err := freePorts(shards() + 1)
	if err != nil {
		t.Fatal(err)
	}
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", base)}
	peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", base+1)}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.Dir = t.TempDir()
	return cfg
}

func flags(cfg *embed.Config) []string {
	client, peer := cfg.ListenClientUrls[0].String(), cfg.ListenPeerUrls[0].String()
	found := []string{
		"--data-dir=" + cfg.Dir + "/data",
		"--name=" + cfg.Name,
		fmt.Sprintf("--shards=%d", shards()),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + cfg.InitialCluster,
	}
	if cfg.WatchProgressNotifyInterval > 0 {
		found = append(found, "--experimental-watch-progress-notify-interval="+cfg.WatchProgressNotifyInterval.String())
	}
	return found
}

// RunEtcd starts a host of muster and returns a client of it; it ends with the test.
func RunEtcd(t testing.TB, cfg *embed.Config) *kubernetes.Client {
	t.Helper()
	if cfg == nil {
		cfg = NewTestConfig(t)
	}
	line := append(strings.Fields(os.Getenv("MUSTER_COMMAND")), flags(cfg)...)
	command := exec.Command(line[0], line[1:]...)
	log, err := os.Create(cfg.Dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
		log.Close()
	})
	endpoint := cfg.ListenClientUrls[0].String()
	waitUntilHealthy(t, endpoint, cfg.Dir+"/log")
	startChurn(t, cfg.ListenClientUrls[0].Host, log)
	client, err := kubernetes.New(clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithBlock()},
		Logger:      zaptest.NewLogger(t, zaptest.Level(zapcore.ErrorLevel)).Named("etcd-client"),
	})
	if err != nil {
		t.Fatal(err)
	}
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	return client
}

// startChurn has shards added and retired and keys moved beside the test, if MUSTER_CHURN says by what program.
func startChurn(t testing.TB, address string, log *os.File) {
	line := strings.Fields(os.Getenv("MUSTER_CHURN"))
	if len(line) == 0 {
		return
	}
	command := exec.Command(line[0], append(line[1:], address)...)
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := command.StdinPipe() // it goes on until this ends
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		_ = stdin.Close()
	})
	if said, err := bufio.NewReader(stdout).ReadString('\n'); said != "begun\n" {
		t.Fatalf("the churn does not begin: %q, %v", said, err)
	}
}

func waitUntilHealthy(t testing.TB, endpoint string, log string) {
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		answer, err := http.Get(endpoint + "/health")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
	}
	said, _ := os.ReadFile(log)
	t.Fatalf("muster does not serve:\n%s", said)
}
