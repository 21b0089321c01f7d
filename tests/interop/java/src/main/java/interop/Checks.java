package interop;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Collectors;

/** jetcd in breadth: one line "ok NAME" for each check, or what was wrong and exit code 1. */
public final class Checks {
    private static final String DIRECTORY = "jetcd/" + System.nanoTime() + "/";
    /** With -Dapart each key is in a directory of its own, so that they lie on all shards of a server that has several. */
    private static final String PREFIX = System.getProperty("apart") == null ? DIRECTORY : DIRECTORY.replace('/', '-');
    private static Client client;
    private static KV kv;

    private interface Check {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        client = Client.builder().endpoints(args).build();
        kv = client.getKVClient();
        check("kv", Checks::kv);
        check("txn", Checks::txn);
        check("watch", Checks::watch);
        check("lease", Checks::lease);
        check("cluster", Checks::cluster);
        check("maintenance", () -> maintenance(args));
        client.close();
    }

    private static void check(String name, Check check) {
        try {
            check.run();
            System.out.println("ok " + name);
        } catch (Throwable wrong) {
            System.out.println(name + ": " + wrong);
            wrong.printStackTrace();
            System.exit(1);
        }
    }

    private static void must(boolean condition, String otherwise) {
        if (!condition) {
            throw new AssertionError(otherwise);
        }
    }

