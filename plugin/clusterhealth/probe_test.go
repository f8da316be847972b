package clusterhealth

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// listen opens a port on the loopback interface.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// closedPort is one where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l := listen(t)
	l.Close()
	return l.Addr().String()
}

// silent accepts connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return l.Addr().String()
}

// serve runs an HTTP server.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func serveTLS(t *testing.T, h http.HandlerFunc) (url string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.URL, roots
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// serveGRPC runs the standard health service.
func serveGRPC(t *testing.T) (string, *grpchealth.Server) {
	t.Helper()
	l := listen(t)
	s, h := grpc.NewServer(), grpchealth.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != nil {
			t.Errorf("Serving gRPC failed: %v", err)
		}
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), h
}

// ask probes once.
func ask(t *testing.T, p probe, roots *x509.CertPool, timeout time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	start := time.Now()
	err := newProber(p, roots)(ctx)
	if took := time.Since(start); took > timeout+2*time.Second {
		t.Errorf("Expected the probe to end with its timeout of %v, took %v", timeout, took)
	}
	return err
}

// check fails unless a probe went well, or failed as it should.
func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("Expected a good probe, got %v", err)
	case want != "" && err == nil:
		t.Errorf("Expected a failure with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("Expected %q in %q", want, err)
	}
}

const (
	enough = 5 * time.Second
	short  = 200 * time.Millisecond
)

func TestTCPProbe(t *testing.T) {
	alive := listen(t).Addr().String()
	_, port, _ := net.SplitHostPort(alive)
	tests := []struct {
		name    string
		target  string
		timeout time.Duration
		want    string
	}{
		{"a listener is good", alive, enough, ""},
		{"a listener that says nothing is good", silent(t), enough, ""},
		{"a closed port is refused", closedPort(t), enough, "connection refused"},
		{"a name is resolved", "localhost:" + port, enough, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			check(t, ask(t, probe{kind: kindTCP, target: tc.target}, nil, tc.timeout), tc.want)
		})
	}
}

func TestTCPProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, tcpProber(listen(t).Addr().String())(ctx), "operation was canceled")
}

func TestHTTPProbe(t *testing.T) {
	release := make(chan struct{})
	hang := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	t.Cleanup(func() { close(release) })
	dead := closedPort(t)
	other, _ := serveGRPC(t)
	tests := []struct {
		name    string
		target  string
		timeout time.Duration
		want    string
	}{
		{"200 is good", serve(t, status(200)), enough, ""},
		{"204 is good", serve(t, status(204)), enough, ""},
		{"304 is good", serve(t, status(304)), enough, ""},
		{"404 is bad", serve(t, status(404)), enough, "status 404, 200 to 399 is good"},
		{"429 is bad", serve(t, status(429)), enough, "status 429"},
		{"503 is bad", serve(t, status(503)), enough, "status 503"},
		{"a redirect is good and is not followed", serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+dead, http.StatusFound)
		}), enough, ""},
		{"a server that hangs is bad", serve(t, hang), short, "deadline exceeded"},
		{"a server that accepts and says nothing is bad", "http://" + silent(t), short, "deadline exceeded"},
		{"a closed port is bad", "http://" + closedPort(t), enough, "connection refused"},
		{"a slow server is good within the timeout", serve(t, func(w http.ResponseWriter, _ *http.Request) {
			<-time.After(short)
			w.WriteHeader(http.StatusOK)
		}), enough, ""},
		{"a body without an end is not read", serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}), enough, ""},
		{"headers of 400 kB are bad", serve(t, func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1<<12))
			}
			w.WriteHeader(http.StatusOK)
		}), enough, "exceeded"},
		// Whether its frames or our request come first decides how net/http puts it.
		{"a server that speaks something else is bad", "http://" + other, enough, "Get \"http://" + other},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			check(t, ask(t, probe{kind: kindHTTP, target: tc.target}, nil, tc.timeout), tc.want)
		})
	}
}

// Loopback addresses never go through a proxy, so this cannot be seen from outside.
func TestHTTPProbeUsesNoProxy(t *testing.T) {
	if transport(nil).Proxy != nil {
		t.Error("Expected no proxy")
	}
}

func TestHTTPProbeIntroducesItselfOnAConnectionOfItsOwn(t *testing.T) {
	var requests, connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.UserAgent() != "clusterset-dns" || r.Method != http.MethodGet || r.URL.Path != "/healthz" {
			t.Errorf("Expected GET /healthz of clusterset-dns, got %s %s of %q", r.Method, r.URL.Path, r.UserAgent())
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	ask := newProber(probe{kind: kindHTTP, target: s.URL + "/healthz"}, nil)
	for range 3 {
		if err := ask(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if requests.Load() != 3 || connections.Load() != 3 {
		t.Errorf("Expected a connection for each of 3 requests, got %d and %d", connections.Load(), requests.Load())
	}
}

func TestHTTPSProbe(t *testing.T) {
	target, roots := serveTLS(t, status(200))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(target, "https://"))
	tests := []struct {
		name   string
		target string
		roots  *x509.CertPool
		want   string
	}{
		{"a known authority is good", target, roots, ""},
		{"an unknown authority is bad", target, nil, "certificate"},
		{"an authority that signed something else is bad", target, x509.NewCertPool(), "certificate"},
		{"another name is bad", "https://localhost:" + port, roots, "certificate is valid for"},
		{"a server without TLS is bad", "https://" + strings.TrimPrefix(serve(t, status(200)), "http://"), roots, "HTTP response to HTTPS client"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			check(t, ask(t, probe{kind: kindHTTPS, target: tc.target}, tc.roots, enough), tc.want)
		})
	}
}

func TestGRPCProbe(t *testing.T) {
	target, h := serveGRPC(t)
	h.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
	h.SetServingStatus("shop.Sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	tests := []struct {
		name            string
		target, service string
		timeout         time.Duration
		want            string
	}{
		{"a server that serves is good", target, "", enough, ""},
		{"a service that serves is good", target, "shop.Cart", enough, ""},
		{"a service that does not serve is bad", target, "shop.Sick", enough, "status NOT_SERVING, SERVING is good"},
		{"a service that nobody knows is bad", target, "shop.Other", enough, "unknown service"},
		{"a closed port is bad", closedPort(t), "", enough, "connection refused"},
		{"a server that accepts and says nothing is bad", silent(t), "", short, "DeadlineExceeded"},
		{"a server that speaks something else is bad", strings.TrimPrefix(serve(t, status(200)), "http://"), "", enough, "Unavailable"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			check(t, ask(t, probe{kind: kindGRPC, target: tc.target, service: tc.service}, nil, tc.timeout), tc.want)
		})
	}
}
