package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// resource is one list-and-watch of a source.
type resource struct {
	name  string
	lists *cache.ListWatch
	// listing, where there is one, makes the full lists.
	listing *listing
	store   *store
}

// resource makes one of a listing.
func (l *listing) resource(s *store) resource { return resource{l.plural, l.lists(), l, s} }

// stage are resources that are read side by side.
type stage []resource

// run keeps the source connected until ctx ends. Each round finds out how to read it and follows it until something
// says that this must be done anew.
func (w *Watcher) run(ctx context.Context) {
	delay := retry()
	for ctx.Err() == nil {
		began := time.Now()
		stages, err := w.connect(ctx)
		if err == nil {
			w.follow(ctx, stages)
		}
		if time.Since(began) > time.Minute {
			delay = retry()
		}
		if w.hurry {
			w.hurry, delay = false, retry()
			continue
		}
		next := delay.Step()
		if w.optional() && problemOf(err) == NotServed {
			next = wait.Jitter(optionalEvery, 0.25)
		}
		w.pause(ctx, next)
	}
}

// pause is sleep, but ends when there are new credentials.
func (w *Watcher) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.renew:
	case <-timer.C:
	}
}

// moved is called when there are new credentials. What is under way goes on with them by itself, but what has failed would
// wait before it is tried again, and another server has to be listed anew.
func (w *Watcher) moved(anew bool) {
	if !anew && !w.problems.any() {
		return
	}
	select {
	case w.renew <- struct{}{}:
	default:
	}
}

// try makes the request of ask without drawing conclusions.
func (w *Watcher) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return w.feed.ask(ctx)
}

// retry waits 0.2 s, doubling to 5 s, each time up to as much again by chance, so that servers which lost the same API
// server do not come back at the same moment.
func retry() wait.Backoff {
	return wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 1, Steps: 1 << 20, Cap: retryAtMost}
}

// optionalEvery is how often, or up to a quarter less, it is looked whether a cluster has learned what it may do without.
// Nothing else proves meanwhile that its API server is alive, so this is as frequent as that must be asked.
const optionalEvery = 12 * time.Second

// optional reports whether it is no problem if the API server does not know the resource.
func (w *Watcher) optional() bool {
	return w.spec.Kind == mcs.Properties || w.spec.Kind == mcs.ServiceRanges
}

func (w *Watcher) connect(ctx context.Context) ([]stage, error) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stages, err := w.feed.connect(asking)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if w.optional() && problemOf(err) == NotServed {
		w.problems.report(w, "discovery", nil) // nor is anything wrong any more that was before
	} else {
		w.problems.report(w, "discovery", err)
	}
	if err == nil {
		return stages, nil
	}
	if problemOf(err) == NotServed {
		// The API server answers, and says that there is nothing of the kind: that is knowledge, not ignorance.
		w.life.proof()
		w.feed.clear()
		w.complete()
	}
	return nil, err
}

