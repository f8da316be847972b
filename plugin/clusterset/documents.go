package clusterset

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/balance"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/health"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/status"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Release names the program in what it tells of itself. Whoever builds one sets it before the server starts.
var Release = "clusterset-dns"

// historian tells how the health of members came to be. The *clusterhealth* plugin is one.
type historian interface {
	History() health.History
}

// everyMember are those of the Corefile and those that have come since.
func (c *Clusterset) everyMember() []member {
	members := slices.Clone(c.members)
	if dynamic := c.world.dynamic.Load(); dynamic != nil {
		members = append(members, *dynamic...)
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// Members makes the document about the members. It takes no lock that a query or an update needs, nor does anything else here.
func (c *Clusterset) Members() status.Members {
	now, snapshot, view := time.Now(), c.world.snapshot.Load(), c.view.current(c)
	out := status.Members{Version: status.Version, Server: c.server(now, snapshot), Members: []status.Member{}, Refused: []status.Refused{}}
	listed := process.listed.Load()
	unusable, invalid := countLeftOut(snapshot)
	for _, m := range c.everyMember() {
		told := c.describeMember(&m, view, listed, now)
		told.Unusable, told.Invalid = unusable[m.ID], invalid[m.ID]
		out.Members = append(out.Members, told)
	}
	if c.imports != nil {
		out.Members = append(out.Members, c.describeImports(listed, now))
	}
	if c.dynamic != nil {
		for _, r := range listed.rosters {
			if r.spec.key() == c.rosterKey() {
				for _, one := range r.summary.Load().refused {
					out.Refused = append(out.Refused, status.Refused{Name: one.name, Reason: string(one.why), Detail: one.detail})
				}
			}
		}
	}
	return out
}

func (c *Clusterset) rosterKey() string {
	spec := *c.dynamic
	spec.state = c.state
	return spec.key()
}

func (c *Clusterset) server(now time.Time, snapshot *mcs.Snapshot) status.Server {
	out := status.Server{
		Program: Release, Zones: c.zones, Local: string(c.local), Generation: snapshot.Generation(), Serial: snapshot.Serial(),
		Time: now.UTC().Format(time.RFC3339), PolicyHash: fmt.Sprintf("%.0f", process.policyHash()), Services: snapshot.Len(),
		Prefer: prefers(c.policy), Answer: "one", PanicPercent: c.policy.Panic, MaxAnswers: c.policy.MaxAnswers, TTLSeconds: c.ttl, Shadow: c.shadow,
	}
	if c.policy.Answer == balance.All {
		out.Answer = "all"
	}
	return out
}

// prefers are the words of `prefer`.
func prefers(p *balance.Policy) []string {
	switch {
	case p.Prefer == balance.ByService:
		return []string{"service"}
	case p.Prefer == balance.ByLabels && len(p.Labels) == 0:
		return []string{"none"}
	case p.Prefer == balance.ByDefault:
		return []string{"cluster", "region"} // for services with an address; a headless one has no preference
	}
	var out []string
	for _, l := range p.Labels {
		out = append(out, labelWord(l))
	}
	return out
}

var addressWords = map[mcs.AddressKind]string{
	mcs.AddressClusterIP: "clusterip", mcs.AddressLoadBalancer: "loadbalancer", mcs.AddressEndpoints: "endpoints", mcs.AddressFixed: "fixed",
}

func (c *Clusterset) describeMember(m *member, view *balance.View, listed *listed, now time.Time) status.Member {
	out := status.Member{
		ID: string(m.ID), Origin: m.origin, Local: m.ID == c.local, Region: view.Regions[m.ID], Address: addressWords[m.Address],
		Gateway: stringsOf(m.Gateway), Weight: m.weight, Allow: stringsOf(m.Allow), Namespaces: m.Namespaces,
		Sources: c.sourcesOf(listed, m.ID, m.connection.Key, now), Health: c.healthOf(m.ID, view), Rejections: process.rejected.of(string(m.ID)),
	}
	if m.NoAddress {
		out.Address = "none"
	}
	if claimed := process.claims.known()[m.ID]; disagrees(m.ID, claimed) {
		out.ClaimedID = claimed
	}
	if condition := process.conditions.now.Load(); condition != nil && condition.drained[m.ID] {
		out.Drained = true
	}
	out.Drained = out.Drained || view.Health.Status(m.ID).Reason == health.ReasonDrained
	if w := listed.find(mcs.Exports, m.ID, m.connection.Key); w != nil {
		st := w.Status()
		out.Services, out.Endpoints = st.Services, st.Endpoints
	}
	return out
}

// describeImports describes the source of ServiceImports, which is no member but is watched as one.
func (c *Clusterset) describeImports(listed *listed, now time.Time) status.Member {
	out := status.Member{
		ID: "serviceimports", Origin: "corefile", Address: "none", Sources: c.sourcesOf(listed, "", c.imports.Key, now),
		Health: status.Health{State: health.Healthy.String(), Reason: "no member, but where ServiceImports are read", Factor: 1}, Rejections: process.rejected.of("serviceimports"),
	}
	if w := listed.find(mcs.Imports, "", c.imports.Key); w != nil {
		st := w.Status()
		out.Services, out.Endpoints = st.Services, st.Endpoints
	}
	return out
}

// find returns a source by what it tells, nil where there is none.
func (l *listed) find(kind mcs.SourceKind, id topology.ClusterID, connection string) *source {
	for key, w := range l.watchers {
		if key.kind == kind && key.cluster == id && key.connection == connection {
			return w
		}
	}
	return nil
}

// sourceKinds are in the order in which they are told: what names depend on comes first.
var sourceKinds = []mcs.SourceKind{mcs.Exports, mcs.Imports, mcs.Namespaces, mcs.ServiceRanges, mcs.Properties}

func (c *Clusterset) sourcesOf(listed *listed, id topology.ClusterID, connection string, now time.Time) []status.Source {
	out := []status.Source{}
	for _, kind := range sourceKinds {
		w := listed.find(kind, id, connection)
		if w == nil {
			continue
		}
		out = append(out, describeSource(kind, w.Status(), now))
	}
	if l, ok := c.locator.(noder); ok && id == c.local && id != "" {
		if st, watched := l.Nodes(); watched {
			out = append(out, describeSource(mcs.Nodes, st, now))
		}
	}
	return out
}

// noder tells how the watch of the local cluster's Nodes is. The *locality* plugin is one.
type noder interface {
	Nodes() (watch.Status, bool)
}

func describeSource(kind mcs.SourceKind, st watch.Status, now time.Time) status.Source {
	out := status.Source{Kind: kind.String(), State: st.State.String(), ProofAgeSeconds: ageOf(&st, now), Insecure: st.Insecure, Held: st.Held}
	if !st.CredentialExpiry.IsZero() {
		out.CredentialExpiry = st.CredentialExpiry.UTC().Format(time.RFC3339)
	}
	for resource, problem := range st.Problems {
		if out.Problems == nil {
			out.Problems = map[string]string{}
		}
		out.Problems[resource] = string(problem)
	}
	return out
}

func (c *Clusterset) healthOf(id topology.ClusterID, view *balance.View) status.Health {
	st := view.Health.Status(id)
	out := status.Health{State: st.State.String(), Reason: st.Reason, Probed: st.Probed, Factor: st.Weight()}
	var probes, told []health.Change
	if h, ok := c.healther.(historian); ok {
		probes = h.History()[id]
	}
	if condition := process.conditions.now.Load(); condition != nil {
		told = condition.history[id]
	}
	for _, change := range health.Join(probes, told) {
		if (change.Reason == reasonStale || change.Reason == reasonFresh) && (id == c.local || st.Probed) {
			continue // it made no difference
		}
		out.History = append(out.History, status.HealthChange{Time: change.At.UTC().Format(time.RFC3339), State: change.State.String(), Reason: change.Reason})
	}
	return out
}

// Services makes the document about all services.
func (c *Clusterset) Services() status.Services {
	snapshot, view := c.world.snapshot.Load(), c.view.current(c)
	all := make([]*mcs.Service, 0, snapshot.Len())
	snapshot.Services(func(s *mcs.Service) bool {
		all = append(all, s)
		return true
	})
	slices.SortFunc(all, func(a, b *mcs.Service) int {
		x, y := a.Key(), b.Key()
		return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
	})
	out := status.Services{Version: status.Version, Services: make([]status.ServiceSummary, 0, len(all))}
	for _, s := range all {
		out.Services = append(out.Services, c.summarize(s, snapshot, view))
	}
	out.Matrix = c.averageMatrix(all, view)
	return out
}

func (c *Clusterset) summarize(s *mcs.Service, snapshot *mcs.Snapshot, view *balance.View) status.ServiceSummary {
	report := snapshot.Report(s.Key().Namespace, s.Key().Name)
	out := status.ServiceSummary{
		Namespace: s.Key().Namespace, Name: s.Key().Name, Type: s.Type.String(), Imported: s.Import != nil, Members: []string{},
		Weights: c.policy.Weights(s, view), Conflicts: report.Conflicts.Reasons(), LeftOut: leftOutOf(report),
	}
	for i := range s.Members {
		m := &s.Members[i]
		out.Members = append(out.Members, string(m.Cluster))
		out.Ready, out.Total = out.Ready+int(m.Ready), out.Total+int(m.Total)
	}
	return out
}

// Service makes the document about one service; false when there is none of that name.
func (c *Clusterset) Service(namespace, name string) (status.Service, bool) {
	snapshot, view := c.world.snapshot.Load(), c.view.current(c)
	s := snapshot.Service(namespace, name)
	if s == nil {
		return status.Service{}, false
	}
	out := status.Service{
		Version: status.Version, ServiceSummary: c.summarize(s, snapshot, view), FQDN: name + "." + namespace + ".svc." + c.zones[0],
		Ports: []status.Port{}, ClientIPAffinity: s.ClientIPAffinity, TrafficDistribution: s.TrafficDistribution,
		Contributions: []status.Contribution{}, Matrix: c.matrix(s, view),
	}
	if s.Import != nil {
		for _, ip := range s.Import.IPs {
			if ip.IsValid() {
				out.IPs = append(out.IPs, ip.String())
			}
		}
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, status.Port{Name: p.Name, Protocol: p.Protocol.String(), Number: p.Number})
	}
	for i := range s.Members {
		m := &s.Members[i]
		part := status.Contribution{Member: string(m.Cluster), Addresses: stringsOf(m.Addrs), Ready: int(m.Ready), Total: int(m.Total), Weight: out.Weights[i]}
		if m.Exported > 0 {
			part.Exported = time.Unix(int64(m.Exported), 0).UTC().Format(time.RFC3339)
		}
		out.Contributions = append(out.Contributions, part)
	}
	for id, reason := range out.LeftOut {
		if out.Unusable == nil {
			out.Unusable = map[string]string{}
		}
		out.Unusable[id] = leftOutBecause(reason)
	}
	return out, true
}

// stringsOf writes values as text.
func stringsOf[T fmt.Stringer](all []T) (out []string) {
	for _, one := range all {
		out = append(out, one.String())
	}
	return out
}

// matrixZones is up to how many zones of the local cluster have a row of their own.
const matrixZones = 12

// clientPlaces are where clients can be: in each of the clusters, and, where that matters, in the zones of the local one.
func (c *Clusterset) clientPlaces(s *mcs.Service, view *balance.View) []topology.Locality {
	var out []topology.Locality
	for _, m := range c.everyMember() {
		at := topology.Locality{Cluster: m.ID, Region: view.Regions[m.ID]}
		zones := c.zonesOf(s, m.ID)
		if m.ID != c.local || len(zones) == 0 || len(zones) > matrixZones {
			out = append(out, at)
			continue
		}
		for _, zone := range zones {
			at.Zone = zone
			out = append(out, at)
		}
	}
	return out
}

// zonesOf returns the zones in which a cluster has endpoints of a service, none where they make no difference.
func (c *Clusterset) zonesOf(s *mcs.Service, id topology.ClusterID) []string {
	if s.Type != mcs.Headless || !c.policy.LooksAt(s, balance.Zone) {
		return nil
	}
	zones := map[string]bool{}
	for i := range s.Backends {
		if _, zone := s.Backends[i].Place(); zone != "" && s.ClusterOf(&s.Backends[i]) == id {
			zones[zone] = true
		}
	}
	return slices.Sorted(maps.Keys(zones))
}

// matrix says what share of the clients at each place each member gets. A ServiceImport's addresses are of no member.
func (c *Clusterset) matrix(s *mcs.Service, view *balance.View) []status.MatrixRow {
	out := []status.MatrixRow{}
	if len(s.Members) == 0 {
		return out
	}
	for _, at := range c.clientPlaces(s, view) {
		row := status.MatrixRow{Region: at.Region, Cluster: string(at.Cluster), Zone: at.Zone, Shares: map[string]float64{}}
		for id, share := range c.policy.Shares(s, view, at) {
			row.Shares[string(id)] = share
		}
		out = append(out, row)
	}
	return out
}

// matrixPlans is how many plans an average is made of, one for each service and cluster of clients. Of more services than that
// allows, as many are taken as do, evenly spread.
const matrixPlans = 3000

// averageMatrix is the average of the matrices of the services, by cluster.
func (c *Clusterset) averageMatrix(all []*mcs.Service, view *balance.View) []status.MatrixRow {
	sums, counted := map[topology.ClusterID]map[string]float64{}, map[topology.ClusterID]int{}
	members := c.everyMember()
	step := max(1, len(all)*len(members)/matrixPlans)
	for i := 0; i < len(all); i += step {
		for _, m := range members {
			shares := c.policy.Shares(all[i], view, topology.Locality{Cluster: m.ID, Region: view.Regions[m.ID]})
			if len(shares) == 0 {
				continue
			}
			if sums[m.ID] == nil {
				sums[m.ID] = map[string]float64{}
			}
			for id, share := range shares {
				sums[m.ID][string(id)] += share
			}
			counted[m.ID]++
		}
	}
	var out []status.MatrixRow
	for _, m := range members {
		row := status.MatrixRow{Region: view.Regions[m.ID], Cluster: string(m.ID), Shares: sums[m.ID]}
		if counted[m.ID] == 0 {
			continue
		}
		for id := range row.Shares {
			row.Shares[id] /= float64(counted[m.ID])
		}
		out = append(out, row)
	}
	return out
}
