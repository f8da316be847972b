package members

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// tlsDomain holds the names for which the certificate is good besides 127.0.0.1. client-go shares connections between
// configurations that are the same for TLS: clients of one API server that give it different names have each their own.
const tlsDomain = "members.invalid"

// Server is the API servers of a world.
type Server struct {
	world   World
	members []*Member
	caPEM   []byte
	serving sync.WaitGroup

	// written counts what went out, in octets, with all that TLS adds.
	written atomic.Int64

	mu       sync.Mutex // guards what follows
	traffic  []Traffic
	handling int           // requests
	idle     chan struct{} // not nil while it is closing, closed when no request is left
}

// Kind says what a client did.
type Kind uint8

// The kinds of traffic.
const (
	// Connection is a connection that was accepted.
	Connection Kind = iota
	// Request is a request for anything but a watch.
	Request
	Watch
)

// Traffic is one thing that a client did.
type Traffic struct {
	At     time.Time
	Member int
	Kind
}

// Start starts the API servers of a world, each on a port of 127.0.0.1.
func Start(w World) (*Server, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	certificate, caPEM, err := newCertificate()
	if err != nil {
		return nil, err
	}
	s := &Server{world: w, caPEM: caPEM}
	for i := range w.Members {
		if err := s.add(i, certificate); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *Server) add(number int, certificate tls.Certificate) error {
	listens, err := newDoor(s, number)
	if err != nil {
		return fmt.Errorf("listen for cluster %d: %w", number, err)
	}
	m := &Member{
		server: s, world: s.world, number: number, version: firstVersion, oldest: firstVersion,
		changes: map[int]change{}, changed: make(chan struct{}),
		door: listens,
	}
	m.http = &http.Server{
		Handler: m, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), // clients that go away are no news
	}
	s.members = append(s.members, m)
	s.serving.Go(func() { _ = m.http.ServeTLS(m.door, "", "") }) // it ends when Close is called
	return nil
}

// Close ends all API servers. No request is under way when it returns.
func (s *Server) Close() error {
	s.mu.Lock()
	idle := make(chan struct{})
	if s.idle = idle; s.handling == 0 {
		close(idle)
	}
	s.mu.Unlock()
	var errs []error
	for _, m := range s.members {
		errs = append(errs, m.http.Close())
	}
	s.serving.Wait()
	<-idle
	return errors.Join(errs...)
}

// begin counts a request in, unless the server is closing.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		return false
	}
	s.handling++
	return true
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handling--; s.handling == 0 && s.idle != nil {
		close(s.idle)
	}
}

// Members returns the clusters, by their number.
func (s *Server) Members() []*Member { return s.members }

// World returns what they hold.
func (s *Server) World() World { return s.world }

// Written is how many octets have gone out so far, with what TLS adds.
func (s *Server) Written() int64 { return s.written.Load() }

// Watches is how many watches are open.
func (s *Server) Watches() (n int) {
	for _, m := range s.members {
		n += m.Watches()
	}
	return n
}

// Traffic returns what clients have done since the start, in order.
func (s *Server) Traffic() []Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Traffic(nil), s.traffic...)
}

func (s *Server) note(member int, kind Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traffic = append(s.traffic, Traffic{time.Now(), member, kind})
}

