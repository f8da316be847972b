package mcs

// Snapshot is one consistent view of the ClusterSet. It never changes, so any number of queries may read it while newer
// ones are made. The zero value is empty.
type Snapshot struct {
	generation   uint64
	serial       uint32
	services     table[ServiceKey, *Service]
	reports      table[ServiceKey, *reported]
	namespaces   table[string, namespace]
	anyNamespace bool
	unsynced     []Source
	restored     []Source
}

// namespace is the name of one that exists.
type namespace string

func (n namespace) tableKey() string { return string(n) }

func (s *Service) tableKey() ServiceKey { return s.Key() }

// reported is a report that has something to say.
type reported struct {
	key ServiceKey
	Report
}

func (r *reported) tableKey() ServiceKey { return r.key }

// Generation counts the snapshots of one Index, from 1.
func (s *Snapshot) Generation() uint64 { return s.generation }

// Serial is the SOA serial of the zone.
func (s *Snapshot) Serial() uint32 { return s.serial }

// Service returns the merged service, nil when none of that name is known. The arguments must be lower case.
func (s *Snapshot) Service(namespace, name string) *Service {
	service, _ := s.services.get(ServiceKey{namespace, name})
	return service
}

// Services calls yield for every service, in no particular order, until it returns false.
func (s *Snapshot) Services(yield func(*Service) bool) {
	s.services.all(yield)
}

// Report returns what merging found wrong with the exports of a service, also where these make no service.
func (s *Snapshot) Report(namespace, name string) Report {
	if r, ok := s.reports.get(ServiceKey{namespace, name}); ok {
		return r.Report
	}
	return Report{}
}

// Reports calls yield for every service with whose exports something is wrong, in no particular order, until it returns false.
// What it is told must not be changed.
func (s *Snapshot) Reports(yield func(ServiceKey, *Report) bool) {
	s.reports.all(func(r *reported) bool { return yield(r.key, &r.Report) })
}

// Len returns the number of services.
func (s *Snapshot) Len() int { return s.services.size }

// HasNamespace reports whether the namespace is known to exist.
func (s *Snapshot) HasNamespace(name string) bool {
	_, ok := s.namespaces.get(name)
	return ok
}

// NamespaceDenied reports whether the namespace is known not to exist in the local cluster. Then no member can make a
// name in it exist, whether it has synced or not.
func (s *Snapshot) NamespaceDenied(name string) bool {
	return !s.anyNamespace && !s.HasNamespace(name)
}

// Unsynced returns the sources that have never told all they know. While there is one, an unknown name is not known to
// be absent. The caller must not change the result.
func (s *Snapshot) Unsynced() []Source { return s.unsynced }

// Restored returns those unsynced sources of which it is known what they said before the start. The caller must not change
// the result.
func (s *Snapshot) Restored() []Source { return s.restored }
