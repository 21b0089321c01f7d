// What is added to etcd's tests/robustness: its traffic and validators work on hosts of muster. See run.py.

package robustness

import (
	"bufio"
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"

	"go.etcd.io/etcd/tests/v3/framework/e2e"
	"go.etcd.io/etcd/tests/v3/robustness/client"
	"go.etcd.io/etcd/tests/v3/robustness/failpoint"
	"go.etcd.io/etcd/tests/v3/robustness/identity"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.etcd.io/etcd/tests/v3/robustness/scenarios"
	"go.etcd.io/etcd/tests/v3/robustness/traffic"
)

const (
	churnProgram  = "PROGRAM_OF_CHURN" // of the environment
	churnedFor    = 8 * time.Second    // before a fault and after it
	leastQPS      = 20                 // three hosts, their shards and all clients share a machine
	pausedFor     = 2 * time.Second
	askedFor      = 5 * time.Second // whether a host serves, however slowly: a busy machine is no fault
	compactions   = 10
	notifications = 100 * time.Millisecond
	sessionField  = 3 // of /proc/PID/stat, after the name
)

// injected is what is done to hosts; each returns what its own clients did.
type injected func(ctx context.Context, clus *e2e.EtcdProcessCluster, set *client.ClientSet) error

// fault is a failpoint of the suite's that is possible everywhere.
type fault struct {
	name   string
	inject injected
}

func (f fault) Name() string { return f.name }

func (f fault) Available(e2e.EtcdProcessClusterConfig, e2e.EtcdProcess, traffic.Profile) bool {
	return true
}

func (f fault) Inject(ctx context.Context, _ *testing.T, _ *zap.Logger, clus *e2e.EtcdProcessCluster,
	baseTime time.Time, ids identity.Provider) ([]report.ClientReport, error) {
	set := client.NewSet(ids, baseTime)
	defer set.Close()
	err := f.inject(ctx, clus, set)
	return set.Reports(), err
}

// faults: of the suite's own those that are possible without code inside etcd, and ours.
func faults() []failpoint.Failpoint {
	return []failpoint.Failpoint{
		failpoint.KillFailpoint, failpoint.MemberReplace,
		fault{"KillAll", killAll}, fault{"KillProcesses", killProcesses}, fault{"Terminate", terminate},
		fault{"Pause", pause},
		fault{"Compact", compact}, fault{"Defragment", defragment},
	}
}

func anyOf(clus *e2e.EtcdProcessCluster) e2e.EtcdProcess {
	return clus.Procs[rand.Intn(len(clus.Procs))]
}

// killAll: what was answered is on disks.
func killAll(ctx context.Context, clus *e2e.EtcdProcessCluster, _ *client.ClientSet) error {
	for _, member := range clus.Procs {
		if err := member.Kill(); err != nil {
			return err
		}
	}
	var starts errgroup.Group
	for _, member := range clus.Procs {
		starts.Go(func() error {
			if err := member.Wait(ctx); err != nil && !strings.Contains(err.Error(), "unexpected exit code") {
				return err
			}
			return member.Start(ctx)
		})
	}
	return starts.Wait()
}

