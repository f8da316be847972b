package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
)

// telling is a Corefile with a status address: a place for the kubeconfig, one for the TTL, and one for more properties.
const telling = `.:%[4]d {
    bind 127.0.0.1
    clusterset {
        local east
        cluster east %[1]q
        cluster west %[1]q {
            address endpoints
        }
        prefer none
        ttl %[2]d
        %[3]s
    }
}
`

// teller is a server in this process and a client of its status address that keeps its connection.
type teller struct {
	t          *testing.T
	instance   *caddy.Instance
	kubeconfig string
	port       int
	address    string
	client     *http.Client
	reused     bool
}

func (s *teller) corefile(ttl int, more string) caddy.CaddyfileInput {
	return caddy.CaddyfileInput{Contents: fmt.Appendf(nil, telling, s.kubeconfig, ttl, more, s.port), Filepath: "Corefile", ServerTypeName: "dns"}
}

// restart reloads the Corefile as the plugin *reload* does.
func (s *teller) restart(in caddy.Input) error {
	next, err := s.instance.Restart(in)
	if err == nil {
		s.instance = next
	}
	return err
}

// ask gets a document. It notes whether that was over the connection of the last time.
func (s *teller) ask(path string, to any) error {
	s.t.Helper()
	trace := httptrace.WithClientTrace(s.t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { s.reused = i.Reused }})
	r, err := http.NewRequestWithContext(trace, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	return json.NewDecoder(got.Body).Decode(to)
}

// tells checks that the status address tells a TTL, over the connection of the last time or over another one.
func (s *teller) tells(when string, ttl int, reused bool) {
	s.t.Helper()
	var m status.Members
	if err := s.ask(status.PathMembers, &m); err != nil || int(m.Server.TTLSeconds) != ttl || s.reused != reused {
		s.t.Errorf("%s: %v, the TTL is %d, over the same connection: %v; want %d, %v", when, err, m.Server.TTLSeconds, s.reused, ttl, reused)
	}
}

func TestStatusSurvivesReloads(t *testing.T) {
	ports := freePorts(t)
	s := &teller{
		t: t, kubeconfig: cluster(t), port: ports[0], address: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		client: &http.Client{Transport: &http.Transport{}, Timeout: patience},
	}
	t.Cleanup(s.client.CloseIdleConnections)
	own := "status " + s.address
	s.instance = startHere(t, s.corefile(5, own).Contents)
	t.Cleanup(func() { stopHere(t, s.instance) })
	s.tells("At first", 5, false)

	if err := s.restart(s.corefile(7, own)); err != nil {
		t.Fatal(err)
	}
	s.tells("After a reload", 7, true)
	if err := s.restart(s.corefile(9, own+"\n        nonsense")); err == nil {
		t.Error("A Corefile with nonsense is accepted")
	}
	s.tells("After a reload that failed", 7, true)

	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := s.restart(s.corefile(9, "status "+taken.Addr().String())); err == nil || !strings.Contains(err.Error(), "give an address that is free") {
		t.Errorf("An address that is taken: %v", err)
	}
	s.tells("After a reload to an address that is taken", 7, true)
	twice := s.corefile(9, own)
	twice.Contents = append(twice.Contents, strings.Replace(string(twice.Contents), ".:", "example.org:", 1)...)
	if err := s.restart(twice); err == nil || !strings.Contains(err.Error(), "stands in two server blocks with the zone clusterset.local.") {
		t.Errorf("Two server blocks that nobody can tell apart: %v", err)
	}
	s.tells("After a reload to a Corefile that is refused", 7, true)

	if err := s.restart(s.corefile(9, "")); err != nil {
		t.Fatal(err)
	}
	var m status.Members
	if err := s.ask(status.PathMembers, &m); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Without 'status' the address tells %+v, %v", m, err)
	}
	if err := s.restart(s.corefile(11, own)); err != nil {
		t.Fatal(err)
	}
	s.tells("After a reload that brings it back", 11, false)
	s.agree()
}

// agree compares explanations with what a real query over a socket gets.
func (s *teller) agree() {
	s.t.Helper()
	server := fmt.Sprintf("127.0.0.1:%d", s.port)
	records := 0
	for _, name := range []string{"web.shop", "db.shop", "db-3.east.db.shop", "_http._tcp.db.shop", "none.shop", "web.nowhere"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			qname := name + ".svc.clusterset.local."
			query := url.Values{"name": {qname}, "type": {dns.TypeToString[qtype]}, "client": {"127.0.0.1"}}
			var e status.Explanation
			var told []string
			for deadline := time.Now().Add(patience); ; {
				if err := s.ask(status.PathExplain+"?"+query.Encode(), &e); err != nil {
					s.t.Fatal(err)
				}
				reply, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(qname, qtype).SetEdns0(1232, false), server)
				if err != nil {
					s.t.Fatal(err)
				}
				told = []string{dns.RcodeToString[reply.Rcode]}
				for _, rr := range reply.Answer {
					told = append(told, rr.String())
				}
				// An epoch may have ended in between, and the clusters may not be known yet.
				if slices.Equal(told, append([]string{e.Answer.Rcode}, e.Answer.Answer...)) && e.Answer.Rcode != "SERVFAIL" {
					records += len(reply.Answer)
					break
				}
				if time.Now().After(deadline) {
					s.t.Fatalf("%s %s is answered %q, and explained as %+v", qname, dns.TypeToString[qtype], told, e.Answer)
				}
			}
		}
	}
	if records < 10 {
		s.t.Errorf("Only %d records were compared", records)
	}
}
