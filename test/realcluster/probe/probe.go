// Package probe is the program in the pods of the tests with real clusters. It says who it is, asks the DNS of its pod whatever it
// is told to ask, connects to services by their names, and keeps asking some names to find out whether a lookup ever fails.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// Port is where a probe listens.
	Port = "8080"
	// timeout is how long an answer is waited for, and attempts how often a server is asked that does not reply: the defaults of
	// resolv.conf, for every resolver that knows them.
	timeout  = 5 * time.Second
	attempts = 2
	// kept is how many failures of a name are told, the last ones.
	kept = 20
	// fetchTime bounds a fetch, with all the patience of a resolver in it.
	fetchTime = 12 * time.Second
)

// Load is what has become of the lookups of a name.
type Load struct {
	// Asked are all lookups. Of these, Twice were not replied to at first, and asked again, as every resolver does; Failed are
	// those to which there was no reply then either, or another one than addresses.
	Asked, Twice, Failed int
	// Slowest is the longest time that a lookup has taken since it was told last.
	Slowest time.Duration
	// Last are the last attempts that failed.
	Last []Failure
}

// Failure is an attempt that was not answered as it should be.
type Failure struct {
	At      time.Time
	Network string // udp or tcp
	Took    time.Duration
	Why     string
}

// Options say who a probe is and what it keeps asking.
type Options struct {
	// Name is what it says when it is fetched.
	Name string
	// Names are looked up in turn, for A, one each Pause; every fifth over TCP. Each attempt has a socket of its own.
	Names []string
	Pause time.Duration
}

// Run serves until ctx ends. It asks the first nameserver of /etc/resolv.conf.
func Run(ctx context.Context, o Options) error {
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if len(config.Servers) == 0 {
		return errors.New("/etc/resolv.conf names no server")
	}
	p := &prober{server: net.JoinHostPort(config.Servers[0], config.Port), load: map[string]*Load{}, underWay: map[int]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, o.Name) })
	mux.HandleFunc("GET /lookup", p.lookup)
	mux.HandleFunc("GET /fetch", fetch)
	mux.HandleFunc("GET /load", p.told)
	server := http.Server{Addr: ":" + Port, Handler: mux, ReadHeaderTimeout: timeout}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if len(o.Names) > 0 {
		go p.ask(ctx, o)
	}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// prober asks a server.
type prober struct {
	server string

	mu       sync.Mutex
	load     map[string]*Load
	asked    int
	underWay map[int]bool // the numbers of lookups
}

// exchange asks once for the addresses of a name, from a new socket.
func (p *prober) exchange(ctx context.Context, network, name string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: timeout}
	reply, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), p.server)
	return reply, err
}

// lookup answers with the message as it came.
func (p *prober) lookup(w http.ResponseWriter, r *http.Request) {
	reply, err := p.exchange(r.Context(), "udp", r.FormValue("name"))
	var wire []byte
	if err == nil {
		wire, err = reply.Pack()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = w.Write(wire)
}

// fetch connects to a host by its name, as any program would, and hands on what it says.
func fetch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), fetchTime)
	defer cancel()
	said, err := get(ctx, r.FormValue("host"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = w.Write(said)
}

func get(ctx context.Context, host string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, 1<<10))
}

// told tells the load so far, when all lookups that are under way have ended.
func (p *prober) told(w http.ResponseWriter, r *http.Request) {
	if err := p.settle(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(p.load)
	for _, l := range p.load {
		l.Slowest = 0
	}
}

// settle waits until the lookups that are under way now have ended.
func (p *prober) settle(ctx context.Context) error {
	p.mu.Lock()
	last := p.asked
	p.mu.Unlock()
	for p.oldest() <= last {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// oldest returns the number of the oldest lookup under way, or of the next one.
func (p *prober) oldest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	oldest := p.asked + 1
	for n := range p.underWay {
		oldest = min(oldest, n)
	}
	return oldest
}

// ask keeps asking.
func (p *prober) ask(ctx context.Context, o Options) {
	tick := time.NewTicker(o.Pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		p.asked++
		n := p.asked
		p.underWay[n] = true
		p.mu.Unlock()
		network := "udp"
		if n%5 == 0 {
			network = "tcp"
		}
		go p.count(ctx, n, network, o.Names[(n/5+n)%len(o.Names)])
	}
}

// count looks a name up and counts what becomes of it.
func (p *prober) count(ctx context.Context, n int, network, name string) {
	begin := time.Now()
	failures, ok := p.resolve(ctx, network, name)
	took := time.Since(begin)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.underWay, n)
	l := p.load[name]
	if l == nil {
		l = &Load{}
		p.load[name] = l
	}
	l.Asked++
	l.Slowest = max(l.Slowest, took)
	switch {
	case !ok:
		l.Failed++
	case len(failures) > 0:
		l.Twice++
	}
	l.Last = append(l.Last, failures...)
	l.Last = l.Last[max(0, len(l.Last)-kept):]
}

// resolve looks a name up as a resolver does: who does not reply is asked again. It tells whether there are addresses, and which
// attempts failed.
func (p *prober) resolve(ctx context.Context, network, name string) (failures []Failure, ok bool) {
	for range attempts {
		begin := time.Now()
		reply, err := p.exchange(ctx, network, name)
		var why string
		switch {
		case err != nil:
			why = strings.ReplaceAll(err.Error(), p.server, "the server")
		case reply.Rcode != dns.RcodeSuccess:
			why = dns.RcodeToString[reply.Rcode]
		case len(reply.Answer) == 0:
			why = "no records"
		default:
			return failures, true
		}
		failures = append(failures, Failure{At: begin, Network: network, Took: time.Since(begin), Why: why})
		if err == nil {
			break // that is what there is
		}
	}
	return failures, false
}
