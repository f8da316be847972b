package balance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// The published rows of other systems, each with its source, are in testdata/vectors.json. The environment variable
// CLUSTERSET_VECTORS takes them from another file.
const vectorsFile = "testdata/vectors.json"

// vectorSections are the sections of the file that are run, and what runs a row of each. It returns why we differ from
// the row on purpose, "" when we do not; either way it has asserted what our rule says.
var vectorSections = map[string]func(*testing.T, json.RawMessage) string{
	"priority_load":       priorityLoadRow,
	"locality_weight":     localityWeightRow,
	"istio_priority":      istioRow,
	"kube_proxy_topology": kubeProxyRow,
	"gdnsd_weighted":      gdnsdRow,
	"slow_start":          slowStartRow,
	"weight_realisation":  realisationRow,
}

// elsewhere is the section that the records of package clusterset are needed for: that package runs it.
const elsewhere = "answer_size_computed"

// deliberate are the rules of other systems that we do not have. A row whose outcome depends on one is held against our
// rule instead, which stands behind the colon.
const (
	noHostsToLose       = "Envoy without a panic threshold answers 503 when nobody is healthy: we fail open, by size"
	drainedStayOut      = "Envoy in total panic uses excluded hosts: what is drained or not probed yet answers only when nobody else is ready"
	noFailoverRules     = "Istio's failover rules from region to region: all other regions are equal"
	networkStops        = "Istio's network label as the first does not end the comparison: every label does"
	unknownIsDifferent  = "Istio takes labels that both sides lack for equal: what is unknown matches nothing"
	fourLabels          = "more labels than there are parts of a locality: four at most"
	noDistribute        = "Istio's distribute splits by locality: the nearest take all that they can, weights are the members'"
	ownLabels           = "Istio spells a zone as network, region and zone: a zone is compared inside its region, and there is no network or subzone"
	oneZone             = "an endpoint with hints for several zones: hints are not read, an endpoint is near its own zone"
	unhintedDoNotSwitch = "kube-proxy drops the preference when one endpoint has no hint: such an endpoint is just not near"
	noLocalPolicy       = "kube-proxy's traffic policy Local: DNS answers with what the preference says"
	noTerminating       = "kube-proxy falls back to endpoints that are terminating and serving: a name without a ready endpoint does not exist"
	oneMember           = "several groups in one answer lose the weights: an answer holds one member"
	linearSlowStart     = "slow start with a curve or another minimum: a line from 10 %"
)

