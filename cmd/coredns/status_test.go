package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/internal/offline"
	"github.com/clusterset-dns/clusterset-dns/plugin/clusterset"
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
	s.agreeOffline(own)
}

// agreeOffline compares what the server tells with what is told without one, from what its API server has.
func (s *teller) agreeOffline(more string) {
	s.t.Helper()
	dir := s.t.TempDir()
	kubeconfig, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	api := regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`).FindString(string(kubeconfig))
	for _, id := range []string{"east", "west"} {
		if err := os.Mkdir(filepath.Join(dir, id), 0o755); err != nil {
			s.t.Fatal(err)
		}
		for _, path := range []string{"/api/v1/namespaces", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/apis/multicluster.x-k8s.io/v1beta1/serviceexports"} {
			code, body := get(s.t, api+path)
			if code != http.StatusOK {
				s.t.Fatalf("%s: %d %s", path, code, body)
			}
			if err := os.WriteFile(filepath.Join(dir, id, filepath.Base(path)+".json"), []byte(body), 0o600); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	corefile := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(corefile, s.corefile(11, more).Contents, 0o600); err != nil {
		s.t.Fatal(err)
	}
	world, err := offline.Load(corefile, dir, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	records := 0
	for _, name := range []string{"web.shop", "db.shop", "db-3.east.db.shop", "_http._tcp.db.shop", "none.shop", "web.nowhere"} {
		for i := range 20 {
			q := clusterset.Question{Name: name + ".svc.clusterset.local", Type: []uint16{dns.TypeA, dns.TypeSRV}[i%2], Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
			query := url.Values{"name": {q.Name}, "type": {dns.TypeToString[q.Type]}, "client": {q.Client.String()}}
			for deadline := time.Now().Add(patience); ; {
				var told status.Explanation
				if err := s.ask(status.PathExplain+"?"+query.Encode(), &told); err != nil {
					s.t.Fatal(err)
				}
				alone, err := world.Explain(q)
				if err != nil {
					s.t.Fatal(err)
				}
				if told.Answer.Rcode == alone.Answer.Rcode && slices.Equal(told.Answer.Answer, alone.Answer.Answer) && told.Verdict == alone.Verdict {
					records += len(told.Answer.Answer)
					break
				}
				if time.Now().After(deadline) { // else an epoch may have ended in between
					s.t.Fatalf("%s for %s: the server tells %+v %s, and without it %+v %s", q.Name, q.Client, told.Answer, told.Verdict, alone.Answer, alone.Verdict)
				}
			}
		}
	}
	if records < 100 || len(world.Warnings) > 0 {
		s.t.Errorf("Only %d records were compared, and there are warnings: %q", records, world.Warnings)
	}
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
