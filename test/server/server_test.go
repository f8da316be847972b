package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

// binary is the server that the tests run.
var binary string

func TestMain(m *testing.M) {
	var err error
	if binary, err = Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// corefile answers the address for example.org, and has everything that Server reads.
func corefile(address string) string {
	return `.:{{.DNS}} {
		bind 127.0.0.1
		prometheus {{.Metrics}}
		ready {{.Ready}}
		template IN A example.org { 
			answer "{{"{{"}} .Name {{"}}"}} 5 IN A ` + address + `"
		}
		template CH TXT example.org {
			answer "{{"{{"}} .Name {{"}}"}} 0 CH TXT chaos"
		}
		chaos
	}
	example.net:{{.Port "second"}} {
		bind 127.0.0.1
		template IN A example.net {
			answer "example.net. 5 IN A 192.0.2.99"
		}
	}`
}

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start(t.Context(), binary, corefile("192.0.2.1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAsk(t *testing.T) {
	s := start(t)
	tests := []struct {
		name     string
		question Question
		want     string
		edns     bool
	}{
		{"over UDP", Question{Name: "example.org.", Type: dns.TypeA}, "192.0.2.1", false},
		{"over TCP", Question{Name: "example.org.", Type: dns.TypeA, TCP: true}, "192.0.2.1", false},
		{"with an OPT record when the size is given", Question{Name: "example.org.", Type: dns.TypeA, EDNS: 1232}, "192.0.2.1", true},
		{"in another class", Question{Name: "example.org.", Type: dns.TypeTXT, Class: dns.ClassCHAOS}, "chaos", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := s.Ask(t.Context(), test.question)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), test.want) {
				t.Errorf("answer %v, want one record with %s", m.Answer, test.want)
			}
			if got := m.IsEdns0() != nil; got != test.edns {
				t.Errorf("OPT record in the answer: %t, want %t", got, test.edns)
			}
		})
	}
}

func TestMetricsReadinessAndFurtherPorts(t *testing.T) {
	s := start(t)
	if _, err := s.Query(t.Context(), "example.org.", dns.TypeA); err != nil {
		t.Fatal(err)
	}
	families, err := s.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f := families["coredns_dns_requests_total"]; f == nil || len(f.GetMetric()) == 0 {
		t.Error("no coredns_dns_requests_total after a query")
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
	if status, err := s.Ready(t.Context()); status != 200 || err != nil {
		t.Errorf("Ready() = %d, %v, want 200", status, err)
	}
	m := (&dns.Msg{}).SetQuestion("example.net.", dns.TypeA)
	answer, err := dns.Exchange(m, loopback(s.Port("second")))
	if err != nil || len(answer.Answer) != 1 {
		t.Errorf("second port: %v, %v, want one record", answer, err)
	}
}

func TestReload(t *testing.T) {
	s := start(t)
	tests := []struct {
		name, corefile, wantErr, wantAddress string
	}{
		{"takes a good Corefile", corefile("192.0.2.2"), "", "192.0.2.2"},
		{"keeps what it has when the Corefile is wrong, and says why", ".:{{.DNS}} {\n nosuchplugin\n}", "nosuchplugin", "192.0.2.2"},
		{"takes a good one after a wrong one", corefile("192.0.2.3"), "", "192.0.2.3"},
		{"refuses a template that is none", "{{", "template", "192.0.2.3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := s.Reload(t.Context(), test.corefile)
			if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("Reload() = %v, want an error with %q", err, test.wantErr)
			}
			m, err := s.Query(t.Context(), "example.org.", dns.TypeA)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), test.wantAddress) {
				t.Errorf("answer %v, want %s", m.Answer, test.wantAddress)
			}
		})
	}
}

func TestStartReportsAServerThatExits(t *testing.T) {
	tests := []struct{ name, binary, corefile, want string }{
		{"with the end of its log", binary, ".:{{.DNS}} {\n nosuchplugin\n}", "nosuchplugin"},
		{"without a program", "/nonexistent/coredns", ".:{{.DNS}} {\n whoami\n}", "/nonexistent/coredns"},
		{"without a Corefile that can be written", binary, "{{.Nonsense}}", "Nonsense"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Start(t.Context(), test.binary, test.corefile, Options{})
			if err == nil {
				t.Fatal(errors.Join(errors.New("it started"), s.Stop()))
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want it to name %q", err, test.want)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	s := start(t)
	pid, address := s.PID(), s.Addr()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.PID() == pid || s.Addr() != address {
		t.Errorf("process %d at %s, want another than %d at %s", s.PID(), s.Addr(), pid, address)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the old process is still there: %v", err)
	}
	if m, err := s.Query(t.Context(), "example.org", dns.TypeA); err != nil || len(m.Answer) != 1 {
		t.Errorf("answer %v, %v", m, err)
	}
	if err := s.WriteCorefile("nonsense {"); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "restart the server") {
		t.Errorf("Restart() with a wrong Corefile = %v", err)
	}
}

func TestStop(t *testing.T) {
	s := start(t)
	dir, pid, address := s.dir, s.PID(), s.Addr()
	if err := s.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatalf("Stop() of a paused server = %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("second Stop() = %v", err)
	}
	if s.Running() {
		t.Error("Running() after Stop()")
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
	if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		conn.Close()
		t.Error("something listens on the port")
	}
	if s.Log() == "" {
		t.Error("the log is empty")
	}
}

func TestBuildIsQuickWhenNothingChanged(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path, err := Build(ctx, io.Discard)
	if err != nil || path != binary {
		t.Errorf("Build() = %q, %v, want %q", path, err, binary)
	}
}