func TestVectors(t *testing.T) {
	file := vectorsFile
	if f := os.Getenv("CLUSTERSET_VECTORS"); f != "" {
		file = f
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	total := 0
	for _, section := range slices.Sorted(maps.Keys(vectorSections)) {
		total += runSection(t, section, rowsOf(t, all, section))
	}
	if total+len(rowsOf(t, all, elsewhere)) == 0 {
		t.Errorf("%s has no row that could be run", file)
	}
}

func rowsOf(t *testing.T, all map[string]json.RawMessage, section string) (rows []json.RawMessage) {
	t.Helper()
	if all[section] == nil {
		return nil
	}
	if err := json.Unmarshal(all[section], &rows); err != nil {
		t.Fatalf("Section %s: %v", section, err)
	}
	return rows
}

func runSection(t *testing.T, section string, rows []json.RawMessage) int {
	t.Helper()
	passed, failed := 0, 0
	var differences []string
	for i, row := range rows {
		ok := t.Run(fmt.Sprintf("%s/%d", section, i), func(t *testing.T) {
			if why := vectorSections[section](t, row); why != "" {
				differences = append(differences, fmt.Sprintf("row %d: %s", i, why))
			}
		})
		if ok {
			passed++
		} else {
			failed++
		}
	}
	t.Logf("%s: %d passed, %d failed", section, passed, failed)
	for _, d := range differences {
		t.Logf("%s: differs on purpose: %s", section, d)
	}
	return passed + failed
}

func parse(t *testing.T, row json.RawMessage, to any) {
	t.Helper()
	if err := json.Unmarshal(row, to); err != nil {
		t.Fatalf("%v in %s", err, row)
	}
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance+1e-9 }

// --- Envoy: priority load -------------------------------------------------------------------------------------------

type priorityRow struct {
	Overprovisioning float64   `json:"overprovisioning"`
	Health           []float64 `json:"health"`
	Degraded         []float64 `json:"degraded"`
	Hosts            [][4]int  `json:"hosts_total_healthy_degraded_excluded"`
	Weights          []struct {
		Healthy, Unhealthy, Degraded, Excluded int
	} `json:"weights"`
	ExpectedLoad        []int  `json:"expected_load"`
	ExpectedDegraded    []int  `json:"expected_degraded_load"`
	ExpectedClusterLoad []int  `json:"expected_cluster_load"`
	ClusterOfPriority   []int  `json:"cluster_of_priority"`
	Panic               bool   `json:"panic"`
	PanicPerPriority    []bool `json:"panic_per_priority"`
	PanicThreshold      *int   `json:"panic_threshold"`
	Normalized          *int   `json:"normalized_total_health"`
	ExpectedCandidates  string `json:"expected_candidates"`
	MatchesCodeModel    bool   `json:"matches_code_model"`
	CodeModel           *struct {
		Load, Degraded []int
		Panic          []bool
	} `json:"code_model"`
}

// counts are the hosts of each priority: those the row gives, else a hundred of which so many percent are healthy.
func (r *priorityRow) counts() (out []Counts) {
	switch {
	case r.Weights != nil:
		for _, w := range r.Weights {
			out = append(out, Counts{w.Healthy, w.Degraded, w.Healthy + w.Degraded + w.Unhealthy, w.Excluded})
		}
	case r.Hosts != nil:
		for _, h := range r.Hosts {
			out = append(out, Counts{Healthy: h[1], Degraded: h[2], Total: h[0] - h[3], Excluded: h[3]})
		}
	default:
		hosts := 100
		if slices.ContainsFunc(r.Health, func(h float64) bool { return h != math.Trunc(h) }) {
			hosts = 10000
		}
		for i, h := range r.Health {
			c := Counts{Healthy: int(math.Round(h / 100 * float64(hosts))), Total: hosts}
			if i < len(r.Degraded) {
				c.Degraded = int(math.Round(r.Degraded[i] / 100 * float64(hosts)))
			}
			out = append(out, c)
		}
	}
	return out
}

func (r *priorityRow) threshold() int {
	if r.PanicThreshold == nil {
		return 50 // Envoy's default
	}
	return *r.PanicThreshold
}

func priorityLoadRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r priorityRow
	parse(t, row, &r)
	counts, opf := r.counts(), int(math.Round(r.Overprovisioning*100))
	got := loads(100, opf, r.threshold(), counts)
	if r.threshold() == 0 && !slices.ContainsFunc(counts, func(c Counts) bool { return c.Healthy+c.Degraded > 0 }) {
		total := 0
		for _, c := range counts {
			total += c.Total + c.Excluded
		}
		for i, c := range counts {
			if want := 100 * float64(c.Total+c.Excluded) / float64(max(1, total)); total > 0 && !near(float64(got[i].Healthy), want, float64(len(counts))) || !got[i].Panic {
				t.Errorf("Priority %d has %+v, want %.0f in panic", i, got[i], want)
			}
		}
		return noHostsToLose
	}
	r.checkLoads(t, got)
	return r.checkPlan(t, counts, opf)
}

func (r *priorityRow) checkLoads(t *testing.T, got []Load) {
	t.Helper()
	model := struct {
		load, degraded []int
		panic          []bool
	}{r.ExpectedLoad, r.ExpectedDegraded, r.PanicPerPriority}
	tolerance := 0.0
	if r.CodeModel != nil {
		model.load, model.degraded, model.panic = r.CodeModel.Load, r.CodeModel.Degraded, r.CodeModel.Panic
	} else if !r.MatchesCodeModel {
		tolerance = 2
	}
	anyPanic, sum := false, 0
	for i, l := range got {
		anyPanic, sum = anyPanic || l.Panic, sum+l.Healthy+l.Degraded
		if model.load != nil && !near(float64(l.Healthy), float64(model.load[i]), tolerance) {
			t.Errorf("Priority %d has load %d, want %d", i, l.Healthy, model.load[i])
		}
		if r.ExpectedLoad != nil && !near(float64(l.Healthy), float64(r.ExpectedLoad[i]), 2) {
			t.Errorf("Priority %d has load %d, far from the document's %d", i, l.Healthy, r.ExpectedLoad[i])
		}
		if model.degraded != nil && l.Degraded != model.degraded[i] {
			t.Errorf("Priority %d has degraded load %d, want %d", i, l.Degraded, model.degraded[i])
		}
		if model.panic != nil && l.Panic != model.panic[i] {
			t.Errorf("Priority %d: panic is %v, want %v", i, l.Panic, model.panic[i])
		}
	}
	if sum != 100 {
		t.Errorf("Loads add up to %d", sum)
	}
	if anyPanic != r.Panic {
		t.Errorf("Panic is %v, want %v", anyPanic, r.Panic)
	}
	if r.ExpectedClusterLoad != nil {
		perCluster := make([]int, len(r.ExpectedClusterLoad))
		for i, l := range got {
			perCluster[r.ClusterOfPriority[i]] += l.Healthy + l.Degraded
		}
		if !slices.Equal(perCluster, r.ExpectedClusterLoad) {
			t.Errorf("Loads per cluster are %v, want %v", perCluster, r.ExpectedClusterLoad)
		}
	}
}