// follow runs the stages until ctx ends or a restart is due.
func (w *Watcher) follow(ctx context.Context, stages []stage) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	select {
	case <-w.restart: // of an earlier round
	default:
	}
	select {
	case <-w.renew: // this round uses them already
	default:
	}
	running.Go(func() {
		for _, st := range stages {
			for _, r := range st {
				running.Go(func() { w.reflect(ctx, r) })
			}
			for _, r := range st {
				select {
				case <-r.store.complete:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	w.tend(ctx)
}

// tend asks for a sign of life when there was none for a while. It returns when ctx ends, when a resource has gone, or
// when the API server answers again after it did not, no matter whom: then everything is listed anew over the same facts,
// which is faster than the Reflectors' own recovery and finds what a half-dead connection may have lost, or what an etcd
// that was restored from a backup has forgotten. A Reflector that goes on from where it was would never hear of that.
func (w *Watcher) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var asked time.Time
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.restart:
			return
		case <-w.renew:
			w.hurry = true
			return
		case <-tick.C:
		}
		answers := w.life.since() < quietAfter
		if !answers {
			if time.Since(asked) < askEvery {
				continue
			}
			asked = time.Now()
			answers = w.ask(ctx) == nil
			if ctx.Err() != nil {
				return
			}
		}
		if answers && failed {
			// Every server in the ClusterSet notices at the same moment that an API server which hung goes on.
			sleep(ctx, wait.Jitter(spreadOver, 1)-spreadOver)
			return
		}
		failed = !answers
	}
}

func (w *Watcher) ask(ctx context.Context) error {
	err := w.try(ctx)
	if err == nil {
		w.life.proof()
	}
	return err
}

// reflect keeps a Reflector running until ctx ends, each time until all must be listed anew.
func (w *Watcher) reflect(ctx context.Context, r resource) {
	if r.store.again == nil {
		w.reflector(ctx, r).RunWithContext(ctx)
		r.store.ended()
		return
	}
	for ctx.Err() == nil {
		var running sync.WaitGroup
		once, cancel := context.WithCancel(ctx)
		running.Go(func() { w.reflector(once, r).RunWithContext(once) })
		r.store.again(once)
		cancel()
		running.Wait()
		r.store.ended()
	}
}

// reflector follows one resource until ctx ends. It observes every answer and failure on the way.
func (w *Watcher) reflector(ctx context.Context, r resource) *cache.Reflector {
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			r.store.asking.Lock()
			defer r.store.asking.Unlock()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			r.store.start(ctx)
			if isVersion(options.ResourceVersion) {
				if err := w.mayGoOn(ctx, r, options.ResourceVersion); err != nil {
					return nil, err
				}
			}
			list, err := w.list(ctx, r, options)
			w.observe(ctx, r.name, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if r.store.resumes() {
				if err := w.mayGoOn(ctx, r, options.ResourceVersion); err != nil {
					return nil, err
				}
			}
			stream, err := r.lists.WatchWithContext(ctx, options)
			w.observe(ctx, r.name, err)
			return stream, err
		},
	}
	backoff := retry()
	logger := logr.Discard()
	return cache.NewReflectorWithOptions(listsFirst{lists}, nil, r.store,
		cache.ReflectorOptions{Name: r.name, Backoff: &backoff, Logger: &logger, Clock: roundClock{after: until(ctx)}})
}

// listsFirst has a Reflector list, and not have the list streamed; see list.go.
type listsFirst struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what client-go asks.
func (listsFirst) IsWatchListSemanticsUnSupported() bool { return true }

// list makes a full list. Only the very first may be older than the question, as those of all that use client-go: an API server has
// such a one at hand, while for a newer one it asks etcd, and waits up to 100 ms. Nothing that has been told is taken back by one.
func (w *Watcher) list(ctx context.Context, r resource, options metav1.ListOptions) (runtime.Object, error) {
	options.Limit, options.Continue = 0, "" // whatever client-go thinks of pages
	if options.ResourceVersion == "0" && (w.feed.synced() || w.feed.wasRestored()) {
		options.ResourceVersion = ""
	}
	if r.listing == nil {
		return r.lists.ListWithContext(ctx, options)
	}
	list, err := r.items(ctx, options)
	if errors.Is(err, errMore) {
		r.listing.brief.Store(false)
		list, err = r.items(ctx, options)
	}
	return list, err
}

// items makes a full list of items.
func (r resource) items(ctx context.Context, options metav1.ListOptions) (list *itemList, err error) {
	list = &itemList{}
	list.ListMeta, err = r.listing.all(ctx, options, func(obj any) error {
		it, ok := r.store.compact(obj).(runtime.Object)
		if !ok {
			return fmt.Errorf("%T in a list", obj)
		}
		list.Items = append(list.Items, it)
		return r.store.bound(len(list.Items))
	})
	return list, err
}

// isVersion reports whether a resourceVersion is one, and not "" or "0", which stand for the newest and for any.
func isVersion(text string) bool { return text != "" && text != "0" }

// mayGoOn returns an error where a watch or a list must not refer to the version it had reached: when the API server is not
// as far any more, so that everything begins anew, and when it does not say, since it has just come back and does not know yet
// who may read.
func (w *Watcher) mayGoOn(ctx context.Context, r resource, was string) error {
	back, err := wentBack(ctx, r.lists, was)
	switch {
	case back:
		if r.store.reached != nil {
			r.store.reached.Store(0)
		}
		w.anew()
		return apierrors.NewResourceExpired("the API server was restored from a backup")
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		w.observe(ctx, r.name, err)
		return err
	}
	return nil // it is for the watch itself to fail
}

// wentBack reports whether an API server is not as far as it was when a watch was interrupted: its etcd was wiped or
// restored from a backup. A watch that is taken up at a version that is yet to come is not refused, but silent, and tells
// nothing of what has changed; a list that asks for such a version is refused after three seconds, and client-go asks ten times.
func wentBack(ctx context.Context, lists *cache.ListWatch, was string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// Nothing matches, and without a resourceVersion the answer is not older than the question.
	list, err := lists.ListWithContext(ctx, metav1.ListOptions{Limit: 1, FieldSelector: "metadata.name=-"})
	if err != nil {
		return false, err
	}
	at, err := apimeta.ListAccessor(list)
	return err == nil && at.GetResourceVersion() != "" && version(at.GetResourceVersion()) < version(was), nil
}

