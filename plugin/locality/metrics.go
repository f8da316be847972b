package locality

import (
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Labels take their values from closed sets: the own cluster's name, resources, reasons, kinds. Never from what a query
// or an API server says.
var (
	ecsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "ecs_total",
		Help: "Queries by what became of their EDNS client subnet, while 'ecs' is set: accepted, untrusted (not from a forwarder), " +
			"malformed, withheld (length 0), none.",
	}, []string{"result"})
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "events_total",
		Help:      "Objects received from the API server, by resource and event (add, update, delete, list).",
	}, []string{"cluster", "resource", "event"})
	rejectionsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "rejections_total",
		Help:      "Things received from the API server that were left out because they make no sense, by reason.",
	}, []string{"cluster", "reason"})
	watchProblem = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "watch_problem",
		Help:      "1 while a resource cannot be read, by reason.",
	}, []string{"cluster", "resource", "reason"})

	// ecs are the counters of ecsTotal by verdict, looked up once.
	ecs = [...]prometheus.Counter{
		ecsNone:      ecsTotal.WithLabelValues(ecsNone.String()),
		ecsAccepted:  ecsTotal.WithLabelValues(ecsAccepted.String()),
		ecsUntrusted: ecsTotal.WithLabelValues(ecsUntrusted.String()),
		ecsMalformed: ecsTotal.WithLabelValues(ecsMalformed.String()),
		ecsWithheld:  ecsTotal.WithLabelValues(ecsWithheld.String()),
	}
)

// collector reads what the tables are now, when it is asked.
type collector struct{ *store }

var (
	describeEntries = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "entries"),
		"Entries of the tables that map clients to places, by kind: node, address (of Nodes and endpoints), podcidr, cidr (written), ecs (forwarders).",
		[]string{"cluster", "kind"}, nil)
	describeAgreement = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "podcidr_agreement_ratio"),
		"Share of the endpoints that are on the Node whose pod CIDR holds them, 1 when there is nothing to compare.", []string{"cluster"}, nil)
	describeTrusted = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "podcidr_trusted"),
		"1 while the pod CIDRs of the Nodes are used, 0 while too few endpoints agree with them.", []string{"cluster"}, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- describeEntries
	ch <- describeAgreement
	ch <- describeTrusted
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	type key struct{ cluster, kind string }
	entries := map[key]int{}
	c.handlers.Each(func(l *Locality) bool {
		entries[key{string(l.cluster), "cidr"}] += len(l.cidrs.values)
		entries[key{string(l.cluster), "ecs"}] += len(l.forwarders.values)
		return true
	})
	seen := map[string]bool{}
	c.sources.Each(func(n *nodeSource) bool {
		if seen[n.name] {
			return true // two connections to one cluster exist side by side only while one replaces the other
		}
		seen[n.name] = true
		t := n.current.Load()
		entries[key{n.name, "node"}] = t.nodes
		entries[key{n.name, "address"}] = t.exact.len()
		entries[key{n.name, "podcidr"}] = len(t.pods.values)
		trusted := 0.0
		if t.podsTrusted() {
			trusted = 1
		}
		gauge(describeTrusted, trusted, n.name)
		gauge(describeAgreement, t.agreement(), n.name)
		return true
	})
	for k, n := range entries {
		gauge(describeEntries, float64(n), k.cluster, k.kind)
	}
}

// observer turns what the watcher reports into metrics and, on transitions only, log lines.
type observer struct{}

// Event implements watch.Observer.
func (observer) Event(name, resource, event string, objects int) {
	eventsTotal.WithLabelValues(name, resource, event).Add(float64(objects))
}

// Reject implements watch.Observer.
func (observer) Reject(name string, reason watch.Rejection) {
	rejectionsTotal.WithLabelValues(name, string(reason)).Inc()
}

// Problem implements watch.Observer.
func (observer) Problem(name, resource string, p watch.Problem, err error) {
	for _, known := range watch.Problems() {
		is := 0.0
		if known == p {
			is = 1
		}
		watchProblem.WithLabelValues(name, resource, string(known)).Set(is)
	}
	if p == watch.NoProblem {
		log.Infof("Cluster %s: %s can be read", name, resource)
		return
	}
	log.Warningf("Cluster %s: %s cannot be read (%s): %v; retrying, clients are located by what else is known", name, resource, p, err)
}

// Hold implements watch.Observer. Lists of Nodes are always believed.
func (observer) Hold(string, string, bool, int, int) {}

// Renewed implements watch.Observer.
func (observer) Renewed(name string, insecure bool, err error) {
	switch {
	case err != nil:
		log.Warningf("Cluster %s: there are new credentials that cannot be used: %v; trying again, meanwhile the old ones are used", name, err)
	case insecure:
		log.Warningf("Cluster %s: %s", name, insecureWarning)
		fallthrough
	default:
		log.Infof("Cluster %s: new credentials are used", name)
	}
}

// insecureWarning is said at each start and reload, and when it comes to be while we run.
const insecureWarning = "its kubeconfig has insecure-skip-tls-verify: anybody on the way to its API server can read the credentials and say what nodes there are; give certificate-authority-data instead"

// State implements watch.Observer.
func (observer) State(name string, kind mcs.SourceKind, s watch.State) {
	if s == watch.Stale {
		log.Warningf("Cluster %s: %s are stale, no proof of life for a minute; what is known goes on being used", name, kind)
		return
	}
	log.Infof("Cluster %s: %s are %s", name, kind, s)
}

// forgetSource removes the series of a source that has ended.
func forgetSource(name string) {
	label := prometheus.Labels{"cluster": name}
	eventsTotal.DeletePartialMatch(label)
	rejectionsTotal.DeletePartialMatch(label)
	watchProblem.DeletePartialMatch(label)
}