// killProcesses kills one process of each host, all at once: its supervisor starts it again.
func killProcesses(ctx context.Context, clus *e2e.EtcdProcessCluster, set *client.ClientSet) error {
	for _, member := range clus.Procs {
		found, err := processes(member.Config().DataDirPath)
		if err != nil {
			return err
		}
		if err := syscall.Kill(found[1+rand.Intn(len(found)-1)], syscall.SIGKILL); err != nil {
			return err
		}
	}
	for _, member := range clus.Procs { // the suite asks each only once whether it serves
		c, err := set.NewClient(member.EndpointsGRPC())
		if err != nil {
			return err
		}
		for {
			asked, cancel := context.WithTimeout(ctx, askedFor)
			_, err := c.Get(asked, "served")
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

func terminate(ctx context.Context, clus *e2e.EtcdProcessCluster, _ *client.ClientSet) error {
	return anyOf(clus).Restart(ctx)
}

// pause stops all processes of a host, which then go on as if nothing had been.
func pause(ctx context.Context, clus *e2e.EtcdProcessCluster, _ *client.ClientSet) error {
	found, err := processes(anyOf(clus).Config().DataDirPath)
	if err != nil {
		return err
	}
	for _, process := range found {
		if err := syscall.Kill(process, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	select {
	case <-time.After(pausedFor):
	case <-ctx.Done():
	}
	for _, process := range found {
		if err := syscall.Kill(process, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// processes are those of the session in which one was started with this data directory, its first one first.
func processes(directory string) ([]int, error) {
	sessions, hosts := map[int][]int{}, map[int]bool{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		session, err := strconv.Atoi(strings.Fields(rest)[sessionField])
		if err != nil {
			return nil, err
		}
		number, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		if number != session {
			sessions[session] = append(sessions[session], number)
		}
		hosts[session] = hosts[session] || strings.Contains(string(line), directory)
	}
	for session, host := range hosts {
		if host && len(sessions[session]) > 0 {
			return append([]int{session}, sessions[session]...), nil
		}
	}
	return nil, fmt.Errorf("no processes have %s", directory)
}

// compact at the newest revision again and again: what watches and reads have not seen yet goes, too.
func compact(ctx context.Context, clus *e2e.EtcdProcessCluster, set *client.ClientSet) error {
	c, err := set.NewClient(anyOf(clus).EndpointsGRPC())
	if err != nil {
		return err
	}
	for range compactions {
		found, err := c.Get(ctx, "compacted")
		if err != nil {
			return err
		}
		if _, err := c.Compact(ctx, found.Header.Revision); err != nil && ctx.Err() != nil {
			return err // others compact, too: a refusal is no fault
		}
	}
	return nil
}

func defragment(ctx context.Context, clus *e2e.EtcdProcessCluster, set *client.ClientSet) error {
	for _, member := range clus.Procs {
		c, err := set.NewClient(member.EndpointsGRPC())
		if err != nil {
			return err
		}
		if _, err := c.Defragment(ctx); err != nil {
			return err
		}
	}
	return nil
}

// churn has shards added and retired and keys moved beside the test, until it ends.
func churn(t *testing.T, clus *e2e.EtcdProcessCluster) {
	line := strings.Fields(os.Getenv(churnProgram))
	if len(line) == 0 {
		return
	}
	WaitBeforeFailpoint, WaitAfterFailpoint = churnedFor, churnedFor
	var addresses []string
	for _, endpoint := range clus.EndpointsGRPC() {
		addresses = append(addresses, strings.TrimPrefix(endpoint, "http://"))
	}
	command := exec.Command(line[0], append(line[1:], strings.Join(addresses, ","))...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := command.StdinPipe() // it goes on until this ends
	require.NoError(t, err)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	ended := make(chan error, 1)
	t.Cleanup(func() {
		select {
		case err := <-ended:
			t.Errorf("churn ended by itself: %v", err)
		default:
			_ = command.Process.Kill()
			<-ended
		}
		_ = stdin.Close()
	})
	said, err := bufio.NewReader(stdout).ReadString('\n')
	go func() { ended <- command.Wait() }()
	require.NoError(t, err)
	require.Equal(t, "begun\n", said)
}

func TestMuster(t *testing.T) {
	testRunner.BeforeTest(t)
	for _, s := range scenarios.Exploratory(t) {
		name, size, _ := strings.Cut(s.Name, "/")
		if size != "ClusterOfSize3" {
			continue
		}
		for _, injected := range faults() {
			t.Run(name+"/"+injected.Name(), func(t *testing.T) {
				lg := zaptest.NewLogger(t)
				s.Cluster = *e2e.NewConfig(e2e.WithClusterSize(3), e2e.WithSnapshotCount(100),
					e2e.WithWatchProcessNotifyInterval(notifications))
				s.Cluster.Logger = lg
				s.Failpoint = injected
				slower := *s.Profile.KeyValue
				slower.MinimalQPS = leastQPS
				s.Profile.KeyValue = &slower
				c, err := e2e.NewEtcdProcessCluster(t.Context(), t, e2e.WithConfig(&s.Cluster))
				require.NoError(t, err)
				defer forcestopCluster(c)
				churn(t, c)
				testRobustness(t.Context(), t, lg, s, c)
			})
		}
	}
}
