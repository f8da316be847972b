// Package watch turns one API server into facts: it lists and watches what a member cluster exports, or what a source of
// ServiceImports offers, keeps the little of it that answers need, and tells its Sinks whole Shards.
//
// It owns the connection, its backoff and its sync state, and is the only package that imports client-go. It refuses to
// merge members, to decide anything about answers, and to write to any API server. Whatever an API server sends is
// checked on entry: what does not make sense is left out and counted, and never harms the rest.
package watch

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
)

// Sink receives what a source says, in order. Calls for one source never overlap; calls for several may. A Sink must
// return at once and must not call back into the Watcher.
type Sink interface {
	// ApplyShard replaces what a member says about a service; nil means nothing any more. changed is when the cluster
	// says that the change happened, the zero time when it does not say.
	ApplyShard(id topology.ClusterID, key mcs.ServiceKey, shard *mcs.Shard, changed time.Time)
	// ApplyImport does the same for a ServiceImport.
	ApplyImport(key mcs.ServiceKey, shard *mcs.ImportShard, changed time.Time)
	// ApplyNamespace says whether a namespace exists in the local cluster.
	ApplyNamespace(name string, exists bool)
	// ApplyServiceAddresses says which cluster IPs Services of the local cluster have got, and which they have given back,
	// exported or not. The slices must not be changed.
	ApplyServiceAddresses(taken, free []netip.Addr)
	// ApplyServiceRanges says which addresses the local cluster gives to its own services. The slice must not be changed.
	ApplyServiceRanges(ranges []netip.Prefix)
	// SetDrained says whether a cluster asks not to be used by the ClusterProperty drain.clusterset-dns.io.
	SetDrained(id topology.ClusterID, drained bool)
	// SetClusterID says which id a cluster gives itself by the ClusterProperty cluster.clusterset.k8s.io (KEP-2149), "" when
	// it does not say.
	SetClusterID(id topology.ClusterID, claimed string)
	// SetSynced says that everything the source knows has been told, or that it has been given up on.
	SetSynced(source mcs.Source)
	// SetRestored says that everything has been told which was known of the source before the first contact.
	SetRestored(source mcs.Source)
}

// Observer is told what happens, for metrics and logs. It must return at once and be safe for concurrent use.
type Observer interface {
	// Event counts one object received: event is "add", "update", "delete", "list" (an object of a full list).
	Event(name, resource, event string, objects int)
	// Reject counts something that was left out.
	Reject(name string, reason Rejection)
	// Problem is called when the reason why a resource cannot be read changes; NoProblem means that it can be again.
	Problem(name, resource string, p Problem, err error)
	// Renewed is called when credentials have changed where they come from: with nil when the new ones are used from now
	// on, else with why they are not, once per change. insecure tells that the server's certificate is not verified.
	Renewed(name string, insecure bool, err error)
	// Hold is called when a full list is not believed because only after of before things are left in it, and with held
	// false when that is over.
	Hold(name, resource string, held bool, before, after int)
	// State is called when the state of a watcher changes.
	State(name string, kind mcs.SourceKind, s State)
}

// Problem says why a resource cannot be read. A closed set, used as metric label.
type Problem string

// The problems of a watch.
const (
	NoProblem    Problem = ""
	Unreachable  Problem = "unreachable"  // no connection, a time-out, or an answer that is none of the others
	Forbidden    Problem = "forbidden"    // RBAC does not allow it
	Unauthorized Problem = "unauthorized" // the credentials are not accepted
	NotServed    Problem = "not_served"   // the API server does not know the resource (CRD missing)
	TooLarge     Problem = "too_large"    // the API server sends more than a cluster can have
)

// Problems returns every problem except NoProblem.
func Problems() []Problem {
	return []Problem{Unreachable, Forbidden, Unauthorized, NotServed, TooLarge}
}

// State is how far a source can be trusted.
type State uint8

