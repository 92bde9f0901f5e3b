import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;

/** Writes Java's store of trusted certificates from a folder of PEM files: TrustStore FOLDER STORE. */
public final class TrustStore {
    public static void main(String[] arguments) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        KeyStore store = KeyStore.getInstance("JKS");
        store.load(null, null);
        List<Path> files;
        try (var found = Files.walk(Path.of(arguments[0]))) {
            files = found.filter(path -> path.toString().endsWith(".crt")).sorted().toList();
        }
        for (Path file : files) {
            try (InputStream input = Files.newInputStream(file)) {
                store.setCertificateEntry(file.getFileName().toString(), factory.generateCertificate(input));
            }
        }
        try (OutputStream output = Files.newOutputStream(Path.of(arguments[1]))) {
            // Java's own password for a store that holds no secrets.
            store.store(output, "changeit".toCharArray());
        }
    }
}
