package clusterset

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// rosterSpec says where members are described that come and go: in the Secrets of a namespace, or in the folders of dir.
type rosterSpec struct {
	connection          *watch.Connection
	namespace, selector string
	dir                 string
	// state is the folder of the last known state, "" for none.
	state string
}

func (s *rosterSpec) key() string {
	if s.dir != "" {
		return "directory " + s.dir
	}
	return fmt.Sprintf("secrets %s %s %s %q", s.connection.Key, s.namespace, s.selector, s.state)
}

// origin says where a member is described.
func (s *rosterSpec) origin(name string) string {
	if s.dir != "" {
		return "directory " + name
	}
	return "secret " + s.namespace + "/" + name
}

const (
	// lookEvery is how often folders are looked at.
	lookEvery = 2 * time.Second
	// maxDynamic is how many members may come. More are refused, lest a mistake takes the server's memory.
	maxDynamic = 256
	// maxSetting is the size of a file about a member, in octets: as much as a Secret can hold.
	maxSetting = 1 << 20
)

// roster follows where members are described, and tells worlds who they are. One serves all worlds that look there, also
// over a reload. Its lock is taken before that of the store.
type roster struct {
	spec rosterSpec
	stop func()
	wake chan struct{} // holds one token while something is pending
	// summary is for whoever only looks.
	summary atomic.Pointer[rosterSummary]

	pendingMu sync.Mutex // guards pending, and whether everything is in it
	pending   []description
	listed    bool

	mu      sync.Mutex // guards what follows
	known   map[string]*described
	members map[topology.ClusterID]*elected
	told    bool // everything has been told once
	worlds  []rosterUser
	// written is what the folder of the last known state has of the members.
	written map[string]map[string]string
}

// rosterUser is told who the members are.
type rosterUser interface {
	// setMember adds a member or changes it. joins says that it came after the first list.
	setMember(m *member, joins bool)
	dropMember(id topology.ClusterID)
	// knowsMembers says that all have been told.
	knowsMembers()
}

// description is what is said under a name; data is nil when nothing is any more.
type description struct {
	name    string
	created int64
	data    map[string]string
}

// described is the last word about a name, and what has come of it.
type described struct {
	created int64
	sum     [sha256.Size]byte
	// member is the last good one, nil if there was none.
	member *member
	// refused is why the last word is not used, "" if it is; detail says it in words, without secrets.
	refused refusal
	detail  string
}

// elected is a member that takes part.
type elected struct {
	*member
	joins bool
}

// refusal is why a description is not used. A closed set, used as metric label.
type refusal string

const (
	accepted      refusal = ""
	badID         refusal = "id"         // no cluster id, or another one than before
	badKubeconfig refusal = "kubeconfig" // none, or one that is refused
	badSetting    refusal = "setting"
	duplicate     refusal = "duplicate" // another one of that id was there first
	tooMany       refusal = "too_many"
)

func refusals() []refusal { return []refusal{badID, badKubeconfig, badSetting, duplicate, tooMany} }

// newRoster begins to follow.
func newRoster(spec rosterSpec) (*roster, error) {
	r := &roster{spec: spec, wake: make(chan struct{}, 1), known: map[string]*described{}, members: map[topology.ClusterID]*elected{}}
	r.remember()
	r.summarize()
	end := func() {}
	if spec.dir == "" {
		w, err := watch.Start(watch.Spec{
			Kind: mcs.Members, Connection: *spec.connection, Observer: observer{}, Secrets: r, Namespace: spec.namespace, Selector: spec.selector,
		})
		if err != nil {
			return nil, err
		}
		end = w.Close
	} else {
		end = r.followFolders()
	}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-r.wake:
				r.work()
			}
		}
	})
	r.stop = func() {
		end()
		close(done)
		running.Wait()
	}
	return r, nil
}

// ApplySecret implements watch.SecretSink.
func (r *roster) ApplySecret(name string, s *watch.MemberSecret) {
	d := description{name: name}
	if s != nil {
		d.created, d.data = s.Created, s.Data
	}
	r.add(d)
}

// SetSecretsListed implements watch.SecretSink.
func (r *roster) SetSecretsListed() { r.setListed() }

func (r *roster) add(d description) {
	r.pendingMu.Lock()
	r.pending = append(r.pending, d)
	r.pendingMu.Unlock()
	r.ring()
}

