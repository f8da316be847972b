package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
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
	calls := func(count int, when string, wantQueries int) {
		t.Helper()
		queries := asked(t, func() {
			for range count {
				if got := call(); got != address {
					t.Errorf("%s: %s answers, want %s", when, got, address)
				}
			}
		})
		if n := len(addressQueries(queries)); n != wantQueries {
			t.Errorf("%s: %d queries for addresses, want %d: %v", when, n, wantQueries, queries)
		}
	}
	calls(1, "at first", 1)
	time.Sleep(2 * ttl) // what is shown is that nothing happens when the TTL is over
	calls(3, "while the connection lives", 0)

	before := len(coredns.Log()) // the channel asks as soon as it sees the end, which may be before the second server is there
	stop()
	if again, _ := serveHealth(t, address); again != address {
		t.Fatalf("The second server listens on %s, the first on %s", again, address)
	}
	suite.Within(t, limit, "the second server answers", func(context.Context) error {
		if got := call(); got != address { // a call that is sent before the end is seen fails
			return fmt.Errorf("%s answers, want %s", got, address)
		}
		return nil
	})
	suite.Within(t, limit, "the name is asked for again", func(context.Context) error {
		if all := queries(coredns.Log()[before:]); len(addressQueries(all)) == 0 {
			return fmt.Errorf("no query for addresses: %v", all)
		}
		return nil
	})
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
