package checks

import (
	"bytes"
	"crypto/sha256"
	"io"
	"sort"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

func init() {
	checks["members"] = members
	checks["status"] = status
	checks["hash-kv"] = hashKV
	checks["snapshot"] = snapshot
	checks["alarms"] = alarms
	checks["naming-endpoints"] = naming
}

func members(e *env) {
	list := ok(e.client.MemberList(e.ctx))("member list")
	equal(len(list.Members), len(e.endpoints), "members")
	found := make([]string, 0)
	ids, names := map[uint64]bool{}, map[string]bool{}
	for _, member := range list.Members {
		ids[member.ID], names[member.Name] = true, true
		must(!member.IsLearner, "member %s is a learner", member.Name)
		must(len(member.PeerURLs) > 0, "member %s has no peer URL", member.Name)
		for _, url := range member.ClientURLs {
			found = append(found, strings.TrimPrefix(url, "http://"))
		}
	}
	equal(len(ids), len(e.endpoints), "different member IDs")
	equal(len(names), len(e.endpoints), "different member names")
	expected := append([]string{}, e.endpoints...)
	sort.Strings(found)
	sort.Strings(expected)
	equal(strings.Join(found, " "), strings.Join(expected, " "), "client URLs")

	one := dial(e.endpoints[0])
	defer one.Close()
	done(one.Sync(e.ctx), "sync")
	equal(len(one.Endpoints()), len(e.endpoints), "endpoints after Sync")
	ok(one.Get(e.ctx, "k"))("get after Sync")
}

func status(e *env) {
	leaders, clusters, ids, leading := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}, 0
	for _, endpoint := range e.endpoints {
		resp := ok(e.client.Status(e.ctx, endpoint))("status of " + endpoint)
		leaders[resp.Leader], clusters[resp.Header.ClusterId], ids[resp.Header.MemberId] = true, true, true
		if resp.Leader == resp.Header.MemberId {
			leading++
		}
		must(strings.HasPrefix(resp.Version, "3."), "version %q of %s", resp.Version, endpoint)
		must(resp.RaftTerm > 0, "raft term 0 at %s", endpoint)
		must(resp.RaftIndex >= resp.RaftAppliedIndex && resp.RaftAppliedIndex > 0, "raft index %d, applied %d at %s", resp.RaftIndex, resp.RaftAppliedIndex, endpoint)
		must(resp.DbSize > 0 && resp.DbSize >= resp.DbSizeInUse, "db size %d, in use %d at %s", resp.DbSize, resp.DbSizeInUse, endpoint)
		must(!resp.IsLearner, "%s is a learner", endpoint)
		equal(len(resp.Errors), 0, "errors of "+endpoint)
	}
	equal(len(clusters), 1, "cluster IDs")
	equal(len(leaders), 1, "leaders that the members name")
	equal(leading, 1, "members that lead")
	equal(len(ids), len(e.endpoints), "member IDs")
}

func hashKV(e *env) {
	for _, name := range strings.Fields("a b c") {
		e.put(name, "v")
	}
	revision := e.get("a").Header.Revision
	hashes := map[uint32]bool{}
	for _, endpoint := range e.endpoints {
		host := dial(endpoint)
		ok(host.Get(e.ctx, "k"))("linearizable read at " + endpoint) // it has applied the revision then
		resp := ok(e.client.HashKV(e.ctx, endpoint, revision))("hash of " + endpoint)
		hashes[resp.Hash] = true
		host.Close()
	}
	equal(len(hashes), 1, "different hashes of one revision")
	e.put("a", "another")
	e.settle("a") // a hash is of what the asked host has applied
	resp := ok(e.client.HashKV(e.ctx, e.endpoints[0], 0))("hash after a put")
	must(!hashes[resp.Hash], "the hash does not depend on what is stored")
	_, err := e.client.HashKV(e.ctx, e.endpoints[0], revision+100000)
	refused(err, rpctypes.ErrFutureRev, "a hash in the future")
}

func snapshot(e *env) {
	marker := strings.Repeat("snapshot of "+e.prefix, 3)
	e.put("marker", marker)
	for _, endpoint := range e.endpoints {
		host := dial(endpoint)
		ok(host.Get(e.ctx, "k"))("linearizable read at " + endpoint)
		reader := ok(host.Snapshot(e.ctx))("snapshot of " + endpoint)
		data := ok(io.ReadAll(reader))("reading the snapshot of " + endpoint)
		equal(len(data)%512, sha256.Size, "size of the snapshot of "+endpoint+" modulo 512")
		body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
		computed := sha256.Sum256(body)
		must(bytes.Equal(computed[:], sum), "the snapshot of %s does not have the checksum at its end", endpoint)
		must(len(body) > len(marker), "the snapshot of %s has %d bytes", endpoint, len(body))
		host.Close()
	}
}

func alarms(e *env) {
	equal(len(ok(e.client.AlarmList(e.ctx))("alarms").Alarms), 0, "alarms")
}

func naming(e *env) {
	manager := ok(endpoints.NewManager(e.client, e.key("service")))("manager")
	updates := ok(manager.NewWatchChannel(e.ctx))("watch")
	done(manager.AddEndpoint(e.ctx, e.key("service/1"), endpoints.Endpoint{Addr: "10.0.0.1:80", Metadata: "one"}), "add")
	first := <-updates
	equal(len(first), 1, "updates")
	equal(first[0].Endpoint.Addr, "10.0.0.1:80", "address of the update")
	e.settle("service/1")
	listed := ok(manager.List(e.ctx))("list")
	equal(listed[e.key("service/1")].Addr, "10.0.0.1:80", "listed address")
	done(manager.DeleteEndpoint(e.ctx, e.key("service/1")), "delete")
	equal((<-updates)[0].Op, endpoints.Delete, "second update")
}
