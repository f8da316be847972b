package mcs

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Scope is what one view of the ClusterSet is made of.
type Scope struct {
	Members []Member
	// Local is the cluster this view belongs to: only its namespaces exist (KEP-1645, "Importing Services"). "" belongs
	// to none: a namespace then exists if any exporter has it.
	Local topology.ClusterID
	// Imports is true when ServiceImports are read too.
	Imports bool
	// Dynamic is true when members come and go: then it is not known who they are until that source has synced.
	Dynamic bool
}

// Index holds the current facts of all members and turns them into Snapshots. It has one owner; only the Snapshots it
// returns may be shared.
type Index struct {
	scope    Scope
	members  map[topology.ClusterID]*Member
	facts    map[string]map[string]*entry // by namespace, then name
	dirty    map[ServiceKey]struct{}
	unsynced []Source
	restored []Source // of those unsynced
	around   around
	// balanced are the services that each load balancer name is needed for, with the number of members that need it.
	balanced map[string]map[ServiceKey]int
	hosts    []string // its keys, sorted
	// claims are the services of each remote cluster IP that would be answered, with the number of members that have it.
	claims  map[netip.Addr]claimants
	next    Snapshot
	changed bool
	// merged and reported are what the next snapshot has more or less than the one before, while it is made.
	merged   []tableChange[ServiceKey, *Service]
	reported []tableChange[ServiceKey, *reported]
}

// entry is what all sources say about one service.
type entry struct {
	exports []exported // sorted by cluster id
	imp     *ImportShard
	report  *Report     // nil when there is nothing to say, which is so of most
	only    [1]exported // room for exports, which are mostly one
}

// Source names something that must have synced before an absent name is known to be absent.
type Source struct {
	Kind SourceKind
	// Cluster is the member; "" for ServiceImports.
	Cluster topology.ClusterID
}

// SourceKind is what a source tells.
type SourceKind uint8

// The kinds of sources.
const (
	Exports SourceKind = iota
	Namespaces
	Imports
	// Nodes tell where clients are, Properties what a cluster says about itself as a whole, ServiceRanges which addresses
	// its services get. No name depends on them, so no Index waits for them.
	Nodes
	Properties
	ServiceRanges
	// Members tell which clusters are members, where they come and go.
	Members
)

// String returns a short name for logs.
func (k SourceKind) String() string {
	switch k {
	case Namespaces:
		return "namespaces"
	case Imports:
		return "imports"
	case Properties:
		return "properties"
	case Nodes:
		return "nodes"
	case ServiceRanges:
		return "serviceranges"
	case Members:
		return "members"
	default:
		return "exports"
	}
}

// NewIndex returns an index without facts, in which every source of the scope has yet to sync.
func NewIndex(scope Scope) *Index {
	x := &Index{scope: scope, members: map[topology.ClusterID]*Member{}, facts: map[string]map[string]*entry{}, dirty: map[ServiceKey]struct{}{}, changed: true,
		around:   around{local: scope.Local, hosts: map[string][]netip.Addr{}, taken: map[netip.Addr]struct{}{}, traits: sharedTraits{}},
		balanced: map[string]map[ServiceKey]int{}, claims: map[netip.Addr]claimants{}}
	for _, m := range scope.Members {
		x.AddMember(m, false)
	}
	if scope.Dynamic {
		x.unsynced = append(x.unsynced, Source{Kind: Members})
	}
	if scope.Local != "" {
		x.unsynced = append(x.unsynced, Source{Namespaces, scope.Local})
	}
	if scope.Imports {
		x.unsynced = append(x.unsynced, Source{Kind: Imports})
	}
	return x
}

