package clients

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestAChannelOfGRPCResolvesAgainWhenItsConnectionEnds, and not before, whatever the TTL.
func TestAChannelOfGRPCResolvesAgainWhenItsConnectionEnds(t *testing.T) {
	if cannot != "" {
		t.Skip(cannot)
	}
	program := filepath.Join(t.TempDir(), "channel")
	build(t, "go", "build", "-trimpath", "-o", program, "./channel")
	address, stop := serveHealth(t, net.JoinHostPort(here, "0"))
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	call := onChannel(t, program, "dns:///rpc"+domain+".:"+port)
	calls := func(want int, when string, condition func(int) bool) {
		t.Helper()
		queries := asked(t, func() {
			for range want {
				if got := call(); got != address {
					t.Errorf("%s: %s answers, want %s", when, got, address)
				}
			}
		})
		if n := len(addressQueries(queries)); !condition(n) {
			t.Errorf("%s: %d queries for addresses: %v", when, n, queries)
		}
	}
	calls(1, "at first", func(n int) bool { return n == 1 })
	time.Sleep(2 * ttl) // what is shown is that nothing happens when the TTL is over
	calls(3, "while the connection lives", func(n int) bool { return n == 0 })
	stop()
	again, _ := serveHealth(t, address)
	if again != address {
		t.Fatalf("The second server listens on %s, the first on %s", again, address)
	}
	calls(1, "after the connection has ended", func(n int) bool { return n > 0 })
}

// serveHealth starts a gRPC server that is well, and returns where it listens.
func serveHealth(t *testing.T, address string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// onChannel starts the program on the machine and returns what makes a call and returns who answered.
func onChannel(t *testing.T, program, target string) (call func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit) // the cleanup ends it
	cmd := onMachine(ctx, t, program, target)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewReader(out)
	t.Cleanup(func() {
		defer cancel()
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return func() string {
		if _, err := io.WriteString(in, "\n"); err != nil {
			return err.Error()
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(line)
	}
}