// The states of a source.
const (
	// Syncing: it has never told all that it knows.
	Syncing State = iota
	// Synced: it has, and there was proof of life not long ago.
	Synced
	// Stale: there was no proof of life for a while (Spec.StaleAfter), or none yet and what it said before is restored.
	// What it said is kept.
	Stale
	// Expired: there was none for too long (Spec.ExpireAfter). What it said is forgotten.
	Expired
	// TimedOut: it has never told all that it knows, for as long.
	TimedOut
)

// String returns the name used as metric label.
func (s State) String() string {
	return [...]string{"syncing", "synced", "stale", "expired", "timed_out"}[s]
}

// States returns every state.
func States() []State { return []State{Syncing, Synced, Stale, Expired, TimedOut} }

// DefaultStaleAfter is how long a source can be silent before it is stale.
const DefaultStaleAfter = time.Minute

// Times of the proof of life (see lifecycle.go).
const (
	quietAfter  = 15 * time.Second // without any sign of life for so long, ask
	askEvery    = 10 * time.Second // ask again
	askTimeout  = 5 * time.Second
	retryFirst  = 200 * time.Millisecond
	retryAtMost = 5 * time.Second
	spreadOver  = 5 * time.Second // after an outage, lists are spread over so long
)

// Spec says what to watch.
type Spec struct {
	Kind mcs.SourceKind
	// Cluster is the member; "" for ServiceImports.
	Cluster    topology.ClusterID
	Connection Connection
	Observer   Observer
	// Places receives what a source of kind Nodes says; nil for all others, which have Sinks.
	Places PlaceSink
	// Secrets receives what a source of kind Members says: the Secrets in Namespace that have the labels of Selector.
	Secrets             SecretSink
	Namespace, Selector string
	// StaleAfter is how long there may be no proof of life before the source is stale; 0 means DefaultStaleAfter.
	StaleAfter time.Duration
	// ExpireAfter is how long until it is forgotten and given up on; 0 means never.
	ExpireAfter time.Duration
	// Seed is what is known of the source before the first contact, nil if nothing is.
	Seed *Seed
}

// Name identifies the source in logs and metrics: the cluster id, or "serviceimports".
func (s Spec) Name() string {
	switch s.Kind {
	case mcs.Imports:
		return "serviceimports"
	case mcs.Members:
		return "members"
	}
	return string(s.Cluster)
}

// Status is a moment's view of a Watcher.
type Status struct {
	State State
	// LastProof is the time of the last proof of life, the zero time before the first.
	LastProof time.Time
	// CredentialExpiry is when the first of the credentials in use ends, the zero time when that is not known or never.
	CredentialExpiry time.Time
	// Insecure tells that the server's certificate is not verified.
	Insecure bool
	// Services and Endpoints are how many are held.
	Services, Endpoints int
	// Problems are the resources that cannot be read now, with the reason. Held are those of which a list is not believed.
	Problems map[string]Problem
	Held     []string
}

// Watcher watches one source until it is closed. Sinks may come and go.
type Watcher struct {
	spec     Spec
	feed     feed
	life     life
	problems problems
	// restart asks the current round to end; see follow.
	restart chan struct{}
	// renew asks for a new round at once, over new credentials; see moved. hurry is true while one is due, and only run
	// uses it.
	renew  chan struct{}
	hurry  bool
	access *access
	http   *http.Client
	ctx    func() context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	// began is when the Watcher was started.
	began time.Time
	// gaveUp is Expired or TimedOut while that is the state, else 0.
	gaveUp atomic.Uint32
	// told is the state last told to the observer; only watchClock uses it.
	told    State
	toldAny bool
}

// feed is what a source is made of: which resources, in which order, and where they go.
type feed interface {
	// connect finds out how to read the source and returns its resources in stages: a stage begins when all of the one
	// before are complete. Errors are classified by problemOf.
	connect(ctx context.Context) ([]stage, error)
	// clear forgets everything and counts as synced: the source can hold nothing, or has been given up on.
	clear()
	restore(facts mcs.Facts, synced bool)
	subscribe(Sink)
	unsubscribe(Sink)
	synced() bool
	wasRestored() bool
	size() (services, endpoints int)
	// tick is called about once a second.
	tick(now time.Time)
	// ask makes the cheapest request that proves life and rights.
	ask(ctx context.Context) error
}