// Apply replaces what a member says about a service; nil means that it says nothing any more. A cluster that is not of
// the scope is ignored. It does not publish.
func (x *Index) Apply(id topology.ClusterID, key ServiceKey, shard *Shard) {
	m := x.members[id]
	if m == nil {
		return
	}
	e := x.entry(key, shard != nil)
	if e == nil {
		return
	}
	at, there := slices.BinarySearchFunc(e.exports, id, func(e exported, id topology.ClusterID) int { return cmp.Compare(e.member.ID, id) })
	if there && shard.Equal(e.exports[at].shard) || !there && shard == nil {
		return
	}
	if there {
		x.account(m, key, e.exports[at].shard, -1)
	}
	x.account(m, key, shard, 1)
	switch {
	case shard == nil:
		e.exports = slices.Delete(e.exports, at, at+1)
	case there:
		e.exports[at].shard = shard
	default:
		e.exports = slices.Insert(e.exports, at, exported{m, shard})
	}
	x.touch(key)
}

// ApplyImport replaces what the source of ServiceImports says about a service; nil means that there is none any more.
func (x *Index) ApplyImport(key ServiceKey, shard *ImportShard) {
	e := x.entry(key, shard != nil)
	if e == nil || e.imp.Equal(shard) {
		return
	}
	e.imp = shard
	x.touch(key)
}

// ApplyNamespace says whether a namespace exists in the local cluster. Without a local cluster it means nothing.
func (x *Index) ApplyNamespace(name string, exists bool) {
	if x.scope.Local != "" {
		x.setNamespace(name, exists)
	}
}

func (x *Index) setNamespace(name string, exists bool) {
	if _, known := x.next.namespaces.get(name); known == exists {
		return
	}
	if exists {
		x.next.namespaces = x.next.namespaces.with(putInTable(namespace(name)))
	} else {
		x.next.namespaces = x.next.namespaces.with(takeFromTable[namespace](name))
	}
	x.changed = true
	x.touchNamespace(name)
}

// ApplyServiceRanges says which addresses the local cluster gives to its own services. A remote cluster IP among them
// would lead to another service, so it is not answered.
func (x *Index) ApplyServiceRanges(ranges []netip.Prefix) {
	if slices.Equal(x.around.ranges, ranges) {
		return
	}
	x.around.ranges = ranges
	for name := range x.facts {
		x.touchNamespace(name)
	}
}

// ApplyServiceAddresses says which cluster IPs Services of the local cluster have got, and which they have given back. A
// remote cluster IP among them is not answered either: before Kubernetes 1.33 nothing else tells.
func (x *Index) ApplyServiceAddresses(taken, free []netip.Addr) {
	for _, a := range free {
		delete(x.around.taken, a)
		x.touchClaims(a)
	}
	for _, a := range taken {
		x.around.taken[a] = struct{}{}
		x.touchClaims(a)
	}
}

func (x *Index) touchClaims(a netip.Addr) {
	c := x.claims[a]
	if c.n > 0 {
		x.touch(c.one)
	}
	for key := range c.others {
		x.touch(key)
	}
}

// ApplyHost says which addresses the host name of a load balancer has.
func (x *Index) ApplyHost(host string, addrs []netip.Addr) {
	if slices.Equal(x.around.hosts[host], addrs) {
		return
	}
	if len(addrs) == 0 {
		delete(x.around.hosts, host)
	} else {
		x.around.hosts[host] = addrs
	}
	for key := range x.balanced[host] {
		x.dirty[key] = struct{}{}
	}
}

// Hosts returns the names of the load balancers whose addresses answers need, sorted. The caller must not change it.
func (x *Index) Hosts() []string { return x.hosts }

// account keeps what tells which services something concerns that no member says.
func (x *Index) account(m *Member, key ServiceKey, shard *Shard, sign int) {
	x.balance(m, key, shard, sign)
	x.claim(m, key, shard, sign)
}

// claim keeps account of which services have which remote cluster IPs.
func (x *Index) claim(m *Member, key ServiceKey, shard *Shard, sign int) {
	if m.Address != AddressClusterIP || m.ID == x.scope.Local || x.scope.Local == "" || shard == nil || shard.Service == nil {
		return
	}
	for _, a := range shard.Service.ClusterIPs {
		if !a.IsValid() {
			continue
		}
		if c := x.claims[a].with(key, sign); c.n > 0 {
			x.claims[a] = c
		} else {
			delete(x.claims, a)
		}
	}
}

