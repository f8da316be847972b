package lease

import (
	"errors"
	"slices"
	"testing"

	"github.com/coredns/caddy"
)

// world records what a pool makes and ends.
type world struct {
	*Pool[string]
	t     *testing.T
	ended []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.Pool = NewPool(func(v string) { w.ended = append(w.ended, v) })
	return w
}

func (w *world) acquire(tenant *Tenant, key, value string) string {
	w.t.Helper()
	v, err := w.Acquire(tenant, key, func() (string, error) { return value, nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) held() int {
	n := 0
	w.Each(func(string) bool { n++; return true })
	return n
}

func TestPool(t *testing.T) {
	for name, row := range map[string]struct {
		do    func(w *world, old, next *Tenant)
		ended []string
		held  int
	}{
		"a value is made once and shared by all who hold its key": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				if got := w.acquire(next, "k", "second"); got != "first" {
					w.t.Errorf("Expected the value that is held, got %q", got)
				}
			}, nil, 1,
		},
		"a good reload keeps what both instances hold": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				w.acquire(next, "k", "second")
				w.Release(old, "k")
			}, nil, 1,
		},
		"a reload that changes the key ends the old value": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				w.acquire(next, "other", "second")
				w.Release(old, "k")
			}, []string{"first"}, 1,
		},
		"two server blocks hold a value twice": {
			func(w *world, old, _ *Tenant) {
				w.acquire(old, "k", "first")
				w.acquire(old, "k", "second")
				w.Release(old, "k")
			}, nil, 1,
		},
		"what a failed instance acquired is dropped": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				w.acquire(next, "k", "second")
				w.acquire(next, "other", "third")
				w.Keep(func(tenant *Tenant) bool { return tenant == old })
			}, []string{"third"}, 1,
		},
		"giving back what is not held changes nothing": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				w.Release(next, "k")
				w.Release(old, "other")
			}, nil, 1,
		},
		"a value given back by everybody ends once": {
			func(w *world, old, next *Tenant) {
				w.acquire(old, "k", "first")
				w.acquire(next, "k", "second")
				w.Release(old, "k")
				w.Release(next, "k")
				w.Release(next, "k")
				w.Keep(func(*Tenant) bool { return false })
			}, []string{"first"}, 0,
		},
		"a value that cannot be made is not held": {
			func(w *world, old, _ *Tenant) {
				no := errors.New("no")
				if _, err := w.Acquire(old, "k", func() (string, error) { return "", no }); !errors.Is(err, no) {
					w.t.Errorf("Expected %v, got %v", no, err)
				}
				w.Release(old, "k")
			}, nil, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			row.do(w, &Tenant{}, &Tenant{})
			if !slices.Equal(w.ended, row.ended) {
				t.Errorf("Expected %v to end, got %v", row.ended, w.ended)
			}
			if got := w.held(); got != row.held {
				t.Errorf("Expected %d values to be held, got %d", row.held, got)
			}
		})
	}
}

func TestTheTenantOfAnInstanceIsTheSameForAllItsStanzas(t *testing.T) {
	c := caddy.NewTestController("dns", "")
	if first := TenantOf(c); first == nil || TenantOf(c) != first {
		t.Error("Expected one tenant per instance")
	}
	if TenantOf(c) == TenantOf(caddy.NewTestController("dns", "")) {
		t.Error("Expected another instance to have another tenant")
	}
}

func TestAnInstanceThatNeverRanIsNotAlive(t *testing.T) {
	if Alive(TenantOf(caddy.NewTestController("dns", ""))) {
		t.Error("Expected an instance unknown to the process to count as gone")
	}
}
