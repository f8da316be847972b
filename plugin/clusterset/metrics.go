package clusterset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Labels take their values from closed sets: clusters of the Corefile, resources, reasons, states. Never from what a
// query or another cluster says.
var (
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "events_total",
		Help:      "Objects received from API servers, by cluster, resource and event (add, update, delete, list).",
	}, []string{"cluster", "resource", "event"})
	rejectionsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "rejections_total",
		Help:      "Things received from API servers that were left out because they make no sense, by cluster and reason.",
	}, []string{"cluster", "reason"})
	watchProblem = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "watch_problem",
		Help:      "1 while a resource of a cluster cannot be read, by reason.",
	}, []string{"cluster", "resource", "reason"})
	collapseHeld = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "collapse_held",
		Help:      "1 while a list of a cluster's API server is not believed because most of what was known has vanished from it.",
	}, []string{"cluster", "resource"})
	collapsesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "collapses_total",
		Help:      "Lists of a cluster's API server that were not believed at once because most of what was known had vanished from them.",
	}, []string{"cluster", "resource"})
	stateErrors = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "state_errors_total",
		Help:      "Files of the last known state that could not be used or written, by cluster and operation (read, write).",
	}, []string{"cluster", "operation"})
	conflicts = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "conflicts",
		Help:      "Services whose exports disagree, by the reason of the ServiceExport condition Conflict.",
	}, []string{"reason"})
	invalidExports = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "invalid_exports",
		Help:      "ServiceExports that export nothing, by cluster and the reason of the condition Valid.",
	}, []string{"cluster", "reason"})
	unusable = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "unusable_services",
		Help:      "Services in which a cluster takes no part, or not with all its addresses, by cluster and reason (overlap, port_mismatch, no_address, not_allowed, namespace).",
	}, []string{"cluster", "reason"})
	idMismatch = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "cluster_id_mismatch",
		Help:      "1 while a cluster says by the ClusterProperty cluster.clusterset.k8s.io that it has another id than in the Corefile.",
	}, []string{"cluster"})
	buildDuration = promauto.NewHistogram(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "snapshot_build_duration_seconds",
		Buckets:                     prometheus.ExponentialBuckets(0.00001, 4, 10), // 10 us to 2.6 s
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Time to merge what changed and publish a new snapshot.",
	})
	programmingDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "dns_programming_duration_seconds",
		Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 20), // 1 ms to 524 s, as the kubernetes plugin
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Time from the change of an endpoint, as its cluster dates it, until answers show it.",
	}, []string{"service_kind"})
)

// serviceKind names the kinds as the kubernetes plugin's metric of that name does.
func serviceKind(headless bool) string {
	if headless {
		return "headless_with_selector"
	}
	return "cluster_ip"
}

// collector reads what the sources are now, when it is asked.
type collector struct{}

var (
	memberLabels  = []string{"cluster", "source"}
	describeState = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "member_state"),
		"1 for the state a source of a cluster is in: syncing, synced, stale, expired or timed_out.", append([]string{"state"}, memberLabels...), nil)
	describeAge = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "member_proof_age_seconds"),
		"Time since the last proof of life of a cluster's API server.", memberLabels, nil)
	describeServices = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "member_services"),
		"Services held of a cluster.", memberLabels, nil)
	describeDynamic = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "dynamic_members"),
		"Members that were added while the server runs.", nil, nil)
	describeRefused = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "refused_members"),
		"Descriptions of members that are not used, by reason (id, kubeconfig, setting, duplicate, too_many).", []string{"reason"}, nil)
	describeEndpoints = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "member_endpoints"),
		"Endpoint addresses held of a cluster.", memberLabels, nil)
	describeExpiry = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "credential_expiry_timestamp_seconds"),
		"When the first of the credentials for a cluster's API server ends (client certificate, token, or what an exec plugin says), in seconds since 1970; absent where that is not known.",
		memberLabels, nil)
	describeInsecure = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "tls_verification_disabled"),
		"1 while the certificate of a cluster's API server is not verified, by insecure-skip-tls-verify in its kubeconfig; else 0.", memberLabels, nil)
	describePolicy = prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, "policy_hash"),
		"A number made of the words of all stanzas in use: servers that were told the same have the same.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- describeState
	ch <- describeAge
	ch <- describeServices
	ch <- describeEndpoints
	ch <- describeDynamic
	ch <- describeRefused
	ch <- describeExpiry
	ch <- describeInsecure
	ch <- describePolicy
}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	collectRosters(ch)
	ch <- prometheus.MustNewConstMetric(describePolicy, prometheus.GaugeValue, process.policyHash())
	type id struct{ name, kind string }
	seen := map[id]bool{}
	process.sources(func(name string, kind mcs.SourceKind, st watch.Status) {
		// Two connections to one cluster exist side by side only while one replaces the other.
		if seen[id{name, kind.String()}] {
			return
		}
		seen[id{name, kind.String()}] = true
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append(labels, name, kind.String())...)
		}
		for _, s := range watch.States() {
			is := 0.0
			if s == st.State {
				is = 1
			}
			gauge(describeState, is, s.String())
		}
		if !st.LastProof.IsZero() {
			gauge(describeAge, time.Since(st.LastProof).Seconds())
		}
		if !st.CredentialExpiry.IsZero() {
			gauge(describeExpiry, float64(st.CredentialExpiry.Unix()))
		}
		insecure := 0.0
		if st.Insecure {
			insecure = 1
		}
		gauge(describeInsecure, insecure)
		if kind == mcs.Exports || kind == mcs.Imports {
			gauge(describeServices, float64(st.Services))
			gauge(describeEndpoints, float64(st.Endpoints))
		}
	})
}