// claimants are the services that have a remote cluster IP, with the number of members that have it. It is mostly one, and there are
// many: others have a map only where they are.
type claimants struct {
	one    ServiceKey
	n      int
	others map[ServiceKey]int
}

// with counts a service in or, with sign -1, out.
func (c claimants) with(key ServiceKey, sign int) claimants {
	if c.n == 0 || c.one == key {
		c.one = key
		c.n += sign
	} else {
		if c.others == nil {
			c.others = map[ServiceKey]int{}
		}
		if c.others[key] += sign; c.others[key] == 0 {
			delete(c.others, key)
		}
	}
	if c.n > 0 {
		return c
	}
	for other, n := range c.others {
		c.one, c.n = other, n
		delete(c.others, other)
		break
	}
	return c
}

// balance keeps account of who needs which load balancer names.
func (x *Index) balance(m *Member, key ServiceKey, shard *Shard, sign int) {
	if m.Address != AddressLoadBalancer || shard == nil || shard.Service == nil || shard.Service.LoadBalancer == nil {
		return
	}
	for _, host := range shard.Service.LoadBalancer.Hosts {
		users := x.balanced[host]
		if users == nil {
			users = map[ServiceKey]int{}
			x.balanced[host] = users
		}
		if users[key] += sign; users[key] == 0 {
			delete(users, key)
		}
		if len(users) == 0 {
			delete(x.balanced, host)
		}
		if _, known := slices.BinarySearch(x.hosts, host); known != (len(users) > 0) {
			x.hosts = slices.Sorted(maps.Keys(x.balanced))
		}
	}
}

// SetSynced says that a source has told all that it knows at least once. It cannot be taken back.
func (x *Index) SetSynced(s Source) {
	at := slices.Index(x.unsynced, s)
	if at < 0 {
		return
	}
	// Published snapshots share the old array.
	x.unsynced = slices.Delete(slices.Clone(x.unsynced), at, at+1)
	x.restored = slices.DeleteFunc(slices.Clone(x.restored), func(r Source) bool { return r == s })
	x.changed = true
	x.knowNamespaces(s)
}

// SetRestored says that all has been told which was known of a source before it was contacted. Names that are not known
// may still exist there.
func (x *Index) SetRestored(s Source) {
	if !slices.Contains(x.unsynced, s) || slices.Contains(x.restored, s) {
		return
	}
	x.restored = append(slices.Clone(x.restored), s)
	x.changed = true
	x.knowNamespaces(s)
}

// knowNamespaces looks anew at every service once it is known which namespaces there are.
func (x *Index) knowNamespaces(s Source) {
	if s.Kind != Namespaces {
		return
	}
	for name := range x.facts {
		x.touchNamespace(name)
	}
}

// Change is a service whose merge has something new to report.
type Change struct {
	Key      ServiceKey
	Old, New Report
	// Exporters are the clusters that export the service now.
	Exporters []topology.ClusterID
}

// smallBatch is how many changed services may stand in the map of them that is used again. A map never shrinks, and going
// through it takes time in proportion to the most that it ever held: the first list of a large cluster.
const smallBatch = 64

