// What takes the place of parts of etcd's tests/framework/integration/cluster.go: a Member of a Cluster is a
// process of muster there, where etcd's is a server inside the test.

package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-semver/semver"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/testutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
)

const (
	program     = "PROGRAM_OF_MEMBERS" // of the environment
	peerPorts   = 20                   // from each peer URL's on, for as many shards
	bridgePorts = 31000
	firstGroup  = 20000
	readyLimit  = 60 * time.Second
	stopLimit   = 15 * time.Second
	tailBytes   = 4096
	removed     = "the member has been permanently removed from the cluster"
)

// Server is what the tests ask of a member's server. Whatever is not here no other process can be asked: the
// embedded one is nil.
type Server struct {
	*etcdserver.EtcdServer
	Cfg     config.ServerConfig
	command *exec.Cmd
	ended   chan struct{}
	client  *clientv3.Client
	mu      sync.Mutex
	id      types.ID
}

// tail keeps the last of what a process says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(said []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, said...)
	t.text = t.text[max(0, len(t.text)-tailBytes):]
	return os.Stderr.Write(said)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// process is what a Member has besides.
type process struct {
	given MemberConfig
}

// told is a listener that tells an address, where muster listens.
type told struct {
	net.Listener
	addr net.Addr
}

func (l told) Addr() net.Addr { return l.addr }
func (l told) Close() error   { return nil }

func (s *Server) status(limit time.Duration) *clientv3.StatusResponse {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	found, err := s.client.Status(ctx, s.client.Endpoints()[0])
	if err != nil {
		return nil
	}
	return found
}

func (s *Server) MemberID() types.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	for until := time.Now().Add(readyLimit); s.id == 0 && time.Now().Before(until); {
		if found := s.status(5 * time.Second); found != nil {
			s.id = types.ID(found.Header.MemberId)
		}
		select {
		case <-s.ended:
			return s.id
		default:
		}
	}
	return s.id
}

func (s *Server) Lead() uint64 {
	if found := s.status(2 * time.Second); found != nil {
		return found.Leader
	}
	return 0
}

func (s *Server) Leader() types.ID { return types.ID(s.Lead()) }

func (s *Server) Term() uint64 {
	if found := s.status(2 * time.Second); found != nil {
		return found.RaftTerm
	}
	return 0
}

func (s *Server) Alarm(ctx context.Context, asked *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	return pb.NewMaintenanceClient(s.client.ActiveConnection()).Alarm(ctx, asked)
}

// TryTransferLeadershipOnShutdown: a process of muster does it when it is told to end.
func (s *Server) TryTransferLeadershipOnShutdown() error {
	s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return nil
	case <-time.After(stopLimit):
		return fmt.Errorf("a member has not ended within %s", stopLimit)
	}
}

func (s *Server) StopNotify() <-chan struct{} { return s.ended }

func (s *Server) ReadyNotify() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func (s *Server) ClusterVersion() *semver.Version { return semver.New("3.5.0") }

func (s *Server) HardStop() { s.Stop() }

func (s *Server) Stop() {
	s.mu.Lock()
	if s.id == 0 { // it may be asked later
		if found := s.status(2 * time.Second); found != nil {
			s.id = types.ID(found.Header.MemberId)
		}
	}
	s.mu.Unlock()
	s.client.Close()
	s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		s.command.Process.Kill()
		<-s.ended
	}
}

func NewLocalListener(t testutil.TB) net.Listener {
	number := int(atomic.AddInt32(&UniqueCount, 1))
	return NewListenerWithAddr(t, fmt.Sprintf("127.0.0.1:%d", BasePort+peerPorts*number))
}

func NewListenerWithAddr(t testutil.TB, addr string) net.Listener {
	resolved, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return told{addr: resolved}
}

func (m *Member) clientScheme() string { return SchemeFromTLSInfo(m.ClientTLSInfo) }

func (m *Member) grpcAddr() (network, host, port string) {
	if m.UseIP { // for IP-only TLS certs
		return "tcp", "127.0.0.1", m.Port
	}
	return "tcp", "localhost", m.Port
}

func (m *Member) listenGRPC() error {
	m.Port = fmt.Sprint(BaseGRPCPort + m.UniqNumber)
	m.GRPCListener = told{} // it only has to be there
	_, host, port := m.grpcAddr()
	if m.UseBridge {
		port = m.bridgePort()
	}
	m.GRPCURL = m.clientScheme() + "://" + net.JoinHostPort(host, port)
	return nil
}

func (m *Member) bridgePort() string { return fmt.Sprint(bridgePorts + m.UniqNumber) }

