package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/cmd/coredns/internal/plugincfg"

	"github.com/coredns/coredns/coremain"
	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

// patience bounds every wait in these tests; none takes a tenth of it on an idle
// machine.
const patience = 30 * time.Second

// binary is the server, built once as the Makefile builds it.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coredns")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "coredns")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v0.0.0-test", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "failed to build the server: %v\n%s", err, out)
		return 1
	}
	before := goleak.IgnoreCurrent() // init functions of default plugins start some
	code := m.Run()
	if err := goleak.Find(before); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestBinaryNeedsNoSharedLibrary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the server is packed for Linux only")
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("Expected a static binary, got one that asks for a dynamic linker")
		}
	}
}

func TestVersionShowsCoreDNSFirstAndThenOurs(t *testing.T) {
	want := fmt.Sprintf("CoreDNS-%s\n%s/%s, %s, clusterset-dns-v0.0.0-test\n", coremain.CoreVersion, runtime.GOOS, runtime.GOARCH, runtime.Version())
	if got := output(t, "-version"); got != want {
		t.Errorf("Expected -version to print %q, got %q", want, got)
	}
}

func TestPluginsListsEveryPlugin(t *testing.T) {
	own, _ := ownAndDefault(readPlugins(t, "../../plugin.cfg"))
	want := plugincfg.Names(append(readPlugins(t, filepath.Join(coreDNSDir(t), "plugin.cfg")), own...))
	got := strings.Fields(output(t, "-plugins"))
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Expected -plugins to list\n%v\ngot\n%v", want, got)
	}
}

// kubeadmLike is what kubeadm installs, with *hosts* in the place of *kubernetes*
// (which needs an API server) and with addresses on the loopback interface.
const kubeadmLike = `.:%[1]d {
    bind 127.0.0.1
    log
    errors
    health 127.0.0.1:%[2]d {
       lameduck 100ms
    }
    ready 127.0.0.1:%[3]d
    hosts {
       192.0.2.1 web.shop.svc.cluster.local
       ttl 30
       fallthrough
    }
    prometheus 127.0.0.1:%[4]d
    forward . %[5]s {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
id.server:%[1]d {
    bind 127.0.0.1
    whoami
}
`

func TestCorefileWithoutOurPluginServesAsBefore(t *testing.T) {
	upstream := startUpstream(t)
	ports := startServer(t, func(p [4]int) string {
		return fmt.Sprintf(kubeadmLike, p[0], p[1], p[2], p[3], upstream.addr)
	})
	server := fmt.Sprintf("127.0.0.1:%d", ports[0])

	for _, path := range []string{fmt.Sprintf("%d/health", ports[1]), fmt.Sprintf("%d/ready", ports[2])} {
		if status, body := get(t, "http://127.0.0.1:"+path); status != http.StatusOK {
			t.Errorf("Expected %s to be 200, got %d %s", path, status, body)
		}
	}

	tests := []struct {
		name string
		net  string
		q    string
		typ  uint16
		code int
		want string // the only answer, or empty for none
	}{
		{"hosts answers over UDP", "udp", "web.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess,
			"web.shop.svc.cluster.local.\t30\tIN\tA\t192.0.2.1"},
		{"hosts answers over TCP", "tcp", "web.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess,
			"web.shop.svc.cluster.local.\t30\tIN\tA\t192.0.2.1"},
		{"forward asks its upstream", "udp", "www.example.org.", dns.TypeA, dns.RcodeSuccess,
			"www.example.org.\t30\tIN\tA\t192.0.2.2"},
		{"cache keeps what the upstream said", "udp", "www.example.org.", dns.TypeA, dns.RcodeSuccess,
			"www.example.org.\t30\tIN\tA\t192.0.2.2"},
		{"a second server block is served too", "udp", "id.server.", dns.TypeA, dns.RcodeSuccess, ""},
		{"a name of our zone goes to the upstream like any other", "udp", "web.shop.svc.clusterset.local.", dns.TypeA, dns.RcodeNameError, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := ask(t, tc.net, server, tc.q, tc.typ)
			if r.Rcode != tc.code {
				t.Errorf("Expected %s, got %s", dns.RcodeToString[tc.code], dns.RcodeToString[r.Rcode])
			}
			switch {
			case tc.want == "" && len(r.Answer) == 0:
			case len(r.Answer) == 1 && withTTL(r.Answer[0], 30).String() == tc.want:
			default:
				t.Errorf("Expected answer %q, got %v", tc.want, r.Answer)
			}
		})
	}
	if n := upstream.asked.Load(); n != 1 {
		t.Errorf("Expected one of two equal queries to come from the cache, but the upstream saw %d", n)
	}

	_, metrics := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", ports[3]))
	want := fmt.Sprintf(`coredns_build_info{goversion="%s",revision="clusterset-dns-v0.0.0-test",version="%s"} 1`, runtime.Version(), coremain.CoreVersion)
	if !strings.Contains(metrics, want) {
		t.Errorf("Expected the metrics to have %s", want)
	}
}