// checkPlan builds the row's priorities out of members and endpoints and looks at the shares that a plan gives them.
// Three priorities can be made of members in any state (by zone and region), five of ready and unready endpoints.
func (r *priorityRow) checkPlan(t *testing.T, counts []Counts, opf int) string {
	t.Helper()
	mixed := slices.ContainsFunc(counts, func(c Counts) bool { return c.Degraded+c.Excluded > 0 })
	var s *mcs.Service
	var v *View
	var labels []Label
	switch {
	case len(counts) <= 3:
		labels = []Label{Zone, Region}
		s, v = membersOf(counts)
	case len(counts) <= 5 && !mixed && r.threshold() == 0:
		labels = []Label{Node, Zone, Cluster, Region}
		s, v = endpointsOf(counts)
	default:
		return ""
	}
	client := topology.Locality{Region: "r0", Cluster: "c", Zone: "z0", Node: "n0"}
	p := compile(new(Plan), &Policy{Prefer: ByLabels, Labels: labels, Panic: r.threshold()}, s, outlineOf(s), v, client, labels, opf)
	difference := ""
	without := slices.Clone(counts)
	for i := range without {
		without[i].Excluded = 0
	}
	want := loads(scale, opf, r.threshold(), counts)
	if all := loads(scale, opf, r.threshold(), without); !slices.Equal(all, want) {
		want, difference = all, drainedStayOut
	}
	got := map[int]Load{}
	for i := range p.tiers {
		got[tierOf(p, i)] = p.tiers[i].load
	}
	for i, l := range want {
		if got[i].Healthy != l.Healthy || got[i].Degraded != l.Degraded {
			t.Errorf("The plan gives priority %d %+v, want %+v", i, got[i], l)
		}
	}
	if r.ExpectedCandidates != "" {
		n, _ := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(r.ExpectedCandidates))
		if answer := backendsFor(p, drawOf(1), IPv4); len(answer) != n {
			t.Errorf("The answer holds %v, want %s", answer, r.ExpectedCandidates)
		}
	}
	return difference
}

// tierOf finds the row's priority in the node name of any backend of a plan's tier.
func tierOf(p *Plan, tier int) int {
	for _, g := range []group{p.tiers[tier].any, p.tiers[tier].healthy} {
		for _, part := range g {
			n, _ := strconv.Atoi(p.service.Backends[part.backends[0]].Label()[1:2])
			return n
		}
	}
	return -1
}

func vectorPods(prefix string, tier, n int, zone, node string, ready bool) []mcs.Endpoint {
	all := pods(fmt.Sprintf("%s%d", prefix, tier), n, zone, node)
	for i := range all {
		all[i].Addr = addrOf(tier<<14 + int(prefix[0])<<7 + i)
		if !ready {
			all[i].Conditions = 0
		}
	}
	return all
}

// membersOf makes one member of each state per priority.
func membersOf(counts []Counts) (*mcs.Service, *View) {
	var all []member
	for tier, c := range counts {
		region, zone := "r0", "z0"
		if tier > 0 {
			zone = "z1"
		}
		if tier > 1 {
			region = "r1"
		}
		for _, group := range []struct {
			name  string
			n     int
			state health.State
		}{
			{"d", c.Degraded, health.Degraded}, {"h", c.Healthy, health.Healthy},
			{"u", c.Total - c.Healthy - c.Degraded, health.Unhealthy}, {"x", c.Excluded, health.Excluded},
		} {
			if group.n > 0 {
				id := topology.ClusterID(fmt.Sprintf("%s%d", group.name, tier))
				all = append(all, member{id: id, region: region, endpoints: vectorPods(group.name, tier, group.n, zone, "", true)}.is(group.state))
			}
		}
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(string(a.id), string(b.id)) })
	return merged(headless, all...)
}

// endpointsOf makes the first three priorities of one cluster, by node and zone, and one cluster for each of the others.
func endpointsOf(counts []Counts) (*mcs.Service, *View) {
	all := []member{{id: "c", region: "r0"}}
	for tier, c := range counts {
		zone, node := "z0", "n0"
		if tier > 0 {
			node = "n1"
		}
		if tier > 1 {
			zone = "z1"
		}
		endpoints := append(vectorPods("h", tier, c.Healthy, zone, node, true), vectorPods("u", tier, c.Total-c.Healthy, zone, node, false)...)
		switch {
		case tier < 3:
			all[0].endpoints = append(all[0].endpoints, endpoints...)
		case tier == 3:
			all = append(all, member{id: "d", region: "r0", endpoints: endpoints})
		default:
			all = append(all, member{id: "e", region: "r1", endpoints: endpoints})
		}
	}
	return merged(headless, all...)
}

// --- Envoy: locality weight -----------------------------------------------------------------------------------------

func localityWeightRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r struct {
		Overprovisioning float64   `json:"overprovisioning"`
		Weights          []int     `json:"weights"`
		Availability     []float64 `json:"availability_percent"`
		Expected         []float64 `json:"expected_share_percent"`
		Exact            struct {
			Value []*float64 `json:"value"`
		} `json:"exact_share_percent"`
		Tolerance float64 `json:"tolerance"`
	}
	parse(t, row, &r)
	var all []member
	usable := false
	for i, w := range r.Weights {
		ready := int(math.Round(r.Availability[i] * 100))
		usable = usable || w > 0 && ready > 0
		all = append(all, member{id: topology.ClusterID(fmt.Sprint("c", i)), ready: ready, total: 10000, weight: w, zero: w == 0})
	}
	s, v := merged(clusterSetIP, all...)
	p := compile(new(Plan), &Policy{}, s, outlineOf(s), v, topology.Locality{}, nil, int(math.Round(r.Overprovisioning*100)))
	got := percentages(p)
	if r.Expected == nil {
		// Nobody can be weighed. Envoy leaves localities out of it, and so do we: the drained ones that are ready answer, all
		// alike; if none is ready, all that are not drained do, by their weight.
		available := make([]int, len(r.Weights))
		for i, percent := range r.Availability {
			if percent > 0 {
				available[i] = 1
			}
		}
		want := equalOr(available)
		if !slices.Contains(available, 1) {
			want = equalOr(r.Weights)
		}
		for i, share := range want {
			if !near(got[i], share, 0.01) {
				t.Errorf("Shares are %.2f, want %.2f", got, want)
			}
		}
		return ""
	}
	if !usable {
		t.Fatalf("The row expects shares where nobody is available: %s", row)
	}
	for i := range r.Expected {
		if !near(got[i], r.Expected[i], r.Tolerance) {
			t.Errorf("Member %d has %.2f %%, want %.2f", i, got[i], r.Expected[i])
		}
		if len(r.Exact.Value) > i && r.Exact.Value[i] != nil && !near(got[i], *r.Exact.Value[i], 0.05) {
			t.Errorf("Member %d has %.3f %%, exactly %.3f", i, got[i], *r.Exact.Value[i])
		}
	}
	checkDraws(t, p, got)
	return ""
}

func equalOr(weights []int) []float64 {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	out := make([]float64, len(weights))
	for i, w := range weights {
		if sum == 0 {
			out[i] = 100 / float64(len(weights))
		} else {
			out[i] = 100 * float64(w) / float64(sum)
		}
	}
	return out
}

// percentages are the shares of the members in a plan of one tier, by the weights of the group that answers.
func percentages(p *Plan) []float64 {
	out := make([]float64, len(p.service.Members))
	g, _ := p.choose(drawOf(0), IPv4)
	sum := 0.0
	for _, part := range g {
		sum += part.weight
	}
	for _, part := range g {
		out[part.member] = 100 * part.weight / sum
	}
	return out
}

// checkDraws asks 10,000 times and holds the members' shares against six standard deviations: the rows may come from
// anywhere, so the keys are not chosen for them.
func checkDraws(t *testing.T, p *Plan, percent []float64) {
	t.Helper()
	got := shares(p, 10000, IPv4)
	for i, m := range p.service.Members {
		within(t, string(m.Cluster), got[m.Cluster], 10000, percent[i]/100, 6)
	}
}

// --- Istio: priorities ----------------------------------------------------------------------------------------------

type istioVector struct {
	Kind             string              `json:"kind"`
	ProxyLocality    string              `json:"proxy_locality"`
	Enabled          *bool               `json:"enabled"`
	Failover         [][2]string         `json:"failover"`
	Localities       []*string           `json:"endpoint_localities"`
	ExpectedPriority []int               `json:"expected_priority"`
	FailoverPriority []string            `json:"failover_priority"`
	ProxyLabels      map[string]string   `json:"proxy_labels"`
	Endpoints        []map[string]string `json:"endpoints"`
	Locality         string              `json:"locality"`
	Rule             string              `json:"rule"`
	ExpectedMatch    bool                `json:"expected_match"`
	Distribution     string              `json:"trafficDistribution"`
	Expected         []string            `json:"expected_failover_priority"`
	ForceFailover    bool                `json:"expected_force_failover"`
}

func istioRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r istioVector
	parse(t, row, &r)
	switch r.Kind {
	case "locality_failover":
		return r.failover(t, []Label{Node, Zone, Region})
	case "zone_aware_region_buckets":
		return r.failover(t, []Label{Region})
	case "failover_priority_labels":
		return r.byLabels(t)
	case "distribute":
		return r.distribute(t)
	case "locality_match":
		r.match(t)
		return ""
	case "traffic_distribution_to_failover_priority":
		return r.distribution(t)
	default:
		t.Errorf("No such kind of row: %q", r.Kind)
		return ""
	}
}