func (r *roster) setListed() {
	r.pendingMu.Lock()
	r.listed = true
	r.pendingMu.Unlock()
	r.ring()
}

func (r *roster) ring() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// work takes what has been said since, elects the members, and tells what has changed.
func (r *roster) work() {
	r.pendingMu.Lock()
	pending, listed := r.pending, r.listed
	r.pending = nil
	r.pendingMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.summarize()
	for _, d := range pending {
		r.take(d)
	}
	if !listed {
		return // half of the members would be told
	}
	r.elect()
	r.keep()
	if !r.told {
		r.told = true
		for _, w := range r.worlds {
			w.knowsMembers()
		}
	}
}

// take notes one description. One that is refused leaves the last good one as it is.
func (r *roster) take(d description) {
	was := r.known[d.name]
	if d.data == nil {
		delete(r.known, d.name)
		return
	}
	now := &described{created: d.created, sum: sumOf(d.data)}
	if was != nil {
		if was.sum == now.sum && was.created == now.created {
			return
		}
		now.member = was.member
	}
	m, why, err := parseMember(d.name, d.data)
	if m != nil {
		m.origin = r.spec.origin(d.name)
	}
	if err == nil && now.member != nil && now.member.ID != m.ID {
		why, err = badID, fmt.Errorf("it was cluster %s before and is %s now: remove it, then add it under another name", now.member.ID, m.ID)
	}
	if now.refused = why; err != nil {
		now.detail = err.Error()
		log.Warningf("Member %s is not used: %v", d.name, err)
	} else {
		now.member = m
	}
	r.known[d.name] = now
}

func sumOf(data map[string]string) [sha256.Size]byte {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(&b, "%q %q\n", key, data[key])
	}
	return sha256.Sum256([]byte(b.String()))
}

// parseMember makes a member of a description. Nothing of a kubeconfig is in the error.
func parseMember(name string, data map[string]string) (*member, refusal, error) {
	m, why, err := parseSettings(name, data)
	if why == badID {
		return nil, why, err
	}
	kubeconfig, ok := data["kubeconfig"]
	if !ok {
		return nil, badKubeconfig, errors.New("'kubeconfig' is missing")
	}
	connection, wrong := watch.ParseKubeconfig(name, []byte(kubeconfig))
	if wrong != nil {
		return nil, badKubeconfig, wrong
	}
	if err != nil {
		return nil, why, err
	}
	m.connection = connection
	return m, accepted, nil
}

// parseSettings makes a member of what a description says besides credentials.
func parseSettings(name string, data map[string]string) (*member, refusal, error) {
	id, err := topology.ParseClusterID(cmp.Or(strings.TrimSpace(data["cluster"]), name))
	if err != nil {
		return nil, badID, fmt.Errorf("'cluster': %w", err)
	}
	m := &member{settings: map[string]string{"cluster": string(id)}}
	m.ID = id
	for _, property := range []string{"address", "region", "weight", "allow", "namespaces"} {
		words, given := data[property]
		if !given {
			continue
		}
		if m.set(property, strings.Fields(words)) != nil {
			// The value may be a kubeconfig that stands in the wrong place, so it is not shown.
			return nil, badSetting, fmt.Errorf("the value of '%s' cannot be used: it takes the words that stand after '%[1]s' in a Corefile", property)
		}
		m.settings[property] = words
	}
	m.NoAddress = !m.hasAddress
	return m, accepted, nil
}

// elect finds which member each id stands for: of several descriptions the oldest, then the first by name.
func (r *roster) elect() {
	names := slices.SortedFunc(maps.Keys(r.known), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.known[a].created, r.known[b].created), strings.Compare(a, b))
	})
	now := map[topology.ClusterID]*described{}
	for _, name := range names {
		d := r.known[name]
		if d.member == nil {
			continue
		}
		was := d.refused
		switch other := now[d.member.ID]; {
		case other != nil:
			d.refused = duplicate
		case len(now) >= maxDynamic:
			d.refused = tooMany
		default:
			now[d.member.ID] = d
			if d.refused == duplicate || d.refused == tooMany {
				d.refused, d.detail = accepted, ""
			}
		}
		if d.refused != was && d.refused != accepted {
			d.detail = refusedBecause(d.refused, d.member.ID)
			log.Warningf("Member %s is not used: %s", name, d.detail)
		}
	}
	for id := range r.members {
		if now[id] == nil {
			delete(r.members, id)
			log.Infof("Cluster %s is no member any more", id)
			for _, w := range r.worlds {
				w.dropMember(id)
			}
		}
	}
	for id, d := range now {
		r.admit(id, d)
	}
}

