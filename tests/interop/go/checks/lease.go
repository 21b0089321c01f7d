package checks

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func init() {
	checks["lease"] = lease
	checks["lease-keep-alive"] = leaseKeepAlive
	checks["lease-expires"] = leaseExpires
}

func lease(e *env) {
	granted := ok(e.client.Grant(e.ctx, 600))("grant")
	equal(granted.TTL, 600, "TTL")
	must(granted.ID > 0, "lease ID %d", granted.ID)
	e.put("a", "1", clientv3.WithLease(granted.ID))
	e.put("b", "1", clientv3.WithLease(granted.ID))
	equal(e.get("a").Kvs[0].Lease, int64(granted.ID), "lease of the key")
	e.put("b", "2", clientv3.WithIgnoreLease())
	equal(e.get("b").Kvs[0].Lease, int64(granted.ID), "lease of the key after a put that ignores it")
	left := ok(e.client.TimeToLive(e.ctx, granted.ID, clientv3.WithAttachedKeys()))("time to live")
	equal(left.GrantedTTL, 600, "granted TTL")
	must(left.TTL > 590 && left.TTL <= 600, "TTL left %d", left.TTL)
	equal(len(left.Keys), 2, "attached keys")
	e.put("b", "3")
	equal(len(ok(e.client.TimeToLive(e.ctx, granted.ID, clientv3.WithAttachedKeys()))("time to live").Keys), 1, "attached keys after a put without the lease")
	listed := false
	for _, status := range ok(e.client.Leases(e.ctx))("leases").Leases {
		listed = listed || status.ID == granted.ID
	}
	must(listed, "the lease is not listed")

	revoked := ok(e.client.Revoke(e.ctx, granted.ID))("revoke")
	equal(e.get("a").Count, 0, "count of the key with the revoked lease")
	equal(e.get("b").Count, 1, "count of the key that had left the lease")
	must(revoked.Header.Revision > 0, "revision %d", revoked.Header.Revision)
	_, err := e.client.Revoke(e.ctx, granted.ID)
	refused(err, rpctypes.ErrLeaseNotFound, "a second revoke")
	_, err = e.client.Put(e.ctx, e.key("a"), "", clientv3.WithLease(granted.ID))
	refused(err, rpctypes.ErrLeaseNotFound, "a put with the revoked lease")
	_, err = e.client.KeepAliveOnce(e.ctx, granted.ID)
	refused(err, rpctypes.ErrLeaseNotFound, "a keep-alive of the revoked lease")
	equal(ok(e.client.TimeToLive(e.ctx, granted.ID))("time to live of the revoked lease").TTL, -1, "TTL of the revoked lease")
	_, err = e.client.Grant(e.ctx, 10_000_000_000)
	refused(err, rpctypes.ErrLeaseTTLTooLarge, "a lease of 300 years")
}

func leaseKeepAlive(e *env) {
	granted := ok(e.client.Grant(e.ctx, 2))("grant")
	e.put("k", "", clientv3.WithLease(granted.ID))
	ctx, cancel := context.WithCancel(e.ctx)
	answers := ok(e.client.KeepAlive(ctx, granted.ID))("keep alive")
	for begin := time.Now(); time.Since(begin) < 5*time.Second; { // more than twice its time
		select {
		case answer := <-answers:
			must(answer != nil, "the keep-alive has ended")
			equal(answer.TTL, 2, "TTL of a keep-alive")
		case <-time.After(1900 * time.Millisecond):
			fail("no keep-alive for 1.9 s")
		}
	}
	equal(e.get("k").Count, 1, "count of the key kept alive")
	cancel()
	equal(ok(e.client.KeepAliveOnce(e.ctx, granted.ID))("keep alive once").TTL, 2, "TTL of one keep-alive")
	ok(e.client.Revoke(e.ctx, granted.ID))("revoke")
}

func leaseExpires(e *env) {
	granted := ok(e.client.Grant(e.ctx, 2))("grant")
	begin := time.Now()
	e.put("a", "1", clientv3.WithLease(granted.ID))
	last := e.put("b", "2", clientv3.WithLease(granted.ID)).Header.Revision
	responses := e.client.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(last+1))
	equal(told(e, responses, 2), "DELETE a= was 1, DELETE b= was 2", "events of the expiry")
	took := time.Since(begin)
	must(took > 1900*time.Millisecond, "a lease of 2 s expired after %v", took)
	must(took < 5*time.Second, "a lease of 2 s expired only after %v", took)
	left := ok(e.client.TimeToLive(e.ctx, granted.ID))("time to live").TTL // 0: etcd tells of the keys first
	must(left <= 0, "TTL of the expired lease: %d", left)
}