// roundClock is the real clock, but waiting ends with the round: a Reflector whose list was refused waits for nothing else
// (client-go v0.37), and nobody wants to wait for that when a watch is closed.
type roundClock struct {
	clock.RealClock
	after func(time.Duration) <-chan time.Time
}

// After implements clock.Clock.
func (c roundClock) After(d time.Duration) <-chan time.Time { return c.after(d) }

// until is time.After, but ends with ctx at the latest.
func until(ctx context.Context) func(time.Duration) <-chan time.Time {
	return func(d time.Duration) <-chan time.Time {
		over := make(chan time.Time, 1)
		end := func() {
			select {
			case over <- time.Now():
			default:
			}
		}
		stop := context.AfterFunc(ctx, end)
		time.AfterFunc(d, func() {
			stop()
			end()
		})
		return over
	}
}

// observe draws the conclusions from one answer of the API server.
func (w *Watcher) observe(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		w.life.proof()
	}
	w.problems.report(w, resource, err)
	if problemOf(err) == NotServed {
		w.anew()
	}
}

// anew ends the current round, if there is one, so that everything is listed again.
func (w *Watcher) anew() {
	select {
	case w.restart <- struct{}{}:
	default:
	}
}

// watchClock does what time alone makes due, whatever the API server does.
func (w *Watcher) watchClock(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		w.giveUp()
		w.tellState()
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.feed.tick(now)
		}
	}
}

// giveUp forgets what a source said that has been silent for too long. Once it speaks again, everything is listed anew.
func (w *Watcher) giveUp() {
	silence, end := w.life.since(), Expired
	if !w.feed.synced() && !w.feed.wasRestored() {
		silence, end = time.Since(w.began), TimedOut
	}
	if w.spec.ExpireAfter == 0 || w.gaveUp.Load() != 0 || silence < w.spec.ExpireAfter {
		return
	}
	w.gaveUp.Store(uint32(end))
	w.feed.clear()
	w.anew()
}

// complete says that all the source says is known.
func (w *Watcher) complete() { w.gaveUp.Store(0) }

// tellState tells the observer when the state has changed.
func (w *Watcher) tellState() {
	if s := w.state(); s != w.told || !w.toldAny {
		w.told, w.toldAny = s, true
		w.spec.Observer.State(w.spec.Name(), w.spec.Kind, s)
	}
}

// problems remembers the last problem of each resource, so that only changes are told, and which lists are not believed. Safe
// for concurrent use; who reads takes no lock.
type problems struct {
	mu   sync.Mutex // one writer at a time
	last atomic.Pointer[map[string]Problem]
	held atomic.Pointer[map[string]bool]
}

// put replaces an immutable map by a copy with one more value. It reports whether that makes a difference.
func put[V comparable](in *atomic.Pointer[map[string]V], key string, value V) bool {
	next := map[string]V{}
	if now := in.Load(); now != nil {
		next = maps.Clone(*now)
	}
	if next[key] == value {
		return false
	}
	next[key] = value
	in.Store(&next)
	return true
}

// those calls f for every value of an immutable map.
func those[V comparable](in *atomic.Pointer[map[string]V], f func(string, V)) {
	if now := in.Load(); now != nil {
		for key, value := range *now {
			f(key, value)
		}
	}
}

func (p *problems) report(w *Watcher, resource string, err error) {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // the Reflector lists anew; nothing is wrong
	}
	now := problemOf(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if put(&p.last, resource, now) {
		w.spec.Observer.Problem(w.spec.Name(), resource, now, w.access.conceal(err))
	}
}

// hold notes whether a list of a resource is not believed.
func (p *problems) hold(resource string, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	put(&p.held, resource, held)
}

// any reports whether something cannot be read.
func (p *problems) any() bool {
	wrong, _ := p.now()
	return len(wrong) > 0
}

// now returns the problems that there are, nil for none, and the resources of which a list is not believed, sorted.
func (p *problems) now() (wrong map[string]Problem, held []string) {
	those(&p.last, func(resource string, now Problem) {
		if now == NoProblem {
			return
		}
		if wrong == nil {
			wrong = map[string]Problem{}
		}
		wrong[resource] = now
	})
	those(&p.held, func(resource string, is bool) {
		if is {
			held = append(held, resource)
		}
	})
	slices.Sort(held)
	return wrong, held
}