// withTTL hides that a cached record has grown older.
func withTTL(rr dns.RR, ttl uint32) dns.RR {
	rr = dns.Copy(rr)
	rr.Header().Ttl = ttl
	return rr
}

// output runs the server with args and returns what it prints before it ends.
func output(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).Output()
	if err != nil {
		t.Fatalf("coredns %v: %v", args, err)
	}
	return string(out)
}

// upstream is a name server that knows www.example.org and nothing else.
type upstream struct {
	addr  string
	asked atomic.Int64 // queries for www.example.org
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: conn.LocalAddr().String()}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, Handler: u, NotifyStartedFunc: func() { close(started) }}
	stopped := make(chan error, 1)
	go func() { stopped <- srv.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Errorf("Failed to stop the upstream: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("The upstream failed: %v", err)
		}
	})
	select {
	case <-started:
	case <-time.After(patience):
		t.Fatal("The upstream did not start")
	}
	return u
}

// ServeDNS implements dns.Handler.
func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	if r.Question[0].Name == "www.example.org." {
		u.asked.Add(1)
		m.SetReply(r)
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: "www.example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30},
			A:   net.IPv4(192, 0, 2, 2),
		}}
	} else {
		m.SetRcode(r, dns.RcodeNameError)
	}
	// A lost reply shows in the test as a query without an answer.
	_ = w.WriteMsg(m)
}

// startServer runs the server with a Corefile made from four free ports, the
// third of which must be that of *ready*, and waits until it is ready. It tries
// other ports when somebody else took one meanwhile.
func startServer(t *testing.T, corefile func(ports [4]int) string) [4]int {
	t.Helper()
	for range 5 {
		ports := freePorts(t)
		conf := filepath.Join(t.TempDir(), "Corefile")
		if err := os.WriteFile(conf, []byte(corefile(ports)), 0o600); err != nil {
			t.Fatal(err)
		}
		err := startProcess(t, conf, fmt.Sprintf("http://127.0.0.1:%d/ready", ports[2]))
		if err == nil {
			return ports
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Fatal("Found no free ports in five attempts")
	return [4]int{}
}

// startProcess returns nil once the server is ready; the end of the test then
// stops it. It returns an error that wraps EADDRINUSE when a port was taken.
func startProcess(t *testing.T, conf, ready string) error {
	t.Helper()
	p := &process{cmd: exec.Command(binary, "-conf", conf), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.wait()

	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !isOK(ready) {
		select {
		case <-p.exited:
			if strings.Contains(p.log.String(), "address already in use") {
				return syscall.EADDRINUSE
			}
			return fmt.Errorf("the server ended before it was ready: %w\n%s", p.err, p.log.String())
		case <-deadline:
			p.kill()
			return fmt.Errorf("the server is not ready after %v:\n%s", patience, p.log.String())
		case <-tick.C:
		}
	}
	t.Cleanup(func() { p.stop(t) })
	return nil
}

// process is a running server.
type process struct {
	cmd    *exec.Cmd
	log    buffer
	exited chan struct{} // closed when the process has ended
	err    error         // how it ended; set before exited is closed
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

// stop asks the server to end and expects it to do so cleanly.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Failed to stop the server: %v", err)
	}
	select {
	case <-p.exited:
		if p.err != nil {
			t.Errorf("Expected the server to end cleanly: %v\n%s", p.err, p.log.String())
		}
	case <-time.After(patience):
		p.kill()
		t.Errorf("The server did not end within %v of SIGTERM:\n%s", patience, p.log.String())
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it has already ended
	<-p.exited
}

// freePorts returns ports of the loopback address that nobody listens on, the
// first of them neither over TCP nor over UDP.
func freePorts(t *testing.T) [4]int {
	t.Helper()
	var ports [4]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	conn, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", ports[0]))
	if err != nil {
		return freePorts(t)
	}
	conn.Close()
	return ports
}

func ask(t *testing.T, network, server, name string, typ uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	c := &dns.Client{Net: network, Timeout: patience}
	r, _, err := c.ExchangeContext(t.Context(), m, server)
	if err != nil {
		t.Fatalf("Failed to ask for %s over %s: %v", name, network, err)
	}
	return r
}

// client keeps no connection open, so that none outlives a test.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return resp.StatusCode, string(b)
}

func isOK(url string) bool {
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// buffer collects the output of a process while a test reads it.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns everything written so far.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
