// Package server runs the real binary: it writes a Corefile with free loopback ports in it, starts the program, waits
// until it answers, asks it queries and reads its metrics, readiness and log. It knows nothing of Kubernetes.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/miekg/dns"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	// startTimeout bounds the wait for the first answer, and for readiness. The server listens within a second on an idle
	// machine.
	startTimeout = 30 * time.Second
	// stopTimeout is how long a server may take to leave after SIGTERM before it is killed.
	stopTimeout = 10 * time.Second
	// reloadTimeout bounds a reload. It covers the 5 s that CoreDNS gives open connections.
	reloadTimeout = 30 * time.Second
	// queryTimeout bounds one exchange of Ask.
	queryTimeout = 5 * time.Second
	pollInterval = 10 * time.Millisecond
)

// Options change how a server is started. The zero value is fine.
type Options struct {
	// Dir is the working directory and holds the Corefile. Default: a temporary folder that Stop removes.
	Dir string
	// Env is added to an otherwise nearly empty environment, as "NAME=value".
	Env []string
	// Flags are added to the command line.
	Flags []string
}

// Server is a running server. Its methods may be called from several goroutines; Reload, Stop
// and Restart only from one at a time, and Restart not beside any other.
type Server struct {
	launch  func() (*process, error) // runs the binary once more
	process *process
	dir     string
	keepDir bool

	mu    sync.Mutex // guards ports
	ports map[string]port
}

// Start writes the Corefile, runs the binary on it and returns when the DNS port answers over UDP and TCP.
//
// The Corefile is a template: {{.DNS}} is a port number for DNS, and {{.Metrics}}, {{.Ready}} and {{.Health}} are
// addresses (127.0.0.1:PORT) for *prometheus*, *ready* and *health*; {{.Port "name"}} is the number of another port of
// that name, for DNS too. A server that does not bind 127.0.0.1 works as well. Nothing is left running after an error,
// which holds the end of the log.
func Start(ctx context.Context, binary, corefile string, o Options) (*Server, error) {
	s := &Server{ports: map[string]port{}}
	if err := s.start(ctx, binary, corefile, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start the server: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, binary, corefile string, o Options) error {
	s.dir, s.keepDir = o.Dir, o.Dir != ""
	if !s.keepDir {
		dir, err := os.MkdirTemp("", "clusterset-dns-server-")
		if err != nil {
			return err
		}
		s.dir = dir
	}
	if err := s.WriteCorefile(corefile); err != nil {
		return err
	}
	env := append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}, o.Env...)
	args := append([]string{"-conf", s.corefile()}, o.Flags...)
	s.launch = func() (*process, error) { return startProcess(binary, s.dir, env, args...) }
	return s.startProcess(ctx)
}

// startProcess runs the binary and waits for its first answers.
func (s *Server) startProcess(ctx context.Context) error {
	p, err := s.launch()
	if err != nil {
		return err
	}
	s.process = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.until(ctx, s.answers)
}

// answers asks anything over UDP and TCP; every answer will do, also a refusal.
func (s *Server) answers(ctx context.Context) error {
	for _, tcp := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		_, err := s.Ask(ctx, Question{Name: "started.invalid.", Type: dns.TypeA, TCP: tcp})
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// until calls try until it returns nil. It fails when the server exits or ctx ends first.
func (s *Server) until(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("it exited (%s); its log ends with:\n%s", s.process.state, tail(s.Log()))
		case <-ctx.Done():
			return fmt.Errorf("%w, last: %w; its log ends with:\n%s", ctx.Err(), err, tail(s.Log()))
		case <-time.After(pollInterval):
		}
	}
}

// tail returns the last lines of a log.
func tail(log string) string {
	const n = 20
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Question is what Ask asks.
type Question struct {
	Name  string
	Type  uint16
	Class uint16 // 0 means IN
	TCP   bool
	// EDNS is the size in octets that an OPT record announces for answers over UDP; 0 leaves the record out.
	EDNS uint16
	// DO asks for DNSSEC records; it needs EDNS.
	DO bool
}

// Query asks for the records of a name over UDP, without EDNS.
func (s *Server) Query(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	return s.Ask(ctx, Question{Name: name, Type: qtype})
}

// Ask sends one question and returns the answer as it came: a truncated one is not repeated over TCP.
func (s *Server) Ask(ctx context.Context, q Question) (*dns.Msg, error) {
	m := &dns.Msg{}
	m.SetQuestion(dns.Fqdn(q.Name), q.Type)
	m.RecursionDesired = false
	if q.Class != 0 {
		m.Question[0].Qclass = q.Class
	}
	if q.EDNS != 0 {
		m.SetEdns0(q.EDNS, q.DO)
	}
	client := dns.Client{Net: "udp", Timeout: queryTimeout}
	if q.TCP {
		client.Net = "tcp"
	}
	answer, _, err := client.ExchangeContext(ctx, m, s.Addr())
	if err != nil {
		return nil, fmt.Errorf("ask %s %s %s over %s: %w", s.Addr(), q.Name, dns.TypeToString[q.Type], client.Net, err)
	}
	return answer, nil
}

// Addr is the address of the DNS port, for UDP and TCP.
func (s *Server) Addr() string { return loopback(s.Port("DNS")) }

// Port returns the number of the port that the Corefile calls {{.Port "name"}}; "DNS", "Metrics", "Ready" and "Health"
// are the others. It is 0 when the Corefile has none of that name.
func (s *Server) Port(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[name].number
}

// PID is the process id of the server.
func (s *Server) PID() int { return s.process.os.Pid }

// Running tells whether the server has not exited.
func (s *Server) Running() bool { return s.process.running() }

// ExitCode returns the exit code of a server that has exited; -1 when it has not, or when a signal killed it.
func (s *Server) ExitCode() int {
	if s.Running() {
		return -1
	}
	return s.process.state.ExitCode()
}

// Log returns everything that the server has printed so far.
func (s *Server) Log() string { return s.process.out.String() }

// Metrics reads the metric families, by name.
func (s *Server) Metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	body, status, err := s.get(ctx, "Metrics", "/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("read the metrics: status %d", status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	return families, nil
}

// Ready returns the HTTP status that *ready* answers with: 200 when the server is ready, 503 when it is not.
func (s *Server) Ready(ctx context.Context) (int, error) {
	_, status, err := s.get(ctx, "Ready", "/ready")
	return status, err
}

// WaitReady waits until *ready* answers 200, at most 30 s.
func (s *Server) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.until(ctx, func(ctx context.Context) error {
		body, status, err := s.get(ctx, "Ready", "/ready")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d %q", status, body)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the server to be ready: %w", err)
	}
	return nil
}

