package clusterhealth

import (
	"maps"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Labels take their values from closed sets: the clusters of the Corefile, states, results.
var (
	probesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "probes_total",
		Help:      "Probes that have ended, by cluster and result (success, failure, timeout).",
	}, []string{"cluster", "result"})
	probeDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "probe_duration_seconds",
		Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 14), // 1 ms to 8 s
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Time that probes took, by cluster.",
	}, []string{"cluster"})
	transitionsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "transitions_total",
		Help:      "Changes of a cluster's state, by cluster and the state it changed to.",
	}, []string{"cluster", "state"})
)

func countProbe(id topology.ClusterID, err error, timeout bool, took time.Duration) {
	result := "success"
	switch {
	case err != nil && timeout:
		result = "timeout"
	case err != nil:
		result = "failure"
	}
	probesTotal.WithLabelValues(string(id), result).Inc()
	probeDuration.WithLabelValues(string(id)).Observe(took.Seconds())
}

// reportChanges says what has become of members whose state has changed, and why.
func reportChanges(before, now *health.Snapshot, because result) {
	known := maps.Collect(before.All())
	for id, status := range now.All() {
		was := health.Excluded
		if s, ok := known[id]; ok {
			was = s.State
		}
		if was == status.State {
			continue
		}
		transitionsTotal.WithLabelValues(string(id), status.State.String()).Inc()
		switch {
		case status.State == health.Healthy:
			log.Infof("Cluster %s is healthy: %s", id, status.Reason)
		case because.cluster == id && because.err != nil:
			log.Warningf("Cluster %s is %s: %s: %v", id, status.State, status.Reason, because.err)
		default:
			log.Warningf("Cluster %s is %s: %s", id, status.State, status.Reason)
		}
	}
}

func reportFrozen(frozen bool) {
	if frozen {
		log.Warning("Probes fail everywhere at once, which may be this server's own fault: for 5 minutes at most, no cluster is made unhealthy")
		return
	}
	log.Info("The guard against mass failure has ended")
}

// forget removes the series of a cluster that nobody probes any more.
func forget(id topology.ClusterID) {
	label := prometheus.Labels{"cluster": string(id)}
	probesTotal.DeletePartialMatch(label)
	probeDuration.DeletePartialMatch(label)
	transitionsTotal.DeletePartialMatch(label)
}

// collector reads what the states are now, when it is asked.
type collector struct{ *store }

var (
	describeState = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "member_state"),
		"1 for the state a cluster is in: healthy, degraded, unhealthy or excluded.", []string{"cluster", "state"}, nil)
	describeFrozen = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "frozen"),
		"1 while the guard against mass failure keeps clusters from becoming unhealthy.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- describeState
	ch <- describeFrozen
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	seen := map[topology.ClusterID]bool{}
	frozen := false
	for _, s := range c.youngest() {
		frozen = frozen || s.frozen.Load()
		for id, status := range s.snapshot.Load().All() {
			if seen[id] {
				continue
			}
			seen[id] = true
			for _, state := range health.States() {
				ch <- prometheus.MustNewConstMetric(describeState, prometheus.GaugeValue, is(state == status.State), string(id), state.String())
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(describeFrozen, prometheus.GaugeValue, is(frozen))
}

func is(it bool) float64 {
	if it {
		return 1
	}
	return 0
}
