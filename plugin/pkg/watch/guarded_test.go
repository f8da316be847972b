package watch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// guardedServer is an apiServer over TLS that wants to know who asks: by a bearer token, or by the common name of a
// client certificate.
type guardedServer struct {
	*apiServer
	tls *httptest.Server

	mu       sync.Mutex // guards what follows
	accepts  map[string]bool
	requests []request
	// refusal, where there is one, writes another answer than 401.
	refusal http.HandlerFunc
	// busy answers 429 once to a request with that value of the parameter watch.
	busy func(watch string) bool
}

// request is who asked for what.
type request struct {
	who, path string
	watch     bool
	nothing   bool // can be matched: it only asks whether and how
	at        time.Time
	status    int
}

func newGuardedServer(t *testing.T, accepts ...string) *guardedServer {
	t.Helper()
	g := &guardedServer{apiServer: newAPIServer(t), accepts: map[string]bool{}}
	g.accept(accepts...)
	g.tls = httptest.NewUnstartedServer(http.HandlerFunc(g.guard))
	g.tls.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	g.tls.EnableHTTP2 = true
	g.tls.Config.ErrorLog = nil
	g.tls.StartTLS()
	t.Cleanup(func() {
		_ = g.tls.Listener.Close() // first: nobody must come back in between
		g.tls.CloseClientConnections()
		g.tls.Close()
	})
	return g
}

// accept replaces those who may ask.
func (g *guardedServer) accept(who ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.accepts)
	for _, w := range who {
		g.accepts[w] = true
	}
}

func (g *guardedServer) guard(w http.ResponseWriter, r *http.Request) {
	who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if len(r.TLS.PeerCertificates) > 0 {
		who = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	g.mu.Lock()
	accepted, refusal := g.accepts[who], g.refusal
	status := http.StatusOK
	if !accepted {
		status = http.StatusUnauthorized
	} else if g.busy != nil && g.busy(r.URL.Query().Get("watch")) {
		status = http.StatusTooManyRequests
	}
	g.requests = append(g.requests, request{who, r.URL.Path, r.URL.Query().Get("watch") != "", r.URL.Query().Get("limit") == "1", time.Now(), status})
	g.mu.Unlock()
	switch {
	case status == http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		g.refuse(w, status)
	case accepted:
		g.serve(w, r)
	case refusal != nil:
		refusal(w, r)
	default:
		g.refuse(w, http.StatusUnauthorized)
	}
}

// asked returns the requests that somebody has made; "" means anybody.
func (g *guardedServer) askedBy(who string) []request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.requests), func(r request) bool { return who != "" && r.who != who })
}

// watchedBy waits until somebody watches everything that a member exports.
func (g *guardedServer) watchedBy(t *testing.T, who string) {
	t.Helper()
	eventually(t, "everything is watched by "+who, func() bool {
		resources := map[string]bool{}
		for _, r := range g.askedBy(who) {
			if r.watch && r.status == http.StatusOK {
				resources[filepath.Base(r.path)] = true
			}
		}
		return resources["serviceexports"] && resources["services"] && resources["endpointslices"]
	})
}

// lists is how many full lists there were.
func (g *guardedServer) lists() (n int) {
	for _, r := range g.askedBy("") {
		if !r.watch && !r.nothing && r.status == http.StatusOK && strings.Contains(r.path, "service") {
			n++
		}
	}
	return n
}

// busyOnce makes the server answer the first list or watch with 429 and Retry-After: 1.
func (g *guardedServer) busyOnce(watch string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	done := false
	g.busy = func(got string) bool {
		if got != watch || done {
			return false
		}
		done = true
		return true
	}
}

// ca is the server's certificate as PEM.
func (g *guardedServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.tls.Certificate().Raw})
}

// kubeconfigOf is a kubeconfig for the server whose user is as given, in YAML flow style.
func (g *guardedServer) kubeconfigOf(user string) string {
	return kubeconfigText(g.tls.URL, "certificate-authority-data: "+base64.StdEncoding.EncodeToString(g.ca()), user)
}

func kubeconfigText(server, trust, user string) string {
	if trust != "" {
		trust = ", " + trust
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: %q%s}}]
users: [{name: it, user: {%s}}]
contexts: [{name: it, context: {cluster: it, user: it}}]
`, server, trust, user)
}

// certificate is a client certificate for that name and its key, both PEM.
func certificate(tb testing.TB, name string, end time.Time) (certPEM, keyPEM []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// write writes a file, as an editor would: whole, in its place.
func write(tb testing.TB, path string, text []byte) {
	tb.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

// load loads a kubeconfig whose files are looked at often.
func load(tb testing.TB, path string) Connection {
	tb.Helper()
	c, err := LoadKubeconfig(path, "")
	if err != nil {
		tb.Fatal(err)
	}
	c.access.look = 10 * time.Millisecond
	return c
}