// istioLocality reads region/zone/subzone. Everything is in one cluster, so that nodes stand for subzones.
func istioLocality(s *string) topology.Locality {
	if s == nil {
		return topology.Locality{Cluster: "c", Region: "nowhere"}
	}
	parts := append(strings.Split(*s, "/"), "", "")
	return topology.Locality{Cluster: "c", Region: parts[0], Zone: parts[1], Node: parts[2]}
}

// priorities are the distances of places without gaps.
func priorities(labels []Label, client topology.Locality, places []topology.Locality) []int {
	var out []int
	for _, at := range places {
		out = append(out, distance(labels, client, at))
	}
	return compact(out)
}

// compact closes the gaps between numbers.
func compact(distances []int) []int {
	seen := slices.Clone(distances)
	slices.Sort(seen)
	seen = slices.Compact(seen)
	out := make([]int, len(distances))
	for i, d := range distances {
		out[i] = slices.Index(seen, d)
	}
	return out
}

func (r *istioVector) failover(t *testing.T, labels []Label) string {
	t.Helper()
	if r.Enabled != nil && !*r.Enabled {
		labels = nil
	}
	client := istioLocality(&r.ProxyLocality)
	places := make([]topology.Locality, len(r.Localities))
	want := slices.Clone(r.ExpectedPriority)
	others := math.MaxInt
	for i, l := range r.Localities {
		places[i] = istioLocality(l)
		if labels != nil && places[i].Region != client.Region {
			others = min(others, want[i])
		}
	}
	// Without failover rules, all other regions are as near as the nearest of them.
	for i := range want {
		if labels != nil && places[i].Region != client.Region {
			want[i] = others
		}
	}
	want = compact(want)
	if got := priorities(labels, client, places); !slices.Equal(got, want) {
		t.Errorf("Priorities are %v, want %v", got, want)
	}
	checkTiers(t, labels, client, places, want)
	if !slices.Equal(want, r.ExpectedPriority) {
		if !slices.ContainsFunc(r.Failover, func(f [2]string) bool { return f[0] == client.Region }) {
			t.Errorf("Priorities are %v, the row says %v, and no failover rule explains it", want, r.ExpectedPriority)
		}
		return noFailoverRules
	}
	return ""
}

// checkTiers makes a headless service of the places and looks for each in its tier of a plan.
func checkTiers(t *testing.T, labels []Label, client topology.Locality, places []topology.Locality, want []int) {
	t.Helper()
	var all []member
	for i, at := range places {
		// Nodes are compared inside a cluster, so endpoints that share one must stay in it: one member per region.
		id := at.Cluster
		if at.Region != client.Region || at.Cluster != client.Cluster {
			id = topology.ClusterID(fmt.Sprintf("%s.%s", at.Cluster, strings.ToLower(at.Region)))
		}
		e := pod(fmt.Sprint("p", i), addrOf(i).String(), at.Zone, at.Node)
		if known := slices.IndexFunc(all, func(m member) bool { return m.id == id }); known >= 0 {
			all[known].endpoints = append(all[known].endpoints, e)
		} else {
			all = append(all, member{id: id, region: at.Region, endpoints: []mcs.Endpoint{e}})
		}
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(string(a.id), string(b.id)) })
	s, v := merged(headless, all...)
	p := (&Policy{Prefer: ByLabels, Labels: labels}).Plan(s, v, client)
	for tier := range p.tiers {
		for _, b := range p.tiers[tier].healthy[0].backends {
			i, _ := strconv.Atoi(s.Backends[b].Label()[1:])
			if !slices.Contains(labels, Cluster) && want[i] != tier {
				t.Errorf("Endpoint %d is in tier %d of the plan, want %d", i, tier, want[i])
			}
		}
	}
	if p.tiers[0].load.Healthy != scale {
		t.Errorf("The nearest tier has load %+v", p.tiers[0].load)
	}
}

