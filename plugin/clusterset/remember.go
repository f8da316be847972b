package clusterset

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// errNotRead is why nothing can be asked of a member that is remembered only.
var errNotRead = errors.New("the Secret that describes the cluster has not been read since the start")

// source names the file in which members are remembered. There is one for each place where they are described.
func (s *rosterSpec) source() mcs.Source {
	sum := sha256.Sum256([]byte(s.key()))
	return mcs.Source{Kind: mcs.Members, Cluster: topology.ClusterID(fmt.Sprintf("of-%x", sum[:8]))}
}

// remembers tells whether members are kept on disk. Those of a folder are on disk already.
func (s *rosterSpec) remembers() bool { return s.state != "" && s.dir == "" }

// remember makes those members that were known before the start, so that what they said is answered. Their credentials are
// not: they are written nowhere.
func (r *roster) remember() {
	if !r.spec.remembers() {
		return
	}
	record, err := state.Read(r.spec.state, r.spec.source())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			stateErrors.WithLabelValues("", "read").Inc()
			log.Warningf("The members that were known before the start are not restored: %v", err)
		}
		return
	}
	connection, err := watch.Absent(errNotRead)
	if err != nil {
		return
	}
	for name, settings := range record.Facts.Members {
		m, _, err := parseSettings(name, settings)
		if err != nil || len(r.members) == maxDynamic {
			continue
		}
		m.connection, m.origin = connection, r.spec.origin(name)
		r.members[m.ID] = &elected{member: m}
	}
	r.written = record.Facts.Members
}

// keep writes the members to disk, if that is news.
func (r *roster) keep() {
	if !r.spec.remembers() {
		return
	}
	now := map[string]map[string]string{}
	for name, d := range r.known {
		if d.member != nil && r.members[d.member.ID] != nil && r.members[d.member.ID].member == d.member {
			now[name] = d.member.settings
		}
	}
	if maps.EqualFunc(now, r.written, maps.Equal[map[string]string, map[string]string]) {
		return
	}
	err := state.Write(r.spec.state, state.Record{Source: r.spec.source(), Written: time.Now(), Facts: mcs.Facts{Members: now}})
	if err != nil {
		stateErrors.WithLabelValues("", "write").Inc()
		log.Warningf("The members are not written, so they will be missing after a restart without the API server that describes them: %v", err)
		return
	}
	r.written = now
}
