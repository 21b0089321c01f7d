package interop;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.options.PutOption;

/** The seed's registration program (row S2-012), for today's jetcd: a lease of 5 s that nobody keeps alive. */
public final class ServiceRegistration {
    public static void main(String[] args) throws Exception {
        try (Client client = Client.builder().endpoints(args).build()) {
            ByteSequence key = ByteSequence.from("services/service1", UTF_8);
            ByteSequence value = ByteSequence.from("192.168.0.1:8080", UTF_8);
            long lease = client.getLeaseClient().grant(5).get().getID();
            client.getKVClient().put(key, value, PutOption.builder().withLeaseId(lease).build()).get();
            System.out.println("Service registered successfully");
        }
    }
}
