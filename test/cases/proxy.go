package cases

import (
	"io"
	"net"
	"sync"
)

// proxy stands between the server and one API server and passes bytes on, until it is told to cut the line. An API
// server cannot be killed instead: it serves all worlds.
type proxy struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[net.Conn]bool
}

func startProxy(target string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{target: target, listener: listener, conns: map[net.Conn]bool{}}
	p.done.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(client) {
			client.Close()
			continue
		}
		p.done.Go(func() { p.pass(client) })
	}
}

// pass connects the client to the target until one of the two ends it.
func (p *proxy) pass(client net.Conn) {
	defer p.drop(client)
	target, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(target)
	if !p.keep(target) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, target)
		client.Close()
	})
	_, _ = io.Copy(target, client)
	target.Close()
	back.Wait()
}

// keep remembers an open connection, for setCut; it refuses while the line is cut.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.conns[c] = true
	}
	return !p.cut
}

func (p *proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// setCut cuts the line, with every open connection, or mends it.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			c.Close()
		}
	}
}

func (p *proxy) stop() {
	p.listener.Close()
	p.setCut(true)
	p.done.Wait()
}
