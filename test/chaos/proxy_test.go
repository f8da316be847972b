package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// proxy stands between the server and one API server. TLS goes through it unchanged: the certificate is good for every
// port of 127.0.0.1.
type proxy struct{ *toxiproxy.Proxy }

// startProxy lets connections to a port of 127.0.0.1, see Listen, through to the address.
func startProxy(name, upstream string) (*proxy, error) {
	registerLost()
	s := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &proxy{toxiproxy.NewProxy(s, name, "127.0.0.1:0", upstream)}
	return p, p.Start()
}

// hurt does something to both directions of every connection, those that are open too. attributes are those of the toxic, as JSON.
func (p *proxy) hurt(kind, attributes string) error {
	for _, stream := range []string{"upstream", "downstream"} {
		if err := p.hurtOne(stream, kind, attributes); err != nil {
			return err
		}
	}
	return nil
}

// hurtOne does it to one direction: upstream is from the server to the API server.
func (p *proxy) hurtOne(stream, kind, attributes string) error {
	toxic := fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": {%s}}`, kind, stream, attributes)
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		return fmt.Errorf("toxic %s: %w", kind, err)
	}
	return nil
}

// heal takes all of that back.
func (p *proxy) heal(ctx context.Context) { p.Toxics.ResetToxics(ctx) }

// lead lets connections through to an address from now on. Those that are open are closed.
func (p *proxy) lead(upstream string) error {
	p.Stop()
	p.Upstream = upstream
	return p.Start()
}

// loseConnections makes every connection half-open, as a firewall does that has forgotten them: both ends think that it is
// there, and nothing that one says reaches the other. New ones are no better until found is called; those that were there
// before never are.
func (p *proxy) loseConnections() (found func(), err error) {
	if err := p.hurt("lost", ""); err != nil {
		return nil, err
	}
	return func() {
		for _, stream := range []string{"upstream", "downstream"} {
			p.Toxics.GetToxic("lost_" + stream).Toxic.(*lost).found.Store(true)
		}
	}, nil
}

// lost is a toxic that swallows everything, of the connections that were made before it was found.
type lost struct{ found atomic.Bool }

func registerLost() { toxics.Register("lost", new(lost)) }

// NewState tells whether a new connection is spared.
func (l *lost) NewState() any { return l.found.Load() }

// Pipe implements toxics.Toxic.
func (l *lost) Pipe(stub *toxics.ToxicStub) {
	spared, _ := stub.State.(bool)
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			if spared {
				stub.Output <- chunk
			}
		}
	}
}