// policyHash is a whole number that the order of the server blocks does not change. During a reload it is made of the old
// stanzas and the new ones.
func (s *store) policyHash() float64 {
	sum := uint64(0)
	s.handlers.Each(func(c *Clusterset) bool {
		sum += c.hash
		return true
	})
	const exact = 1<<53 - 1 // beyond, a float64 skips numbers
	return float64(sum & exact)
}

// collectRosters tells of the members that come and go, where there can be some.
func collectRosters(ch chan<- prometheus.Metric) {
	members, refused, followed := 0, map[refusal]int{}, false
	for _, r := range process.listed.Load().rosters {
		followed = true
		n, why := r.counts()
		members += n
		for reason, count := range why {
			refused[reason] += count
		}
	}
	if !followed {
		return
	}
	ch <- prometheus.MustNewConstMetric(describeDynamic, prometheus.GaugeValue, float64(members))
	for _, reason := range refusals() {
		ch <- prometheus.MustNewConstMetric(describeRefused, prometheus.GaugeValue, float64(refused[reason]), string(reason))
	}
}

// observer turns what watchers report into metrics and, on transitions only, log lines.
type observer struct{}

// Event implements watch.Observer.
func (observer) Event(name, resource, event string, objects int) {
	eventsTotal.WithLabelValues(name, resource, event).Add(float64(objects))
	if event == "list" {
		// They are 0 before the first collapse: nobody sees a counter rise that begins at 1.
		collapseHeld.WithLabelValues(name, resource)
		collapsesTotal.WithLabelValues(name, resource)
	}
}

// Reject implements watch.Observer.
func (observer) Reject(name string, reason watch.Rejection) {
	rejectionsTotal.WithLabelValues(name, string(reason)).Inc()
	process.rejected.count(name, reason)
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
	log.Warningf("Cluster %s: %s cannot be read (%s): %v; retrying, the other clusters are not affected", name, resource, p, err)
}

// Hold implements watch.Observer.
func (observer) Hold(name, resource string, held bool, before, after int) {
	if !held {
		collapseHeld.WithLabelValues(name, resource).Set(0)
		log.Infof("Cluster %s: a second list of %s is believed", name, resource)
		return
	}
	collapseHeld.WithLabelValues(name, resource).Set(1)
	collapsesTotal.WithLabelValues(name, resource).Inc()
	log.Warningf("Cluster %s: a list of %s leaves %d of %d; it is not believed until a second list says so, ten seconds from now", name, resource, after, before)
}

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
const insecureWarning = "its kubeconfig has insecure-skip-tls-verify: anybody on the way to its API server can read the credentials and forge answers; give certificate-authority-data instead"

// stateBecause says it in words where a state is no good news.
var stateBecause = map[watch.State]string{
	watch.Stale:    "no proof of life of the API server; what is known goes on being answered",
	watch.Expired:  "the API server has been silent for too long; what it said is forgotten, and its names are denied",
	watch.TimedOut: "the API server has never been read; names that only this cluster may have are denied",
}