// bridged: a bridge ends if there is nothing yet behind it.
func (m *Member) bridged() error {
	if !m.UseBridge {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", m.bridgePort()))
	if err != nil {
		return err
	}
	m.GRPCBridge = newBridge(dialer{network: "tcp", addr: net.JoinHostPort("127.0.0.1", m.Port)}, l)
	return nil
}

func secured(prefix string, info *transport.TLSInfo) []string {
	if info == nil {
		return nil
	}
	flags := []string{"--" + prefix + "cert-file=" + info.CertFile, "--" + prefix + "key-file=" + info.KeyFile}
	if info.TrustedCAFile != "" {
		flags = append(flags, "--"+prefix+"trusted-ca-file="+info.TrustedCAFile)
	}
	if info.ClientCertAuth {
		ca := "--client-cert-auth"
		if prefix != "" {
			ca = "--peer-client-cert-auth"
		}
		flags = append(flags, ca)
	}
	if prefix != "" {
		if info.ClientCertFile != "" {
			flags = append(flags, "--peer-client-cert-file="+info.ClientCertFile,
				"--peer-client-key-file="+info.ClientKeyFile)
		}
		return flags
	}
	names := make([]string, 0, len(info.CipherSuites))
	for _, suite := range info.CipherSuites {
		names = append(names, tls.CipherSuiteName(suite))
	}
	if len(names) > 0 {
		flags = append(flags, "--cipher-suites="+strings.Join(names, ","))
	}
	versions := map[uint16]string{tls.VersionTLS12: "TLS1.2", tls.VersionTLS13: "TLS1.3"}
	if info.MinVersion != 0 {
		flags = append(flags, "--tls-min-version="+versions[info.MinVersion])
	}
	if info.MaxVersion != 0 {
		flags = append(flags, "--tls-max-version="+versions[info.MaxVersion])
	}
	return flags
}

// listens: a clone of a member, which has no listeners, is not to be in its way.
func (m *Member) listens() (peers, clients string) {
	if m.PeerListeners != nil {
		return m.PeerURLs.String(), m.clientScheme() + "://127.0.0.1:" + m.Port + "," + m.ClientURLs.String()
	}
	free := func() string { return NewLocalListener(nil).Addr().String() }
	return SchemeFromTLSInfo(m.PeerTLSInfo) + "://" + free(), m.clientScheme() + "://" + free()
}

func (m *Member) flags() []string {
	peers, clients := m.listens()
	state := "existing"
	if m.NewCluster {
		state = "new"
	}
	flags := []string{
		"--name=" + m.Name, "--data-dir=" + m.DataDir,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + m.PeerURLs.String(),
		"--listen-client-urls=" + clients,
		"--advertise-client-urls=" + m.ClientURLs.String(),
		"--initial-cluster=" + m.InitialPeerURLsMap.String(), "--initial-cluster-state=" + state,
		"--initial-cluster-token=" + m.InitialClusterToken,
		fmt.Sprintf("--heartbeat-interval=%d", m.TickMs),
		fmt.Sprintf("--election-timeout=%d", int(m.TickMs)*m.ElectionTicks),
		fmt.Sprintf("--strict-reconfig-check=%v", m.StrictReconfigCheck),
		fmt.Sprintf("--max-txn-ops=%d", m.MaxTxnOps), fmt.Sprintf("--max-request-bytes=%d", m.MaxRequestBytes),
		fmt.Sprintf("--snapshot-count=%d", m.SnapshotCount),
		fmt.Sprintf("--snapshot-catchup-entries=%d", m.SnapshotCatchUpEntries),
		fmt.Sprintf("--max-learners=%d", m.MaxLearners), fmt.Sprintf("--bcrypt-cost=%d", m.BcryptCost),
		fmt.Sprintf("--quota-backend-bytes=%d", m.QuotaBackendBytes), "--auth-token=" + m.AuthToken,
		"--cpus=none", "--fronts=0", "--min-free-disk-bytes=0",
	}
	flags = append(append(flags, secured("", m.ClientTLSInfo)...), secured("peer-", m.PeerTLSInfo)...)
	if m.PeerTLSInfo == nil || m.PeerTLSInfo.TrustedCAFile == "" && !m.PeerTLSInfo.ClientCertAuth {
		flags = append(flags, "--peer-insecure") // else peers talk by Unix sockets, which no rule cuts
	}
	notify := m.WatchProgressNotifyInterval
	if notify == 0 {
		notify = v3rpc.GetProgressReportInterval() // a test may have set it
	}
	for name, given := range map[string]time.Duration{
		"grpc-keepalive-min-time": m.given.GRPCKeepAliveMinTime, "corrupt-check-time": m.CorruptCheckTime,
		"grpc-keepalive-interval":        m.given.GRPCKeepAliveInterval,
		"grpc-keepalive-timeout":         m.given.GRPCKeepAliveTimeout,
		"watch-progress-notify-interval": notify,
	} {
		if given != 0 {
			flags = append(flags, fmt.Sprintf("--%s=%s", name, given))
		}
	}
	if m.given.EnableLeaseCheckpoint {
		flags = append(flags, fmt.Sprintf(
			"--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=%v", m.given.LeaseCheckpointPersist))
	}
	if m.ForceNewCluster {
		flags = append(flags, "--force-new-cluster")
	}
	if m.Metrics != "" {
		flags = append(flags, "--metrics="+m.Metrics)
	}
	return flags
}

// grouped says whether processes may be given groups: rules of the network know a member by its own.
func grouped() bool {
	groups, err := os.ReadFile("/proc/self/gid_map")
	return err == nil && strings.Contains(string(groups), "4294967295")
}

func (m *Member) Launch() error {
	command := exec.Command(os.Getenv(program), m.flags()...)
	said := &tail{}
	command.Stdout, command.Stderr, command.WaitDelay = os.Stdout, said, time.Second
	if grouped() {
		group := syscall.Credential{Uid: 0, Gid: uint32(firstGroup + m.UniqNumber)}
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &group}
	}
	if err := command.Start(); err != nil {
		return err
	}
	m.Closed = false
	server := &Server{Cfg: m.ServerConfig, command: command, ended: make(chan struct{})}
	if m.Server != nil {
		server.id = m.Server.id // of its data directory
	}
	m.Server = server
	go func(ended chan struct{}) {
		command.Wait()
		close(ended)
	}(m.Server.ended)
	own := *m
	_, host, port := m.grpcAddr()
	own.GRPCURL = m.clientScheme() + "://" + net.JoinHostPort(host, port)
	for until := time.Now().Add(readyLimit); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+m.Port); err == nil {
			c.Close()
			break
		}
		select {
		case <-m.Server.ended:
			if strings.Contains(said.String(), removed) { // an etcd begins, and ends then
				return nil
			}
			return fmt.Errorf("member %s has ended: %s", m.Name, said)
		default:
		}
		if time.Now().After(until) {
			m.Server.command.Process.Kill()
			return fmt.Errorf("member %s does not listen", m.Name)
		}
	}
	err := m.bridged()
	if err != nil {
		return err
	}
	if m.Server.client, err = NewClientV3(&own); err != nil {
		return err
	}
	if m.Client == nil {
		m.Client, err = NewClientV3(m)
	}
	return err
}

