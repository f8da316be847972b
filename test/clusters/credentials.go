package clusters

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Files of a cluster's folder.
const (
	servingCertFile     = "serving.crt" // also the CA that clients trust
	servingKeyFile      = "serving.key"
	clientCAFile        = "client-ca.crt" // signs client certificates
	accountKeyFile      = "service-account.key"
	tokenFile           = "tokens.csv"
	auditPolicyFile     = "audit-policy.yaml"
	auditLogFile        = "audit.log"
	adminKubeconfigFile = "admin.kubeconfig"
	dnsKubeconfigFile   = "clusterset-dns.kubeconfig"
)

// certValidity is longer than any demo stays up.
const certValidity = 365 * 24 * time.Hour

// auditPolicy logs who asked for what, once per request: a watch when it starts and when it ends, anything else when
// it is answered. The API server's requests to itself are left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ["system:apiserver"]
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
  - level: Metadata
`

// credentials are the secrets of one cluster. New ones are made for every start.
type credentials struct {
	adminToken  string
	ca          []byte // PEM
	clientCA    *x509.Certificate
	clientCAKey *ecdsa.PrivateKey
}

// writeCredentials fills dir with the files that an API server needs before it starts. others are its addresses beside those
// of loopback.
func writeCredentials(dir string, others []netip.Addr) (credentials, error) {
	cert, key, err := servingPair(others)
	if err != nil {
		return credentials{}, err
	}
	_, accountKey, err := newKey()
	if err != nil {
		return credentials{}, err
	}
	clientCA, clientCAKey, err := newClientCA()
	if err != nil {
		return credentials{}, err
	}
	c := credentials{adminToken: rand.Text(), ca: cert, clientCA: clientCA, clientCAKey: clientCAKey}
	for name, content := range map[string][]byte{
		servingCertFile: cert,
		servingKeyFile:  key,
		clientCAFile:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: clientCA.Raw}),
		accountKeyFile:  accountKey,
		tokenFile:       []byte(c.adminToken + ",admin,admin,system:masters\n"),
		auditPolicyFile: []byte(auditPolicy),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return credentials{}, err
		}
	}
	return c, nil
}

// servingPair returns a certificate for the loopback addresses and others that is its own CA, and its key, both PEM.
func servingPair(others []netip.Addr) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certValidity),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, //nolint:forbidigo // x509 wants net.IP
	}
	for _, address := range others {
		template.IPAddresses = append(template.IPAddresses, address.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the serving certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

// newClientCA returns a CA that signs client certificates, and its key.
func newClientCA() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, _, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "client-ca"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certValidity),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA of clients: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

// clientPair returns a certificate that identifies its holder as a user, and its key, both PEM.
func (c credentials) clientPair(user string, end time.Time) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: user},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, c.clientCA, &key.PublicKey, c.clientCAKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate of %s: %w", user, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

// newKey returns an ECDSA key, also as PEM. RSA keys would take longer to make than etcd to start.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// config returns a client configuration that trusts the cluster's CA, without client-side throttling.
func (c credentials) config(url, token string) *rest.Config {
	return &rest.Config{
		Host:            url,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca},
		QPS:             -1,
	}
}

// writeKubeconfig writes a kubeconfig with everything inline, readable by its owner only.
func (c credentials) writeKubeconfig(path, context, namespace, url, token string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters[context] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: c.ca}
	config.AuthInfos[context] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[context] = &clientcmdapi.Context{Cluster: context, AuthInfo: context, Namespace: namespace}
	config.CurrentContext = context
	// WriteToFile keeps the mode of a file that exists, so an old one goes first.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return clientcmd.WriteToFile(*config, path)
}