// State implements watch.Observer.
func (observer) State(name string, kind mcs.SourceKind, s watch.State) {
	if kind == mcs.Exports {
		process.conditions.setStale(topology.ClusterID(name), s == watch.Stale)
	}
	if why, bad := stateBecause[s]; bad {
		log.Warningf("Cluster %s: %s are %s: %s", name, kind, s, why)
		return
	}
	log.Infof("Cluster %s: %s are %s", name, kind, s)
}

// forgetSource removes the series of a source that has ended. left tells whether another of that name is there.
func forgetSource(name string, left bool) {
	if left {
		return
	}
	label := prometheus.Labels{"cluster": name}
	eventsTotal.DeletePartialMatch(label)
	rejectionsTotal.DeletePartialMatch(label)
	watchProblem.DeletePartialMatch(label)
	collapseHeld.DeletePartialMatch(label)
	collapsesTotal.DeletePartialMatch(label)
	stateErrors.DeletePartialMatch(label)
	idMismatch.DeletePartialMatch(label)
	invalidExports.DeletePartialMatch(label)
	unusable.DeletePartialMatch(label)
}

// reportChanges keeps the gauges of conflicts and invalid exports, and says once what is new.
func reportChanges(changes []mcs.Change) {
	complaints := complaints{}
	for _, c := range changes {
		uncount(c.Old)
		for _, reason := range c.New.Conflicts.Reasons() {
			conflicts.WithLabelValues(reason).Inc()
		}
		countInvalid(c.New, 1)
		complaints.describe(c)
	}
	complaints.more()
}

func uncount(r mcs.Report) {
	for _, reason := range r.Conflicts.Reasons() {
		conflicts.WithLabelValues(reason).Dec()
	}
	countInvalid(r, -1)
}

func countInvalid(r mcs.Report, sign float64) {
	eachLeftOut(r, func(id topology.ClusterID, reason string, valid bool) {
		gauge := invalidExports
		if valid {
			gauge = unusable
		}
		gauge.WithLabelValues(string(id), reason).Add(sign)
	})
}

// complaints count, by what is wrong, with how many services it is. What is wrong with a cluster is wrong with all that it exports:
// thousands of lines that say so hide all others, and who writes them waits for who reads them.
type complaints map[string]int

// namedAtMost is how many services are named with which the same is wrong.
const namedAtMost = 5

func (w complaints) warn(key mcs.ServiceKey, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if w[what]++; w[what] <= namedAtMost {
		log.Warningf("Service %s: %s", key, what)
	}
}

// more says of how many services nothing was said.
func (w complaints) more() {
	for _, what := range slices.Sorted(maps.Keys(w)) {
		if n := w[what] - namedAtMost; n > 0 {
			log.Warningf("And %d more: %s", n, what)
		}
	}
}

func (w complaints) describe(c mcs.Change) {
	if c.New.Conflicts != 0 && c.New.Conflicts != c.Old.Conflicts {
		exporters := make([]string, len(c.Exporters))
		for i, id := range c.Exporters {
			exporters[i] = string(id)
		}
		w.warn(c.Key, "the exports of %s disagree (%s); the oldest wins", strings.Join(exporters, ", "), c.New.Conflicts)
	}
	for _, id := range c.New.InvalidType {
		w.warn(c.Key, "cluster %s exports a Service of type ExternalName, which cannot be exported", id)
	}
	for _, u := range c.New.Unusable {
		if !slices.Contains(c.Old.Unusable, u) {
			w.warn(c.Key, "cluster %s %s", u.Cluster, unusableBecause[u.Reason])
		}
	}
}

// unusableBecause says it in words, with the remedy.
var unusableBecause = map[mcs.UnusableReason]string{
	mcs.Overlap:          "takes no part: its cluster IP lies in the service network of the local cluster; give it another 'address'",
	mcs.PortMismatch:     "takes no part: its pods listen on another port than the Service, which an A record cannot tell; make targetPort equal port or use another 'address'",
	mcs.NoAddress:        "takes no part: it has no address of the kind that 'address' asks for",
	mcs.NotAllowed:       "exports addresses that 'allow' does not hold; they are left out",
	mcs.ForeignNamespace: "takes no part: 'namespaces' does not hold this one",
	mcs.WrongCluster:     "takes no part: it says that it is another cluster",
}