func (m *Member) Close() {
	if m.GRPCBridge != nil {
		m.GRPCBridge.Close()
		m.GRPCBridge = nil
	}
	if m.ServerClient != nil { // a test's own
		m.ServerClient.Close()
		m.ServerClient = nil
	}
	if m.Server != nil && m.Server.client != nil {
		m.Server.Stop()
	}
	m.Closed = true
}

// Restart starts the member using the preserved data dir.
func (m *Member) Restart(_ testutil.TB) error {
	if m.GRPCListener != nil {
		if err := m.listenGRPC(); err != nil {
			return err
		}
	}
	return m.Launch()
}

// reject changes the rule by which packets to so many ports from one on are refused: of a member, or of all.
func reject(action string, from *Member, port, count int) error {
	rule := []string{"-w", action, "OUTPUT", "-p", "tcp", "--dport", fmt.Sprintf("%d:%d", port, port+count-1)}
	if from != nil {
		rule = append(rule, "-m", "owner", "--gid-owner", fmt.Sprint(firstGroup+from.UniqNumber))
	}
	rule = append(rule, "-j", "REJECT", "--reject-with", "tcp-reset")
	if said, err := exec.Command("iptables", rule...).CombinedOutput(); err != nil {
		return fmt.Errorf("no partition can be made here: %w %s", err, said)
	}
	return nil
}

func (m *Member) peerPort() int { return m.PeerListeners[0].Addr().(*net.TCPAddr).Port }

// apart: m from others, or together again.
func (m *Member) apart(t testing.TB, action string, others []*Member) {
	for _, other := range others {
		for from, to := range map[*Member]*Member{m: other, other: m} {
			if err := reject(action, from, to.peerPort(), peerPorts); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// alone: m from all others, or not any more. Clients reach it.
func (m *Member) alone(action string) {
	for _, err := range []error{
		reject(action, m, BasePort, BaseGRPCPort-BasePort), reject(action, nil, m.peerPort(), peerPorts),
	} {
		if err != nil {
			panic(err)
		}
	}
}

func (m *Member) Pause() { m.alone("-A") }

func (m *Member) Resume() { m.alone("-D") }

// InjectPartition drops connections from m to others, vice versa.
func (m *Member) InjectPartition(t testing.TB, others ...*Member) { m.apart(t, "-A", others) }

// RecoverPartition recovers connections from m to others, vice versa.
func (m *Member) RecoverPartition(t testing.TB, others ...*Member) { m.apart(t, "-D", others) }