// Kubeconfigs writes one kubeconfig file for each cluster into a folder, and returns their paths.
func (s *Server) Kubeconfigs(dir string) ([]string, error) {
	var paths []string
	for i, m := range s.members {
		path := filepath.Join(dir, s.world.Cluster(i)+".kubeconfig")
		if err := m.Kubeconfig(path, "127.0.0.1"); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// ClientName returns a name of the API servers for the n-th of several clients that shall not share their connections.
func ClientName(n int) string { return fmt.Sprintf("client%d.%s", n, tlsDomain) }

// Kubeconfig writes a kubeconfig file for a cluster whose certificate is expected to be good for a name: 127.0.0.1, or a
// ClientName.
func (m *Member) Kubeconfig(path, name string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: only
contexts: [{name: only, context: {cluster: only, user: only}}]
users: [{name: only, user: {token: members}}]
clusters:
- name: only
  cluster:
    server: %s
    tls-server-name: %s
    certificate-authority-data: %s
`, m.URL(), name, base64.StdEncoding.EncodeToString(m.server.caPEM))
	return os.WriteFile(path, []byte(text), 0o600)
}

// URL is the address of the API server.
func (m *Member) URL() string { return "https://" + m.door.Addr().String() }

// CA returns the certificate to trust, PEM.
func (s *Server) CA() []byte { return s.caPEM }

// newCertificate makes a certificate that is its own CA, good for 127.0.0.1 and every ClientName.
func newCertificate() (certificate tls.Certificate, caPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate, nil, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "members"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, DNSNames: []string{"*." + tlsDomain},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, //nolint:forbidigo // x509 wants net.IP
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return certificate, nil, fmt.Errorf("make the certificate of the members: %w", err)
	}
	certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// door is where the connections of a member come in. It can be shut: then connections are refused.
type door struct {
	server *Server
	number int
	port   int

	mu     sync.Mutex    // guards what follows
	inner  net.Listener  // nil while it is shut
	opened chan struct{} // closed when it is opened, or gone for good
	gone   bool
	// release gives the port back.
	release func()
	conns   map[*conn]struct{}
}

// conn is a connection that came through a door.
type conn struct {
	net.Conn
	door *door
}

func newDoor(s *Server, number int) (*door, error) {
	d := &door{server: s, number: number, opened: make(chan struct{}), conns: map[*conn]struct{}{}}
	var err error
	if d.port, d.release, err = server.ReservePort(); err != nil {
		return nil, err
	}
	if err = d.open(); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

// open lets connections in.
func (d *door) open() error {
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failed)
	}}
	inner, err := shared.Listen(context.Background(), "tcp", d.Addr().String())
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inner = inner
	close(d.opened)
	return nil
}

// shut has connections refused, and ends those that are there.
func (d *door) shut() {
	d.mu.Lock()
	if d.inner != nil {
		d.inner.Close()
		d.inner, d.opened = nil, make(chan struct{})
	}
	all := slices.Collect(maps.Keys(d.conns))
	d.mu.Unlock()
	for _, c := range all {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // an end without a word, as when a process is killed
		}
		c.Close()
	}
}

// Accept implements net.Listener. While the door is shut, it waits.
func (d *door) Accept() (net.Conn, error) {
	for {
		d.mu.Lock()
		inner, opened, gone := d.inner, d.opened, d.gone
		d.mu.Unlock()
		switch {
		case gone:
			return nil, net.ErrClosed
		case inner == nil:
			<-opened
			continue
		}
		c, err := inner.Accept()
		if errors.Is(err, net.ErrClosed) {
			continue // by shut or Close
		}
		if err != nil {
			return nil, err
		}
		d.server.note(d.number, Connection)
		in := &conn{c, d}
		d.mu.Lock()
		d.conns[in] = struct{}{}
		late := d.inner != inner
		d.mu.Unlock()
		if late {
			in.Close()
			continue
		}
		return in, nil
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil
	}
	d.gone = true
	d.release()
	if d.inner == nil {
		close(d.opened)
		return nil
	}
	inner := d.inner
	d.inner = nil
	return inner.Close()
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(d.port))) //nolint:gosec // a port
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.door.server.written.Add(int64(n))
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.door.mu.Lock()
	delete(c.door.conns, c)
	c.door.mu.Unlock()
	return c.Conn.Close()
}

// Update lets the world change so many times per second until ctx ends: the address of one endpoint of one service after
// the other, cluster by cluster. It returns how many changes there were.
func (s *Server) Update(ctx context.Context, perSecond int) (n int) {
	if s.world.Services == 0 {
		return 0
	}
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return n
		case <-ticks.C:
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); n < due; n++ {
			s.members[n%len(s.members)].Move(n / len(s.members) % s.world.Services)
		}
	}
}
