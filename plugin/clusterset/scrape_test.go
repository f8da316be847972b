package clusterset

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
)

// TestASlowScrapeHoldsNobodyUp stops a scrape in the middle, and has members come and go meanwhile.
func TestASlowScrapeHoldsNobodyUp(t *testing.T) {
	ownStore(t)
	tenant := &lease.Tenant{}
	process.mustAcquire(t, tenant, configOf(t, "east", "west"))

	metrics, done := make(chan prometheus.Metric), make(chan struct{}) // nobody reads from it but the first
	go func() {
		defer close(done)
		collector{}.Collect(metrics)
	}()
	for range 5 { // some of the sources
		<-metrics
	}
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		_, key := process.mustAcquire(t, tenant, configOf(t, "east", "north"))
		process.claims.set("scrape.east", "scrape.east")
		process.worlds.Release(tenant, key)
		process.claims.forget("scrape.east")
	}()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("A change waits for the reader of the metrics")
	}
	go func() {
		<-done
		close(metrics)
	}()
	for range metrics {
	}
	<-changed
	forgetSource("scrape.east", false)
}