func refusedBecause(why refusal, id topology.ClusterID) string {
	if why == duplicate {
		return fmt.Sprintf("cluster %s is described elsewhere too, and that was there first", id)
	}
	return fmt.Sprintf("there are %d members already", maxDynamic)
}

func (r *roster) admit(id topology.ClusterID, d *described) {
	was := r.members[id]
	if was != nil && was.member == d.member {
		return
	}
	e := &elected{member: d.member, joins: r.told}
	if was != nil {
		e.joins = was.joins
	}
	r.members[id] = e
	switch {
	case was != nil:
		log.Infof("Cluster %s is described anew", id)
	case d.member.NoAddress:
		log.Infof("Cluster %s is a member; without an 'address' for its headless services only", id)
	default:
		log.Infof("Cluster %s is a member", id)
	}
	for _, w := range r.worlds {
		w.setMember(e.member, e.joins)
	}
}

// join tells a world who the members are, and from then on every change.
func (r *roster) join(w rosterUser) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.worlds = append(r.worlds, w)
	for _, e := range r.members {
		w.setMember(e.member, e.joins)
	}
	if r.told {
		w.knowsMembers()
	}
}

// leave ends it. No call to the world is under way or follows when it returns.
func (r *roster) leave(w rosterUser) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.worlds = slices.DeleteFunc(r.worlds, func(o rosterUser) bool { return o == w })
}

// rosterSummary is what is known at a moment: how many members there are, and the descriptions that are not used, in the order
// of their names. Immutable.
type rosterSummary struct {
	members int
	refused []refused
}

type refused struct {
	name   string
	why    refusal
	detail string
}

// summarize is called with mu held.
func (r *roster) summarize() {
	out := &rosterSummary{members: len(r.members)}
	for _, name := range slices.Sorted(maps.Keys(r.known)) {
		if d := r.known[name]; d.refused != accepted {
			out.refused = append(out.refused, refused{name, d.refused, d.detail})
		}
	}
	r.summary.Store(out)
}

// counts tells how many members there are, and how many descriptions are refused. It takes no lock.
func (r *roster) counts() (members int, why map[refusal]int) {
	now, why := r.summary.Load(), map[refusal]int{}
	for _, one := range now.refused {
		why[one.why]++
	}
	return now.members, why
}

// followFolders looks at the folders now and then. A mounted Secret changes by a symbolic link, so contents are compared.
func (r *roster) followFolders() (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		known, failing := map[string]bool{}, ""
		for {
			names, err := r.look(known)
			switch {
			case err == nil:
				known, failing = names, ""
				r.setListed()
			case err.Error() != failing:
				failing = err.Error()
				log.Warningf("Members of %s: %v; those that are known go on", r.spec.dir, err)
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// look reads all folders. known are those of the last time.
func (r *roster) look(known map[string]bool) (map[string]bool, error) {
	entries, err := os.ReadDir(r.spec.dir)
	if err != nil {
		return nil, err
	}
	now := map[string]bool{}
	for _, e := range entries {
		folder := filepath.Join(r.spec.dir, e.Name())
		info, err := os.Stat(folder)
		if strings.HasPrefix(e.Name(), ".") || err != nil || !info.IsDir() {
			continue
		}
		now[e.Name()] = true
		r.add(description{name: e.Name(), data: readFolder(folder)})
	}
	for name := range known {
		if !now[name] {
			r.add(description{name: name})
		}
	}
	return now, nil
}

// readFolder returns what the files of a folder say. A file that cannot be read is as if it were not there.
func readFolder(folder string) map[string]string {
	data := map[string]string{}
	for _, key := range watch.MemberKeys {
		path := filepath.Join(folder, key)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxSetting {
			continue
		}
		if text, err := os.ReadFile(path); err == nil { //nolint:gosec // in the folder of the Corefile
			data[key] = string(text)
		}
	}
	return data
}