// Publish merges what changed since the last call and returns the new Snapshot, or nil when nothing changed. serial is
// the SOA serial of the new Snapshot. Work and memory are proportional to what changed.
func (x *Index) Publish(serial uint32) (*Snapshot, []Change) {
	if len(x.dirty) == 0 && !x.changed {
		return nil, nil
	}
	var changes []Change
	x.merged = slices.Grow(x.merged, len(x.dirty))
	for key := range x.dirty {
		if c, news := x.merge(key); news {
			changes = append(changes, c)
		}
	}
	x.next.services, x.next.reports = x.next.services.with(x.merged...), x.next.reports.with(x.reported...)
	if len(x.dirty) > smallBatch {
		x.dirty, x.merged, x.reported = map[ServiceKey]struct{}{}, nil, nil
	}
	clear(x.dirty)
	x.merged, x.reported = emptied(x.merged), emptied(x.reported)
	x.changed = false
	x.next.generation++
	x.next.serial = serial
	x.next.unsynced, x.next.restored = x.unsynced, x.restored
	x.next.anyNamespace = x.scope.Local == "" || slices.Contains(x.unsynced, Source{Namespaces, x.scope.Local})
	published := x.next
	return &published, changes
}

// emptied returns a list that can be used again, and keeps nothing alive.
func emptied[T any](list []T) []T {
	clear(list)
	return list[:0]
}

// merge brings one service of the next snapshot up to date.
func (x *Index) merge(key ServiceKey) (c Change, news bool) {
	e := x.facts[key.Namespace][key.Name]
	if e == nil {
		x.merged = append(x.merged, takeFromTable[*Service](key))
		return c, false
	}
	service, report := merge(key, e.exports, e.imp, x.around)
	if service != nil && x.exists(key.Namespace) {
		x.merged = append(x.merged, putInTable(service))
	} else {
		x.merged = append(x.merged, takeFromTable[*Service](key))
	}
	if old := e.said(); !report.equal(old) {
		c, news = Change{Key: key, Old: old, New: report}, true
		for _, exp := range e.exports {
			c.Exporters = append(c.Exporters, exp.member.ID)
		}
		if report.Clean() {
			e.report = nil
			x.reported = append(x.reported, takeFromTable[*reported](key))
		} else {
			said := &reported{key, report}
			e.report = &said.Report
			x.reported = append(x.reported, putInTable(said))
		}
	}
	if len(e.exports) == 0 && e.imp == nil {
		x.forget(key)
	}
	return c, news
}

// said is the last report.
func (e *entry) said() Report {
	if e.report == nil {
		return Report{}
	}
	return *e.report
}

// exists applies namespace sameness. While the local namespaces are not known, not even those of before the start, every
// one is taken to exist: a name that is known is answered.
func (x *Index) exists(namespace string) bool {
	local := Source{Namespaces, x.scope.Local}
	if x.scope.Local == "" || slices.Contains(x.unsynced, local) && !slices.Contains(x.restored, local) {
		return true
	}
	_, ok := x.next.namespaces.get(namespace)
	return ok
}

func (r Report) equal(o Report) bool {
	return r.Conflicts == o.Conflicts && slices.Equal(r.NoService, o.NoService) && slices.Equal(r.InvalidType, o.InvalidType) &&
		slices.Equal(r.Unusable, o.Unusable)
}

// entry returns the entry of a service, a new one if create is set.
func (x *Index) entry(key ServiceKey, create bool) *entry {
	names := x.facts[key.Namespace]
	e := names[key.Name]
	if e != nil || !create {
		return e
	}
	if names == nil {
		names = map[string]*entry{}
		x.facts[key.Namespace] = names
		x.countNamespace(key.Namespace, true)
	}
	e = &entry{}
	e.exports = e.only[:0]
	names[key.Name] = e
	return e
}

func (x *Index) forget(key ServiceKey) {
	names := x.facts[key.Namespace]
	delete(names, key.Name)
	if len(names) == 0 {
		delete(x.facts, key.Namespace)
		x.countNamespace(key.Namespace, false)
	}
}

// countNamespace lets the exporters' namespaces exist where no local cluster says which do.
func (x *Index) countNamespace(name string, exists bool) {
	if x.scope.Local == "" {
		x.setNamespace(name, exists)
	}
}

func (x *Index) touch(key ServiceKey) { x.dirty[key] = struct{}{} }

func (x *Index) touchNamespace(name string) {
	for service := range x.facts[name] {
		x.dirty[ServiceKey{name, service}] = struct{}{}
	}
}