// byLabels puts the values of the row's labels, whatever they are called, into the parts of a locality, in their order:
// what counts is how many of the first are equal.
func (r *istioVector) byLabels(t *testing.T) string {
	t.Helper()
	order := []Label{Region, Cluster, Zone, Node} // from broad to narrow
	names := r.FailoverPriority
	difference := ""
	if len(names) > len(order) {
		names, difference = names[:len(order)], fourLabels
	}
	place := func(values map[string]string, client bool, unique string) topology.Locality {
		parts := [4]string{}
		for i, name := range names {
			key, override, overridden := strings.Cut(name, "=")
			value, known := values[key]
			switch {
			case client && overridden:
				value = override
			case !known:
				value = unique // an unknown label matches nothing
			}
			parts[i] = value
		}
		return topology.Locality{Region: parts[0], Cluster: topology.ClusterID(parts[1]), Zone: parts[2], Node: parts[3]}
	}
	labels := slices.Clone(order[:len(names)])
	slices.Reverse(labels)
	client := place(r.ProxyLabels, true, "unknown")
	var places []topology.Locality
	var plain []int // by our rule, counted here once more
	for i, e := range r.Endpoints {
		at := place(e, false, fmt.Sprint("unknown", i))
		places = append(places, at)
		a := [4]string{client.Region, string(client.Cluster), client.Zone, client.Node}
		b := [4]string{at.Region, string(at.Cluster), at.Zone, at.Node}
		n := 0
		for n < len(names) && a[n] == b[n] {
			n++
		}
		plain = append(plain, len(names)-n)
	}
	plain = compact(plain)
	if got := priorities(labels, client, places); !slices.Equal(got, plain) {
		t.Errorf("Priorities are %v, want %v", got, plain)
	}
	checkTiers(t, labels, client, places, plain)
	if slices.Equal(plain, r.ExpectedPriority) {
		return difference
	}
	if difference == "" && strings.HasPrefix(names[0], "topology.istio.io/network") {
		difference = networkStops
	}
	for _, name := range names {
		key, _, overridden := strings.Cut(name, "=")
		if _, known := r.ProxyLabels[key]; !known && !overridden && difference == "" {
			difference = unknownIsDifferent
		}
	}
	if difference == "" {
		t.Errorf("Priorities are %v, want %v", plain, r.ExpectedPriority)
	}
	return difference
}

// distribute: what is nearest answers, alone.
func (r *istioVector) distribute(t *testing.T) string {
	t.Helper()
	labels := []Label{Node, Zone, Region}
	client := istioLocality(&r.ProxyLocality)
	var places []topology.Locality
	var all []member
	want := []string{}
	for i, l := range r.Localities {
		places = append(places, istioLocality(l))
		e := pod(fmt.Sprint("p", i), addrOf(i).String(), places[i].Zone, places[i].Node)
		all = append(all, member{id: topology.ClusterID(fmt.Sprint("c", i)), region: places[i].Region, endpoints: []mcs.Endpoint{e}})
	}
	nearest := slices.Min(priorities([]Label{Zone, Region}, client, places))
	for i, at := range places {
		// Each endpoint is a cluster of its own here, so nodes say nothing.
		if priorities([]Label{Zone, Region}, client, places)[i] == nearest && distance([]Label{Zone, Region}, client, at) == 0 {
			want = append(want, fmt.Sprint("p", i))
		}
	}
	s, v := merged(headless, all...)
	p := (&Policy{Prefer: ByLabels, Labels: labels[1:]}).Plan(s, v, client)
	if got := backendsFor(p, drawOf(1), IPv4); !slices.Equal(got, want) {
		t.Errorf("Endpoints %v answer, want %v", got, want)
	}
	return noDistribute
}

// match: a rule is a place, compared as far as it names one.
func (r *istioVector) match(t *testing.T) {
	t.Helper()
	var labels []Label
	for i, part := range strings.Split(r.Rule, "/") {
		if part != "*" && part != "" && i < 3 {
			labels = slices.Insert(labels, 0, []Label{Region, Zone, Node}[i])
		}
	}
	rule := istioLocality(&r.Rule)
	if got := distance(labels, rule, istioLocality(&r.Locality)) == 0; got != r.ExpectedMatch {
		t.Errorf("%s matches %s: %v, want %v", r.Locality, r.Rule, got, r.ExpectedMatch)
	}
}

func (r *istioVector) distribution(t *testing.T) string {
	t.Helper()
	want := map[string][]Label{"PreferSameZone": {Zone}, "PreferClose": {Zone}, "PreferSameNode": {Node, Zone}}[r.Distribution]
	s := &mcs.Service{Traits: &headless}
	s.TrafficDistribution = r.Distribution
	labels, overprovision := (&Policy{Prefer: ByService}).labelsFor(s)
	if !slices.Equal(labels, want) {
		t.Errorf("%s means the labels %v, want %v", r.Distribution, labels, want)
	}
	if all := overprovision == allOrNothing; all != r.ForceFailover {
		t.Errorf("All or nothing is %v, want %v", all, r.ForceFailover)
	}
	return ownLabels
}

// --- kube-proxy -----------------------------------------------------------------------------------------------------

func kubeProxyRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r struct {
		Name, Node, Zone string
		InternalLocal    bool `json:"internal_policy_local"`
		Gate             bool `json:"prefer_same_gate"`
		Endpoints        []struct {
			Endpoint                    string
			Ready, Serving, Terminating bool
			ZoneHints                   []string `json:"zone_hints"`
			NodeHints                   []string `json:"node_hints"`
		}
		ExpectedCluster []string `json:"expected_cluster"`
	}
	parse(t, row, &r)
	traits := headless
	c := member{id: "c", region: "r"}
	ready, unhinted, several, terminating := 0, 0, false, false
	byNode := false
	for _, e := range r.Endpoints {
		byNode = byNode || r.Gate && len(e.NodeHints) > 0
	}
	for _, e := range r.Endpoints {
		host, _, _ := strings.Cut(e.Endpoint, ":")
		p := pod(strings.ReplaceAll(host, ".", "-"), host, "", "")
		p.Conditions = 0
		if e.Ready {
			p.Conditions |= mcs.Ready
			ready++
			if byNode && len(e.NodeHints) == 0 || !byNode && len(e.ZoneHints) == 0 {
				unhinted++
			}
			several = several || len(e.ZoneHints) > 1
		}
		if e.Serving {
			p.Conditions |= mcs.Serving
		}
		if e.Terminating {
			p.Conditions |= mcs.Terminating
			terminating = terminating || e.Serving && !e.Ready
		}
		if len(e.ZoneHints) > 0 {
			p.Zone, traits.TrafficDistribution = e.ZoneHints[0], cmp.Or(traits.TrafficDistribution, "PreferSameZone")
		}
		if r.Gate && len(e.NodeHints) > 0 {
			p.Node, traits.TrafficDistribution = e.NodeHints[0], "PreferSameNode"
		}
		c.endpoints = append(c.endpoints, p)
	}
	s, v := merged(traits, c)
	client := topology.Locality{Cluster: "c", Region: "r", Zone: r.Zone, Node: r.Node}
	got := backendsFor((&Policy{Prefer: ByService}).Plan(s, v, client), drawOf(1), IPv4)

	// Our rule, counted once more: of the ready ones those at the node, else those in the zone, else all.
	var ours, atNode, inZone []string
	for _, e := range c.endpoints {
		if e.Conditions&mcs.Ready == 0 {
			continue
		}
		ours = append(ours, e.Label)
		if e.Zone != "" && e.Zone == r.Zone {
			inZone = append(inZone, e.Label)
		}
		if e.Node != "" && e.Node == r.Node && (e.Zone == r.Zone || e.Zone == "" || r.Zone == "") {
			atNode = append(atNode, e.Label)
		}
	}
	if len(inZone) > 0 {
		ours = inZone
	}
	if len(atNode) > 0 && byNode {
		ours = atNode
	}
	slices.Sort(ours)
	if !slices.Equal(got, ours) {
		t.Errorf("%v answer, want %v", got, ours)
	}

	var want []string
	for _, e := range r.ExpectedCluster {
		host, _, _ := strings.Cut(e, ":")
		want = append(want, strings.ReplaceAll(host, ".", "-"))
	}
	slices.Sort(want)
	switch {
	case r.ExpectedCluster == nil && r.InternalLocal:
		return noLocalPolicy
	case slices.Equal(got, want):
		return ""
	case ready == 0 && terminating:
		return noTerminating
	case unhinted > 0 && unhinted < ready:
		return unhintedDoNotSwitch
	case several:
		return oneZone
	default:
		t.Errorf("%v answer, want %v", got, want)
		return ""
	}
}

// --- gdnsd, slow start, and what becomes of weights -----------------------------------------------------------------

// weighted makes a plan of members with written weights and one ready endpoint each.
func weighted(answer Answer, weights ...int) *Plan {
	var all []member
	for i, w := range weights {
		all = append(all, plain(topology.ClusterID(fmt.Sprint("c", i)), "", 1).with(func(m *member) { m.weight, m.zero = w, w == 0 }))
	}
	s, v := merged(clusterSetIP, all...)
	return (&Policy{Answer: answer}).Plan(s, v, topology.Locality{})
}

func gdnsdRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r struct {
		Mode     string    `json:"mode"`
		Weights  []int     `json:"weights"`
		Expected []float64 `json:"expected_probability_percent"`
	}
	parse(t, row, &r)
	p := weighted(One, r.Weights...)
	got := percentages(p)
	want, tolerance, difference := r.Expected, 0.5, ""
	if r.Mode != "single" {
		want, tolerance, difference = equalOr(r.Weights), 0.01, oneMember
	}
	if len(want) != len(got) {
		t.Fatalf("Shares are %v, want %v", got, want)
	}
	for i := range want {
		if !near(got[i], want[i], tolerance) {
			t.Errorf("Member %d has %.2f %%, want %.2f", i, got[i], want[i])
		}
	}
	checkDraws(t, p, got)
	return difference
}

func slowStartRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r struct {
		Window     float64  `json:"window_s"`
		Seconds    float64  `json:"seconds_in"`
		Aggression *float64 `json:"aggression"`
		Minimum    *float64 `json:"min_weight_percent"`
		Expected   float64  `json:"expected_factor"`
	}
	parse(t, row, &r)
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	got := health.SlowStart(seconds(r.Window), seconds(r.Seconds))
	if r.Aggression != nil && *r.Aggression != 1 || r.Minimum != nil && *r.Minimum != 10 {
		if want := min(1, max(0.1, r.Seconds/r.Window)); !near(got, want, 1e-6) {
			t.Errorf("The factor is %v, want %v", got, want)
		}
		return linearSlowStart
	}
	if !near(got, r.Expected, 0.005) {
		t.Errorf("The factor is %v, want %v", got, r.Expected)
	}
	// A member that has been back for so long beside one that never went away.
	s, v := merged(clusterSetIP, plain("new", "", 4).with(func(m *member) { m.status.Factor = got }), plain("old", "", 4))
	p := (&Policy{}).Plan(s, v, topology.Locality{})
	if shares := percentages(p); !near(shares[0]/shares[1], r.Expected, 0.005) {
		t.Errorf("Shares are %v, a ratio of %.3f, want %.3f", shares, shares[0]/shares[1], r.Expected)
	}
	checkDraws(t, p, percentages(p))
	return ""
}

func realisationRow(t *testing.T, row json.RawMessage) string {
	t.Helper()
	var r struct {
		Weights  []int     `json:"weights"`
		Answer   string    `json:"answer"`
		Expected []float64 `json:"expected_share_percent"`
		Moved    *float64  `json:"moved_percent_when_first_weight_halves"`
		Minimum  *float64  `json:"minimum_possible_percent"`
	}
	parse(t, row, &r)
	compare := func(got, want []float64, tolerance float64) {
		t.Helper()
		for i := range want {
			if !near(got[i], want[i], tolerance) {
				t.Errorf("Shares are %.2f, want %.2f within %.2f", got, want, tolerance)
				return
			}
		}
	}
	one, all := weighted(One, r.Weights...), weighted(All, r.Weights...)
	switch {
	case strings.HasPrefix(r.Answer, "one cluster"), strings.HasPrefix(r.Answer, "weighted rendezvous"):
		compare(percentages(one), r.Expected, 0.5)
		checkDraws(t, one, percentages(one))
		if r.Moved != nil {
			double := slices.Clone(r.Weights)
			for i := 1; i < len(double); i++ {
				double[i] *= 2
			}
			moved, between := movements(one, weighted(One, double...), 100000)
			if !near(moved, *r.Moved, 0.5) || between != 0 {
				t.Errorf("%.2f %% moved, want %.2f, and %d between others", moved, *r.Moved, between)
			}
		}
		return ""
	case strings.HasPrefix(r.Answer, "all "):
		compare(fromAnswers(all, len(r.Weights)), r.Expected, 0.5)
		return ""
	case strings.HasPrefix(r.Answer, "two "):
		compare(firstOfOrder(one, 2), r.Expected, 0.5) // what two would give, from our order
	case !strings.HasPrefix(r.Answer, "gdnsd multi"):
		t.Errorf("No such answer: %q", r.Answer)
	}
	compare(percentages(one), equalOr(r.Weights), 0.01)
	checkDraws(t, one, percentages(one))
	return oneMember
}

// movements asks as n clients before and after: how many percent are given another member, and how many of them one that
// is not the first although they did not have the first.
func movements(before, after *Plan, n int) (percent float64, between int) {
	moved := 0
	for i := range n {
		_, a := before.Addresses(nil, drawOf(i), IPv4)
		_, b := after.Addresses(nil, drawOf(i), IPv4)
		if a.Member != b.Member {
			moved++
			if a.Member != "c0" {
				between++
			}
		}
	}
	return 100 * float64(moved) / float64(n), between
}

// fromAnswers are the members' shares when a client takes any address of its answer.
func fromAnswers(p *Plan, members int) []float64 {
	out := make([]float64, members)
	const n = 1000
	for i := range n {
		addrs, _ := p.Addresses(nil, drawOf(i), IPv4)
		for _, a := range addrs {
			out[a.As4()[3]] += 100.0 / float64(len(addrs)) / n
		}
	}
	return out
}

// firstOfOrder are the members' shares when a client takes any of the first k in draw order.
func firstOfOrder(p *Plan, k int) []float64 {
	g, _ := p.choose(drawOf(0), IPv4)
	out := make([]float64, len(g))
	const n = 100000
	for i := range n {
		d := drawOf(i)
		order := make([]int, len(g))
		for j := range order {
			order[j] = j
		}
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Compare(d.score(g[a].identity, g[a].weight), d.score(g[b].identity, g[b].weight))
		})
		for _, j := range order[:min(k, len(order))] {
			out[g[j].member] += 100.0 / float64(k) / n
		}
	}
	return out
}
