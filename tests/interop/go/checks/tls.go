package checks

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// flags, which other programs have in other meanings
var cacert, cert, key *string

// secure is what clients speak TLS with: nothing without -cacert.
func secure() *tls.Config {
	if *cacert == "" {
		return nil
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	must(config.RootCAs.AppendCertsFromPEM(ok(os.ReadFile(*cacert))("read -cacert")), "no certificate in %s", *cacert)
	if *cert != "" {
		config.Certificates = []tls.Certificate{ok(tls.LoadX509KeyPair(*cert, *key))("load -cert and -key")}
	}
	return config
}