// life is the proof of life of a source. Safe for concurrent use.
type life struct{ last atomic.Int64 }

func (l *life) proof()               { l.last.Store(time.Now().UnixNano()) }
func (l *life) since() time.Duration { return time.Since(time.Unix(0, l.last.Load())) }

// Start begins to watch. It returns at once, whatever the state of the API server; the error is about the connection's
// configuration only.
func Start(spec Spec) (*Watcher, error) {
	spec.StaleAfter = cmp.Or(spec.StaleAfter, DefaultStaleAfter)
	w := &Watcher{
		spec: spec, access: spec.Connection.access, began: time.Now(),
		restart: make(chan struct{}, 1), renew: make(chan struct{}, 1),
	}
	clients, err := spec.Connection.clients()
	if err != nil {
		return nil, err
	}
	w.http = clients.http
	switch spec.Kind {
	case mcs.Namespaces:
		w.feed = newNamespaceFeed(w, clients)
	case mcs.Imports:
		w.feed = newImportFeed(w, clients)
	case mcs.Properties:
		w.feed = newPropertyFeed(w, clients)
	case mcs.ServiceRanges:
		w.feed = newServiceRangeFeed(w, clients)
	case mcs.Members:
		w.feed = newSecretFeed(w, clients)
	case mcs.Nodes:
		w.feed = newNodeFeed(w, clients)
	default:
		w.feed = newExportFeed(w, clients)
	}
	if spec.Seed != nil {
		w.feed.restore(spec.Seed.Facts, spec.Seed.Synced)
		if !spec.Seed.Proof.IsZero() {
			w.life.last.Store(spec.Seed.Proof.UnixNano())
		}
	}
	ctx, cancel := context.WithCancel(quiet(context.Background()))
	w.ctx, w.cancel = func() context.Context { return ctx }, cancel
	w.access.join(w)
	w.done.Go(func() { w.run(ctx) })
	w.done.Go(func() { w.watchClock(ctx) })
	return w, nil
}

// Close ends the watch and waits until everything it started has ended.
func (w *Watcher) Close() {
	w.cancel()
	w.done.Wait()
	w.access.leave(w)
	utilnet.CloseIdleConnectionsFor(w.http.Transport)
}

// TellServiceAddresses lets a source of kind Exports tell the cluster IPs of all its Services from now on.
func (w *Watcher) TellServiceAddresses() {
	if f, ok := w.feed.(*exportFeed); ok && !f.addressed.Swap(true) {
		w.anew()
	}
}

// Subscribe tells the sink all that is known, and from then on every change. If the source has synced already, that is
// told before Subscribe returns.
func (w *Watcher) Subscribe(s Sink) { w.feed.subscribe(s) }

// Unsubscribe ends it. No call to the sink is under way or follows when it returns.
func (w *Watcher) Unsubscribe(s Sink) { w.feed.unsubscribe(s) }

// Status returns the current state. It takes no lock that an event needs.
func (w *Watcher) Status() Status {
	st := Status{State: w.state(), CredentialExpiry: w.access.expiry(), Insecure: w.access.current.Load().isInsecure()}
	if last := w.life.last.Load(); last != 0 {
		st.LastProof = time.Unix(0, last)
	}
	st.Services, st.Endpoints = w.feed.size()
	st.Problems, st.Held = w.problems.now()
	return st
}

func (w *Watcher) state() State {
	gaveUp := State(w.gaveUp.Load()) //nolint:gosec // a State was stored
	switch {
	case gaveUp != 0:
		return gaveUp
	case w.feed.wasRestored():
		return Stale
	case !w.feed.synced():
		return Syncing
	case w.life.since() > w.spec.StaleAfter:
		return Stale
	default:
		return Synced
	}
}

// background runs f until the watcher is closed; Close waits for it.
func (w *Watcher) background(f func(context.Context)) {
	w.done.Go(func() { f(w.ctx()) })
}

func (w *Watcher) source() mcs.Source { return mcs.Source{Kind: w.spec.Kind, Cluster: w.spec.Cluster} }