// errNotServed says that an API group or version is missing.
var errNotServed = errors.New("the API server does not serve multicluster.x-k8s.io: the CRDs of the Multi-Cluster Services API are not installed")

func problemOf(err error) Problem {
	switch {
	case err == nil:
		return NoProblem
	case errors.Is(err, errNotServed), apierrors.IsNotFound(err):
		return NotServed
	case errors.Is(err, errTooLarge):
		return TooLarge
	case apierrors.IsForbidden(err):
		return Forbidden
	case errors.Is(err, errNoCredentials), apierrors.IsUnauthorized(err):
		return Unauthorized
	default:
		return Unreachable
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// store is what a Reflector writes to: it passes on to a feed, counts, and notes proofs of life. A new one is made for
// every round; the feed's facts outlive it.
type store struct {
	w        *Watcher
	resource string
	set      func(obj any)
	remove   func(obj any)
	replace  func(items []any)
	// compact turns an API object into the item to keep from a full list.
	compact func(obj any) any
	// begin is called before a full list is asked for.
	begin func()
	// remains tells how many things there are that answers are made of, and how many would be left with a full list. nil
	// for resources that answers can do without; hold is then nil too.
	remains func(items []any) (before, after int)
	hold    *hold
	// asking is held while a full list is asked for.
	asking sync.Mutex
	// listedJustNow tells that the next watch begins where a list ended, and is not one that was interrupted.
	listedJustNow bool
	// complete is closed when the first full list has been passed on.
	complete chan struct{}
	once     sync.Once
	// reached, where there is one, is the resourceVersion up to which the watch has told everything.
	reached *atomic.Uint64
	// again, where there is one, returns when all must be listed anew, or when ctx ends.
	again func(ctx context.Context)
}

// ended waits, at the end of a Reflector, for a list that it has asked for: it does not do so itself.
func (s *store) ended() {
	s.asking.Lock()
	defer s.asking.Unlock()
}

// start is called before a full list is asked for.
func (s *store) start(ctx context.Context) {
	if s.hold != nil {
		s.hold.wait(ctx)
	}
	s.begin()
}

// doubts reports whether a full list is not to be believed.
func (s *store) doubts(items []any) bool {
	if s.hold == nil {
		return false
	}
	before, after := s.remains(items)
	was := !s.hold.since.IsZero()
	held := s.hold.doubts(before, after, time.Now())
	if held != was {
		s.w.problems.hold(s.resource, held)
		s.w.spec.Observer.Hold(s.w.spec.Name(), s.resource, held, before, after)
	}
	return held
}

func (s *store) Add(obj any) error {
	s.note("add", 1)
	s.reach(identify(obj).version)
	s.set(obj)
	return nil
}

func (s *store) Update(obj any) error {
	s.note("update", 1)
	s.reach(identify(obj).version)
	s.set(obj)
	return nil
}

func (s *store) Delete(obj any) error {
	s.note("delete", 1)
	s.reach(identify(obj).version)
	s.remove(obj)
	return nil
}

// Replace takes a full list: of items, or of objects if client-go has made it.
func (s *store) Replace(objs []any, at string) error {
	s.note("list", len(objs))
	if err := s.bound(len(objs)); err != nil {
		return err
	}
	for i, obj := range objs {
		objs[i] = s.compact(obj)
	}
	if s.doubts(objs) {
		return errHeld
	}
	s.reach(version(at))
	s.replace(objs)
	s.once.Do(func() { close(s.complete) })
	s.listedJustNow = true
	return nil
}

// resumes reports whether the watch that begins now goes on where another has ended.
func (s *store) resumes() bool {
	after := s.listedJustNow
	s.listedJustNow = false
	return !after
}

func (s *store) Resync() error { return nil }

// Bookmark implements cache.ReflectorBookmarkStore: a bookmark is a proof of life.
func (s *store) Bookmark(at string) error {
	s.w.life.proof()
	s.reach(version(at))
	return nil
}

// bound refuses a list of too many objects.
func (s *store) bound(objects int) error {
	if objects <= maxObjects {
		return nil
	}
	err := fmt.Errorf("%w: a list of more than %d %s", errTooLarge, maxObjects, s.resource)
	s.w.problems.report(s.w, s.resource, err)
	return err
}

// reach notes how far the watch has come, before what it brought is kept or dropped.
func (s *store) reach(version uint64) {
	if s.reached != nil {
		s.reached.Store(version)
	}
}

func (s *store) note(event string, objects int) {
	s.w.life.proof()
	s.w.spec.Observer.Event(s.w.spec.Name(), s.resource, event, objects)
}