    private static void equal(Object found, Object expected, String what) {
        must(found.equals(expected), what + ": got " + found + ", expected " + expected);
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text, UTF_8);
    }

    private static ByteSequence key(String name) {
        return bytes(PREFIX + name);
    }

    private static <T> T got(CompletableFuture<T> future) throws Exception {
        return future.get(10, SECONDS);
    }

    private static void refused(CompletableFuture<?> future, String text, String what) throws Exception {
        try {
            got(future);
        } catch (ExecutionException wrapped) {
            must(String.valueOf(wrapped.getCause()).contains(text), what + ": refused with " + wrapped.getCause());
            return;
        }
        throw new AssertionError(what + " was not refused");
    }

    private static String names(List<KeyValue> found) {
        return found.stream().map(one -> one.getKey().toString(UTF_8).substring(PREFIX.length()))
                .collect(Collectors.joining(" "));
    }

    private static void kv() throws Exception {
        long first = got(kv.put(key("a"), bytes("1"))).getHeader().getRevision();
        var second = got(kv.put(key("a"), bytes("2"), PutOption.builder().withPrevKV().build()));
        equal(second.getPrevKv().getValue(), bytes("1"), "prev_kv");
        KeyValue found = got(kv.get(key("a"))).getKvs().get(0);
        equal(found.getVersion(), 2L, "version");
        equal(found.getCreateRevision(), first, "create_revision");
        equal(found.getModRevision(), second.getHeader().getRevision(), "mod_revision");
        got(kv.put(key("b"), bytes("b")));
        got(kv.put(key("c"), bytes("c")));
        GetOption all = GetOption.builder().isPrefix(true).withSortField(GetOption.SortTarget.KEY)
                .withSortOrder(GetOption.SortOrder.DESCEND).build();
        equal(names(got(kv.get(key(""), all)).getKvs()), "c b a", "descending keys");
        var limited = got(kv.get(key(""), GetOption.builder().isPrefix(true).withLimit(2).build()));
        equal(names(limited.getKvs()), "a b", "two keys");
        must(limited.isMore() && limited.getCount() == 3, "more " + limited.isMore() + ", count " + limited.getCount());
        equal(got(kv.get(key("a"), GetOption.builder().withRevision(first).build())).getKvs().get(0).getValue(),
                bytes("1"), "value at the first revision");
        equal(got(kv.delete(key("a"))).getDeleted(), 1L, "deleted");
        equal(got(kv.delete(key(""), DeleteOption.builder().isPrefix(true).withPrevKV(true).build())).getPrevKvs()
                .size(), 2, "prev_kvs of a deleted prefix");
        long last = got(kv.put(key("a"), bytes("3"))).getHeader().getRevision();
        got(kv.compact(last));
        refused(kv.get(key("a"), GetOption.builder().withRevision(first).build()),
                "etcdserver: mvcc: required revision has been compacted", "a read below the compaction");
    }

    private static void txn() throws Exception {
        ByteSequence lock = key("lock");
        for (boolean expected : new boolean[] {true, false}) {
            TxnResponse response = got(kv.txn().If(new Cmp(lock, Cmp.Op.EQUAL, CmpTarget.createRevision(0)))
                    .Then(Op.put(lock, bytes("mine"), PutOption.DEFAULT)).Else(Op.get(lock, GetOption.DEFAULT)).commit());
            equal(response.isSucceeded(), expected, "creation");
            if (!expected) {
                equal(response.getGetResponses().get(0).getKvs().get(0).getValue(), bytes("mine"), "what the loser sees");
            }
        }
        refused(kv.txn().Then(Op.put(lock, bytes("1"), PutOption.DEFAULT), Op.put(lock, bytes("2"), PutOption.DEFAULT))
                .commit(), "etcdserver: duplicate key given in txn request", "two puts of one key");
    }

    private static void watch() throws Exception {
        BlockingQueue<String> told = new LinkedBlockingQueue<>();
        CompletableFuture<Throwable> compacted = new CompletableFuture<>();
        WatchOption option = WatchOption.builder().isPrefix(true).withPrevKV(true).withCreateNotify(true).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(key("w/"), option, response -> tell(response, told));
                Watch.Watcher old = client.getWatchClient().watch(key("w/"), WatchOption.builder().withRevision(1).build(),
                        Watch.listener(response -> { }, compacted::complete))) {
            equal(told.poll(10, SECONDS), "created", "first response");
            got(kv.put(key("w/a"), bytes("1")));
            got(kv.put(key("w/a"), bytes("2")));
            got(kv.delete(key("w/a")));
            List<String> found = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                found.add(told.poll(10, SECONDS));
            }
            equal(String.join(", ", found), "PUT 1, PUT 2 was 1, DELETE  was 2", "events");
            Throwable error = compacted.get(10, SECONDS);
            must(error instanceof CompactedException, "a watch of the compacted past ended with " + error);
        }
    }

    private static void tell(WatchResponse response, BlockingQueue<String> told) {
        if (response.getEvents().isEmpty()) {
            told.add("created");
        }
        for (WatchEvent event : response.getEvents()) {
            String before = event.getPrevKV().getVersion() == 0 ? "" : " was " + event.getPrevKV().getValue().toString(UTF_8);
            told.add(event.getEventType() + " " + event.getKeyValue().getValue().toString(UTF_8) + before);
        }
    }

    private static void lease() throws Exception {
        var leases = client.getLeaseClient();
        long id = got(leases.grant(2)).getID();
        got(kv.put(key("leased"), bytes(""), PutOption.builder().withLeaseId(id).build()));
        BlockingQueue<Long> answers = new LinkedBlockingQueue<>();
        try (CloseableClient alive = leases.keepAlive(id, new StreamObserver<LeaseKeepAliveResponse>() {
            @Override
            public void onNext(LeaseKeepAliveResponse answer) {
                answers.add(answer.getTTL());
            }

            @Override
            public void onError(Throwable error) {
                answers.add(-1L);
            }

            @Override
            public void onCompleted() {
                answers.add(-2L);
            }
        })) {
            for (int i = 0; i < 5; i++) {
                equal(answers.poll(10, SECONDS), 2L, "TTL of keep-alive " + i);
            }
        }
        var left = got(leases.timeToLive(id, LeaseOption.builder().withAttachedKeys().build()));
        equal(left.getGrantedTTL(), 2L, "granted TTL");
        equal(left.getKeys(), List.of(key("leased")), "attached keys");
        equal(got(leases.keepAliveOnce(id)).getTTL(), 2L, "TTL of one keep-alive");
        got(leases.revoke(id));
        equal(got(kv.get(key("leased"))).getCount(), 0L, "count of the key of a revoked lease");
        refused(leases.revoke(id), "etcdserver: requested lease not found", "a second revoke");
    }

    private static void cluster() throws Exception {
        equal(got(client.getClusterClient().listMember()).getMembers().size(), 3, "members");
    }

    private static void maintenance(String[] endpoints) throws Exception {
        int leaders = 0;
        for (String endpoint : endpoints) {
            var status = got(client.getMaintenanceClient().statusMember(endpoint));
            must(status.getVersion().startsWith("3."), "version " + status.getVersion());
            leaders += status.getLeader() == status.getHeader().getMemberId() ? 1 : 0;
        }
        equal(leaders, 1, "hosts that lead");
    }

    private Checks() {}
}
