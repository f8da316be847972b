package clusterset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/pkg/reuseport"
)

// Times and bounds of a status address. A reader that takes longer is cut off.
const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 5 * time.Second
	maxRequest      = 16 << 10 // octets of a request's headers
	maxReaders      = 64       // connections
)

// parseStatus checks an address to listen on.
func parseStatus(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || portErr != nil || n == 0:
		return "", fmt.Errorf("'status %s': use HOST:PORT or :PORT, such as localhost:9154", text)
	case host != "" && host != "localhost":
		if ip, err := netip.ParseAddr(host); err != nil || ip.IsMulticast() {
			return "", fmt.Errorf("'status %s': the host must be an address of this machine, or localhost", text)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// statusServer is one status address. It lives as long as any instance of the server has it, so that a reload closes no
// connection.
type statusServer struct {
	address string
	server  *http.Server
	done    sync.WaitGroup
}

// statusZone is under which the storage of an instance keeps which zones tell at an address.
type statusZone struct{ address, zone string }

// holdStatus lets a handler tell at its status address while its instance runs.
func (s *store) holdStatus(c *caddy.Controller, handler *Clusterset) error {
	if handler.status == "" {
		return nil
	}
	for _, zone := range handler.zones {
		key := statusZone{handler.status, zone}
		if c.Get(key) != nil {
			return fmt.Errorf("'status %s' stands in two server blocks with the zone %s, so that nobody could tell them apart: give one of them another address", handler.status, zone)
		}
		c.Set(key, true)
	}
	begin := func() (*statusServer, error) { return s.listen(handler.status) }
	s.listeners.Hold(c, handler.status, begin, func(*statusServer) error { return nil })
	return nil
}

// listen begins to answer at an address. The port is shared as all ports of CoreDNS are: a process that is to take over may begin
// before this one has ended.
func (s *store) listen(address string) (*statusServer, error) {
	ln, err := reuseport.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("plugin/%s: 'status %s': %w: give an address that is free on this machine", pluginName, address, err)
	}
	out := &statusServer{address: address, server: &http.Server{
		Handler:     newPages(func() []*Clusterset { return s.tellers(address) }),
		ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxRequest,
	}}
	out.done.Go(func() {
		if err := out.server.Serve(&bounded{Listener: ln, free: make(chan struct{}, maxReaders)}); !errors.Is(err, http.ErrServerClosed) {
			log.Errorf("Status address %s: %v", address, err)
		}
	})
	log.Infof("Status is told at http://%s/", ln.Addr())
	return out, nil
}

// close ends it. Who is reading may end in peace.
func (l *statusServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close()
	}
	l.done.Wait()
}

// tellers returns the server blocks with a status address in their order: during a reload, those of the new instance.
func (s *store) tellers(address string) []*Clusterset {
	var out []*Clusterset
	s.handlers.Each(func(c *Clusterset) bool {
		if c.status == address {
			out = append(out, c)
		}
		return true
	})
	slices.SortFunc(out, func(a, b *Clusterset) int { return cmp.Compare(a.number, b.number) })
	if len(out) > 0 {
		youngest := out[len(out)-1].tenant
		out = slices.DeleteFunc(out, func(c *Clusterset) bool { return c.tenant != youngest })
	}
	return out
}

// bounded accepts no more connections than it has room for.
type bounded struct {
	net.Listener
	free chan struct{}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.free <- struct{}{}:
			return &boundedConn{Conn: conn, release: sync.OnceFunc(func() { <-b.free })}, nil
		default:
			_ = conn.Close() // one too many
		}
	}
}

type boundedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
