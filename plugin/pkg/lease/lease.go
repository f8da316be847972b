// Package lease shares what must outlive a reload: watches and what is known from them.
//
// CoreDNS starts the new instance of a server before it stops the old one, and forgets a new one that fails without a
// word. So whatever an instance holds is counted here: it is acquired when the instance starts, given back when it shuts
// down, and taken from instances that are gone. The package owns the counting and refuses to know what is counted.
package lease

import (
	"slices"
	"sync"

	"github.com/coredns/caddy"
)

// Tenant stands for one instance of the server. It must not have size zero: pointers to distinct tenants must differ.
type Tenant struct{ _ byte }

// tenantKey is where the storage of an instance keeps its tenant.
type tenantKey struct{}

// TenantOf returns the tenant of the instance that is being set up, the same one for all its plugins and server blocks.
func TenantOf(c *caddy.Controller) *Tenant {
	if t, ok := c.Get(tenantKey{}).(*Tenant); ok {
		return t
	}
	t := &Tenant{}
	c.Set(tenantKey{}, t)
	return t
}

// Alive reports whether the instance of a tenant is running or starting. Whether a restart failed cannot be told from
// being called back: the error of another plugin's OnShutdown makes a successful one look failed.
func Alive(t *Tenant) bool {
	return slices.ContainsFunc(caddy.Instances(), func(i *caddy.Instance) bool {
		i.StorageMu.RLock()
		defer i.StorageMu.RUnlock()
		return i.Storage[tenantKey{}] == t
	})
}

// announcedKey is where the storage of an instance keeps that a plugin stands in some server block.
type announcedKey string

// Announce says, in setup, that a plugin stands in a server block of this instance.
func Announce(c *caddy.Controller, plugin string) { c.Set(announcedKey(plugin), true) }

// Announced reports, on start, whether a plugin stands in any server block of this instance. A server block itself sees
// only its own plugins.
func Announced(c *caddy.Controller, plugin string) bool { return c.Get(announcedKey(plugin)) != nil }

// Pool holds values that tenants share by key: one is made with the first lease on it and ends with the last. Make one
// with NewPool. Its methods may be called from several goroutines, but not from the functions that it calls.
type Pool[V any] struct {
	end func(V)

	mu      sync.Mutex
	values  map[string]*counted[V]
	tenants map[*Tenant][]string // the keys each instance holds, one entry per lease
}

// counted is something with a count of its leases.
type counted[V any] struct {
	value  V
	leases int
}

// NewPool returns an empty pool. end is called once for every value, when nobody holds it any more.
func NewPool[V any](end func(V)) *Pool[V] {
	return &Pool[V]{end: end, values: map[string]*counted[V]{}, tenants: map[*Tenant][]string{}}
}

// Hold lets the instance that is being set up hold a value while it runs. begin makes the value if nobody holds it; use
// is told it on start, before the first query. A reload whose configuration gives the same key keeps the value.
func (p *Pool[V]) Hold(c *caddy.Controller, key string, begin func() (V, error), use func(V) error) {
	mine := TenantOf(c)
	c.OnStartup(func() error {
		p.Keep(Alive)
		v, err := p.Acquire(mine, key, begin)
		if err != nil {
			return err
		}
		return use(v)
	})
	c.OnShutdown(func() error {
		p.Release(mine, key)
		return nil
	})
	c.OnRestartFailed(func() error {
		p.Keep(Alive)
		return nil
	})
}

// Acquire takes a lease on the value of a key for a tenant. begin makes the value if nobody holds it, and must not wait.
func (p *Pool[V]) Acquire(t *Tenant, key string, begin func() (V, error)) (V, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.values[key]
	if c == nil {
		v, err := begin()
		if err != nil {
			return v, err
		}
		c = &counted[V]{value: v}
		p.values[key] = c
	}
	c.leases++
	p.tenants[t] = append(p.tenants[t], key)
	return c.value, nil
}

// Release gives back one lease of a tenant. Giving back what it does not hold is no error.
func (p *Pool[V]) Release(t *Tenant, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.tenants[t]
	at := slices.Index(held, key)
	if at < 0 {
		return
	}
	if held = slices.Delete(held, at, at+1); len(held) == 0 {
		delete(p.tenants, t)
	} else {
		p.tenants[t] = held
	}
	p.drop(key)
}

// Keep gives back everything that tenants hold for which alive is false: instances that failed to start are never told
// to shut down.
func (p *Pool[V]) Keep(alive func(*Tenant) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, held := range p.tenants {
		if alive(t) {
			continue
		}
		delete(p.tenants, t)
		for _, key := range held {
			p.drop(key)
		}
	}
}

func (p *Pool[V]) drop(key string) {
	c := p.values[key]
	if c.leases--; c.leases == 0 {
		delete(p.values, key)
		p.end(c.value)
	}
}

// Each calls yield for every value, until it returns false.
func (p *Pool[V]) Each(yield func(V) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.values {
		if !yield(c.value) {
			return
		}
	}
}
