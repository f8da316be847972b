package watch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func TestNewcomersGoFirst(t *testing.T) {
	for _, tc := range []struct {
		name string
		// from and until are when there is a newcomer.
		from, until time.Duration
		ends        time.Duration // when the context ends, 0 for never
		want        time.Duration
	}{
		{"nobody is waited for but for a moment", 0, 0, 0, yieldFirst},
		{"one that comes within that moment is waited for", yieldFirst / 2, 10*yieldFirst - 1, 0, 10 * yieldFirst},
		{"one that never arrives is not waited for long", yieldFirst / 2, time.Hour, 0, yieldAtMost},
		{"the end ends the wait", yieldFirst / 2, time.Hour, 3 * yieldFirst / 2, 3 * yieldFirst / 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.ends > 0 {
					time.AfterFunc(tc.ends, cancel)
				}
				w := &Watcher{}
				if tc.until > 0 {
					time.AfterFunc(tc.from, w.come)
					time.AfterFunc(tc.until, w.arrive)
				}
				began := time.Now()
				giveWay(ctx)
				if took := time.Since(began); took != tc.want {
					t.Errorf("It took %s, want %s", took, tc.want)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// TestASourceOfNamesIsNewUntilItHasTold counts sources of several kinds.
func TestASourceOfNamesIsNewUntilItHasTold(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kind  mcs.SourceKind
		seed  *Seed
		fails bool
		want  int64 // how many are new at the start
	}{
		{"a member is new until all is listed", mcs.Exports, nil, false, 1},
		{"imports are", mcs.Imports, nil, false, 1},
		{"a member that cannot be read is new until the end", mcs.Exports, nil, true, 1},
		{"one of which something is known is not", mcs.Exports, &Seed{}, false, 0},
		{"namespaces are no names", mcs.Namespaces, nil, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := newcomers.Load()
			server := newAPIServer(t)
			if tc.fails {
				server.fail["services"] = 403
			}
			server.mu.Lock() // so that nothing is listed yet
			w, err := Start(Spec{Kind: tc.kind, Cluster: "east", Connection: server.connection(), Observer: newTold(), Seed: tc.seed})
			if err != nil {
				t.Fatal(err)
			}
			if n := newcomers.Load() - before; n != tc.want {
				t.Errorf("At the start %d are new, want %d", n, tc.want)
			}
			server.mu.Unlock()
			if tc.fails {
				eventually(t, "it is refused", func() bool { return server.count("services") > 0 })
				if n := newcomers.Load() - before; n != tc.want {
					t.Errorf("While it is refused %d are new, want %d", n, tc.want)
				}
			} else {
				eventually(t, "it is synced", func() bool { return w.Status().State == Synced })
				if n := newcomers.Load() - before; n != 0 {
					t.Errorf("When it has told %d are new", n)
				}
			}
			w.Close()
			if n := newcomers.Load() - before; n != 0 {
				t.Errorf("In the end %d are new", n)
			}
		})
	}
}
