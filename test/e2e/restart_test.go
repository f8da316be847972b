package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// kubernetesWaits is how long CoreDNS's kubernetes plugin holds up the start for its API server (startup_timeout).
const kubernetesWaits = 5 * time.Second

// TestRestartWithoutAPIServers kills every API server, then the server, and starts the latter alone.
func TestRestartWithoutAPIServers(t *testing.T) {
	all, state := []cluster{east, west, north}, t.TempDir()
	of := stanza(all, "state "+state)
	beside := fmt.Sprintf("kubernetes cluster.local {\nkubeconfig %s\n}", east.Kubeconfig())
	for _, c := range all {
		export(t, c, "kept-"+c.Name(), "10.9.0.1", "10.9.0.2")
	}
	s := run(t, corefile(of))
	ready(t, s)
	for _, c := range all {
		within(t, limit, "a name of "+c.Name(), answers(s, name("kept-"+c.Name()), 2))
	}
	within(t, limit, "files of all members", func(context.Context) error {
		for _, file := range []string{"exports-east", "exports-west", "exports-north", "namespaces-east", "serviceranges-east"} {
			info, err := os.Stat(filepath.Join(state, file+".state"))
			if err != nil {
				return err
			}
			if info.Mode().Perm() != 0o600 {
				return fmt.Errorf("%s has mode %v", file, info.Mode())
			}
		}
		return nil
	})
	stopped(t, s)

	for _, c := range all {
		must(t, c.KillAPIServer())
	}
	resume := sync.OnceFunc(func() {
		for _, c := range all {
			must(t, c.StartAPIServer(context.Background()))
		}
	})
	t.Cleanup(resume)
	for _, row := range []struct {
		what    string
		plugins []string
		bound   time.Duration
	}{
		{"without the kubernetes plugin", []string{of}, time.Second},
		{"with it", []string{of, beside}, kubernetesWaits + time.Second},
	} {
		t.Run(row.what, func(t *testing.T) {
			begin := time.Now()
			s := run(t, corefile(row.plugins...))
			for _, c := range all {
				within(t, limit, "a name of "+c.Name(), answers(s, name("kept-"+c.Name()), 2))
			}
			took := time.Since(begin)
			t.Logf("every known name was answered %s after the start of the process", round(took))
			if took > row.bound {
				t.Errorf("It took %s, want %s at most", round(took), row.bound)
			}
			within(t, limit, "readiness, by what is known of the local cluster", func(ctx context.Context) error {
				status, err := s.Ready(ctx)
				if err == nil && status != 200 && len(row.plugins) == 1 {
					err = fmt.Errorf("status %d", status)
				}
				return err
			})
			now(t, rcode(s, name("unheard-of"), dns.RcodeServerFailure))
			for _, c := range all {
				now(t, shows(s, 1, "coredns_clusterset_member_state", "cluster", c.Name(), "source", "exports", "state", "stale"))
			}
		})
	}
	t.Run("with files that are damaged or belong to another, once the API servers are back", func(t *testing.T) {
		west := filepath.Join(state, "exports-west.state")
		text, err := os.ReadFile(west)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(state, "exports-north.state"), text, 0o600))
		must(t, os.WriteFile(west, text[:len(text)/2], 0o600))
		s := run(t, corefile(of))
		within(t, limit, "a name of east", answers(s, name("kept-east"), 2))
		for _, c := range []string{"west", "north"} {
			now(t, rcode(s, name("kept-"+c), dns.RcodeServerFailure))
			now(t, shows(s, 1, "coredns_clusterset_state_errors_total", "cluster", c, "operation", "read"))
		}
		must(t, once(s, "west: the last known exports are not restored: .*damaged")(t.Context()))
		must(t, once(s, "north: the last known exports are not restored: .*another source")(t.Context()))
		resume()
		for _, c := range all {
			within(t, 2*limit, "a name of "+c.Name(), answers(s, name("kept-"+c.Name()), 2))
		}
		within(t, limit, "the files are replaced", func(context.Context) error {
			now, err := os.ReadFile(west)
			if err == nil && len(now) < len(text)/2+1 {
				err = errors.New("not yet")
			}
			return err
		})
	})
}
