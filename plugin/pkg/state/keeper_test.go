package state

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sortFacts(f *mcs.Facts) {
	slices.Sort(f.Namespaces)
	slices.SortFunc(f.Addresses, netip.Addr.Compare)
}

// kept is a Keeper under test.
type kept struct {
	*Keeper
	t     *testing.T
	dir   string
	proof atomic.Int64 // Unix seconds

	reporting sync.Mutex // guards reported
	reported  []error
}

func (k *kept) note(err error) {
	k.reporting.Lock()
	defer k.reporting.Unlock()
	k.reported = append(k.reported, err)
}

// results are what became of the files so far.
func (k *kept) results() []error {
	synctest.Wait()
	k.reporting.Lock()
	defer k.reporting.Unlock()
	return slices.Clone(k.reported)
}

func keep(t *testing.T, dir string) *kept {
	t.Helper()
	k := &kept{t: t, dir: dir}
	k.Keeper = NewKeeper(dir, west, func() time.Time { return time.Unix(k.proof.Load(), 0) }, k.note)
	return k
}

func (k *kept) shard(name string) {
	k.ApplyShard("west.eu", mcs.ServiceKey{Namespace: "shop", Name: name}, &mcs.Shard{}, time.Time{})
}

// wrote checks how often a file was written so far, and how many services the last one has.
func (k *kept) wrote(when string, times, services int) {
	k.t.Helper()
	if n := len(k.results()); n != times {
		k.t.Errorf("%s: written %d times, want %d", when, n, times)
	}
	r, err := Read(k.dir, west)
	if times > 0 && (err != nil || len(r.Facts.Shards) != services) {
		k.t.Errorf("%s: the file has %d services, want %d: %v", when, len(r.Facts.Shards), services, err)
	}
}

func TestKeeper(t *testing.T) {
	for _, row := range []struct {
		name string
		play func(k *kept)
	}{
		{"nothing is written before the source has synced", func(k *kept) {
			k.shard("a")
			k.SetRestored(west)
			time.Sleep(time.Hour)
			k.Close()
			k.wrote("at the end", 0, 0)
		}},
		{"the first file is written soon after", func(k *kept) {
			k.shard("a")
			k.SetSynced(west)
			time.Sleep(2 * firstAfter)
			k.wrote("after two seconds", 1, 1)
			k.Close()
			k.wrote("at the end, without a change", 1, 1)
		}},
		{"many changes make one file every ten seconds", func(k *kept) {
			k.SetSynced(west)
			time.Sleep(2 * firstAfter)
			for i := range 100 {
				k.shard(string(rune('a' + i%26)))
				time.Sleep(writeEvery / 100)
			}
			time.Sleep(writeEvery)
			if n := len(k.results()); n < 2 || n > 3 {
				k.t.Errorf("Written %d times", n)
			}
			k.Close()
			k.wrote("at the end", len(k.results()), 26)
		}},
		{"what has changed is written on close", func(k *kept) {
			k.SetSynced(west)
			time.Sleep(2 * firstAfter)
			k.shard("a")
			k.Close()
			k.wrote("at the end", 2, 1)
		}},
		{"the proof of life is written now and then", func(k *kept) {
			k.SetSynced(west)
			time.Sleep(2 * firstAfter)
			k.proof.Store(time.Now().Unix())
			time.Sleep(proofEvery + time.Second)
			k.wrote("after ten quiet minutes", 2, 0)
			if r, err := Read(k.dir, west); err != nil || r.Proof.Unix() != k.proof.Load() {
				k.t.Errorf("The proof is of %v, want %d: %v", r.Proof, k.proof.Load(), err)
			}
			k.Close()
		}},
		{"a folder that cannot be written to is tried again", func(k *kept) {
			if err := os.Rename(k.dir, k.dir+"-away"); err != nil {
				k.t.Fatal(err)
			}
			k.shard("a")
			k.SetSynced(west)
			time.Sleep(2 * firstAfter)
			if got := k.results(); len(got) != 1 || !errors.Is(got[0], os.ErrNotExist) {
				k.t.Errorf("Results are %v", got)
			}
			if err := os.Rename(k.dir+"-away", k.dir); err != nil {
				k.t.Fatal(err)
			}
			time.Sleep(2 * writeEvery)
			k.wrote("once the folder is there", 2, 1)
			k.Close()
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { row.play(keep(t, dir)) })
		})
	}
}

func TestAKeeperKeepsAllThatASourceSays(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(*testing.T) {
		k := keep(t, dir)
		k.shard("a")
		k.shard("b")
		k.ApplyShard("west.eu", mcs.ServiceKey{Namespace: "shop", Name: "b"}, nil, time.Time{})
		imported := mcs.ServiceKey{Namespace: "shop", Name: "i"}
		k.ApplyImport(imported, &mcs.ImportShard{}, time.Time{})
		for _, name := range []string{"old", "shop"} {
			k.ApplyNamespace(name, true)
		}
		k.ApplyNamespace("old", false)
		one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		k.ApplyServiceAddresses([]netip.Addr{one, two}, nil)
		k.ApplyServiceAddresses(nil, []netip.Addr{two})
		k.ApplyServiceRanges([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")})
		k.SetDrained("west.eu", true)
		k.SetSynced(west)
		k.Close()
		r, err := Read(dir, west)
		f := r.Facts
		if err != nil || len(f.Shards) != 1 || len(f.Imports) != 1 || !slices.Equal(f.Namespaces, []string{"shop"}) ||
			!slices.Equal(f.Addresses, []netip.Addr{one}) || len(f.Ranges) != 1 || !f.Drained {
			t.Errorf("Kept %+v, %v", f, err)
		}
	})
}
