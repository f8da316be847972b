package watch

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// settings are one reading of how to reach an API server. What files held is in them, so that address and credentials
// always belong together, and nothing changes behind our back.
type settings struct {
	config *rest.Config
	// proxy is what is written of a proxy, "" for what the environment says.
	proxy string
	// plugin is the program that gives the credentials, nil when config has them.
	plugin *clientcmdapi.ExecConfig
	// files are those that were read, and sum tells whether one of them has changed since.
	files []string
	sum   digest
}

// server tells settings apart that lead to different servers, or trust different ones.
func (s settings) server() (digest, error) {
	c := s.config
	return digestOf(c.Host, c.ServerName, c.Insecure, c.CAData, s.proxy)
}

// identity tells settings apart in everything.
func (s settings) identity() (digest, error) {
	c := s.config
	server, err := s.server()
	if err != nil {
		return digest{}, err
	}
	return digestOf(server, c.BearerToken, c.Username, c.Password, c.CertData, c.KeyData, c.Impersonate, c.DisableCompression)
}

// check finds what would not work, before anybody is asked.
func (s settings) check() error {
	c := s.config
	if len(c.CAData) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.CAData) {
		return errors.New("the certificate authority is no PEM certificate")
	}
	if len(c.CertData) == 0 && len(c.KeyData) == 0 {
		return nil
	}
	return checkKeyPair(c.CertData, c.KeyData)
}

// checkKeyPair checks a client certificate and its key. The error shows nothing of either.
func checkKeyPair(certificate, key []byte) error {
	if firstCertificate(certificate) == nil {
		return errors.New("the client certificate is no PEM certificate")
	}
	_, err := tls.X509KeyPair(certificate, key)
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "does not match"):
		return errors.New("the client key does not belong to the client certificate")
	default:
		return errors.New("the client key is no PEM private key")
	}
}

// firstCertificate returns the first certificate of a PEM text, nil when there is none.
func firstCertificate(text []byte) *x509.Certificate {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return leaf
		}
	}
}

// reading reads files and notes which, and what was in them.
type reading struct {
	files []string
	sum   hash.Hash
}

func newReading() *reading { return &reading{sum: sha256.New()} }

func (r *reading) file(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	r.files = append(r.files, path)
	// With its length before it, so that nothing can move from one file to the next unnoticed.
	length := int64(len(text))
	if err != nil {
		length = -1
	}
	r.sum.Write(binary.BigEndian.AppendUint64(nil, uint64(length))) //nolint:gosec // any 64 bits will do
	r.sum.Write(text)
	return text, err
}

func (r *reading) digest() digest { return digest(r.sum.Sum(nil)) }

// changed reports whether a file is not what it was when the settings were read. It parses nothing.
func (s settings) changed() bool {
	r := newReading()
	for _, path := range s.files {
		_, _ = r.file(path) // that it cannot be read is in the sum
	}
	return r.digest() != s.sum
}

// inline replaces a path by the content of the file, unless there is content already, which takes precedence.
func (r *reading) inline(content *[]byte, path *string) error {
	if len(*content) > 0 || *path == "" {
		*path = ""
		return nil
	}
	text, err := r.file(*path)
	*content, *path = text, ""
	return err
}

// token replaces a token by the content of a file that can be read, as client-go does.
func (r *reading) token(token, path *string) error {
	if *path == "" {
		*token = strings.TrimSpace(*token)
		return nil
	}
	text, err := r.file(*path)
	from := *path
	*path = ""
	if got := strings.TrimSpace(string(text)); got != "" {
		*token = got
	}
	switch {
	case *token != "":
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("the token file %s is empty", from)
	}
}

// readFiles makes settings of a configuration that names files.
func readFiles(config *rest.Config) (settings, error) {
	config = tuned(config)
	r := newReading()
	err := errors.Join(
		r.token(&config.BearerToken, &config.BearerTokenFile),
		r.inline(&config.CAData, &config.CAFile),
		r.inline(&config.CertData, &config.CertFile),
		r.inline(&config.KeyData, &config.KeyFile),
	)
	if err != nil {
		return settings{}, err
	}
	out := settings{config: config, files: r.files, sum: r.digest()}
	return out, out.check()
}
