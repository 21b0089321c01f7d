package interop;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.kv.GetResponse;

/** The seed's configuration program (row S2-011), for today's jetcd. */
public final class ConfigManagement {
    public static void main(String[] args) throws Exception {
        try (Client client = Client.builder().endpoints(args).build()) {
            ByteSequence key = ByteSequence.from("config/db", UTF_8);
            client.getKVClient().put(key, ByteSequence.from("localhost:3306", UTF_8)).get();
            GetResponse response = client.getKVClient().get(key).get();
            System.out.println("Value: " + response.getKvs().get(0).getValue().toString(UTF_8));
        }
    }
}