// get fetches a path from the port of that name, on a connection of its own.
func (s *Server) get(ctx context.Context, name, path string) (body string, status int, err error) {
	number := s.Port(name)
	if number == 0 {
		return "", 0, fmt.Errorf("get %s: the Corefile has no {{.%s}}", path, name)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(number)+path, http.NoBody)
	if err != nil {
		return "", 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: queryTimeout}
	response, err := client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", 0, fmt.Errorf("get %s: %w", path, err)
	}
	return string(text), response.StatusCode, nil
}

// WriteCorefile writes another Corefile, a template as for Start, with the same ports. Only a reload makes the server
// read it.
func (s *Server) WriteCorefile(corefile string) error {
	t, err := template.New("Corefile").Parse(corefile)
	if err != nil {
		return fmt.Errorf("the template of the Corefile: %w", err)
	}
	var text strings.Builder
	if err := t.Execute(&text, placeholders{s}); err != nil {
		return fmt.Errorf("the template of the Corefile: %w", err)
	}
	return os.WriteFile(s.corefile(), []byte(text.String()), 0o600)
}

func (s *Server) corefile() string { return filepath.Join(s.dir, "Corefile") }

// Reload writes another Corefile (see Start), sends SIGUSR1 and waits until the server says how it went. After an error
// the server goes on with what it had.
func (s *Server) Reload(ctx context.Context, corefile string) error {
	if err := s.WriteCorefile(corefile); err != nil {
		return err
	}
	before := len(s.Log())
	if err := s.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	var outcome error
	err := s.until(ctx, func(context.Context) error {
		said := s.Log()[before:]
		// The line with the error comes last, after those of the callbacks.
		if _, reason, ok := strings.Cut(said, "[ERROR] SIGUSR1: "); ok && strings.Contains(reason, "\n") {
			outcome = errors.New(strings.TrimSpace(reason[:strings.IndexByte(reason, '\n')]))
			return nil
		}
		if strings.Contains(said, "[INFO] Reloading complete") {
			return nil
		}
		return errors.New("no word of how it went")
	})
	if err := errors.Join(err, outcome); err != nil {
		return fmt.Errorf("reload the server: %w", err)
	}
	return nil
}

// Restart kills the server, as a crash would, and starts it again: the same command, folder, Corefile and ports. It returns
// when the DNS port answers. PID and Log are those of the new process.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-s.process.done
	if err := s.startProcess(ctx); err != nil {
		return fmt.Errorf("restart the server: %w", err)
	}
	return nil
}

// Signal sends a signal to the server. A server that has exited is left alone.
func (s *Server) Signal(signal syscall.Signal) error { return s.process.signal(signal) }

// Wait waits until the server has exited, or ctx ends.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-s.process.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the server to exit: %w", ctx.Err())
	}
}

// Stop sends SIGTERM, waits, kills the server if it does not leave in time (which is an error), and removes the
// temporary folder. It may be called more than once.
func (s *Server) Stop() error {
	err := s.stopProcess()
	s.mu.Lock()
	for _, p := range s.ports {
		p.release()
	}
	s.mu.Unlock()
	if s.dir != "" && !s.keepDir {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

func (s *Server) stopProcess() error {
	if s.process == nil || !s.Running() {
		return nil
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	// A stopped process takes SIGTERM only once it goes on.
	if err := s.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	late := s.Wait(ctx)
	if late == nil {
		return nil
	}
	if err := s.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-s.process.done
	return fmt.Errorf("killed the server, which did not stop within %s; its log ends with:\n%s", stopTimeout, tail(s.Log()))
}

// placeholders are what a Corefile may say in {{}}.
type placeholders struct{ s *Server }

// DNS returns the number of the main DNS port.
func (p placeholders) DNS() (int, error) { return p.Port("DNS") }

// Metrics returns the address for *prometheus*.
func (p placeholders) Metrics() (string, error) { return p.address("Metrics") }

// Ready returns the address for *ready*.
func (p placeholders) Ready() (string, error) { return p.address("Ready") }

// Health returns the address for *health*.
func (p placeholders) Health() (string, error) { return p.address("Health") }

// Port returns the number of the port of that name, and reserves one the first time.
func (p placeholders) Port(name string) (int, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if had, ok := p.s.ports[name]; ok {
		return had.number, nil
	}
	reserved, err := reservePort(true)
	if err != nil {
		return 0, err
	}
	p.s.ports[name] = reserved
	return reserved.number, nil
}

func (p placeholders) address(name string) (string, error) {
	number, err := p.Port(name)
	return loopback(number), err
}

func loopback(number int) string { return "127.0.0.1:" + strconv.Itoa(number) }
