package cases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// apart is how far two creations must be from each other to differ in creationTimestamp, which counts in seconds.
const apart = 1100 * time.Millisecond

// worldRun is a world with what has become of it.
type worldRun struct {
	World
	steps   []step
	ids     map[string]string // cluster ids that differ from the key
	left    map[string]bool   // clusters that are no member
	cut     map[string]bool   // clusters that the server cannot reach
	proxied bool              // some query needs a line cut
	// refused are objects that an API server did not take.
	refused []error
	// lastExport is when a ServiceExport was last created.
	lastExport time.Time
}

func newWorldRun(w World) *worldRun {
	run := &worldRun{World: w, steps: readSteps(w), ids: maps.Clone(w.ClusterIDs), left: map[string]bool{}, cut: map[string]bool{}}
	if run.ids == nil {
		run.ids = map[string]string{}
	}
	for n := range run.steps {
		run.proxied = run.proxied || run.cutsInStep(n)
	}
	return run
}

// cutsInStep tells whether the n-th step disconnects a cluster.
func (w *worldRun) cutsInStep(n int) bool {
	return n < len(w.steps) && slices.ContainsFunc(w.steps[n].actions, func(a action) bool { return a.verb == verbDisconnect })
}

// home is the local cluster, "" for none.
func (w *worldRun) home() string {
	if w.Local == nil {
		return ""
	}
	return *w.Local
}

// namespaces are those that the world has objects in.
func (w *worldRun) namespaces() []string {
	all := slices.Clone(w.Namespaces)
	add := func(o Object) {
		if o.kind() == "Namespace" {
			all = append(all, o.name())
		} else if o.namespace() != "" {
			all = append(all, o.namespace())
		}
	}
	for _, c := range w.Clusters {
		for _, o := range c.Objects {
			add(o)
		}
	}
	for _, o := range w.Imports {
		add(o)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// write is one object to create.
type write struct {
	world   *worldRun
	cluster string
	object  Object
	// rank orders the creation of objects of equal kind and name in several clusters; those of different ranks are
	// created more than a second apart.
	rank int
	// twins says that those of equal rank must get the same creation time.
	twins bool
}

func (w write) key() string { return w.world.ID + " " + w.object.String() }

// writes lists the objects of the world, with the order in which its creation times and its export_order want them.
func (w *worldRun) writes() []write {
	var all []write
	byKey := map[string][]int{}
	for _, cluster := range sortedKeys(w.Clusters) {
		for _, o := range w.Clusters[cluster].Objects {
			all = append(all, write{world: w, cluster: cluster, object: o})
		}
	}
	for i, one := range all {
		byKey[one.key()] = append(byKey[one.key()], i)
	}
	for _, same := range byKey {
		w.rank(all, same)
	}
	for _, o := range w.Imports {
		all = append(all, write{world: w, cluster: w.home(), object: o})
	}
	return all
}

// rank orders the same object of several clusters: by creation times where all have one, else by export_order.
func (w *worldRun) rank(all []write, same []int) {
	var times []string
	for _, i := range same {
		times = append(times, all[i].object.created())
	}
	if !slices.Contains(times, "") {
		distinct := slices.Clone(times)
		slices.Sort(distinct)
		distinct = slices.Compact(distinct)
		for n, i := range same {
			all[i].rank = slices.Index(distinct, times[n])
			all[i].twins = len(distinct) < len(times)
		}
		return
	}
	for _, i := range same {
		if all[i].object.kind() == "ServiceExport" {
			all[i].rank, all[i].twins = w.exportRank(all[i].cluster)
		}
	}
}

// exportRank is the position of a cluster in export_order; clusters that share a position are in a list of their own
// there. Others come last.
func (w *worldRun) exportRank(cluster string) (rank int, twins bool) {
	for i, entry := range w.ExportOrder {
		switch entry := entry.(type) {
		case string:
			if entry == cluster {
				return i, false
			}
		case []any:
			if slices.Contains(entry, any(cluster)) {
				return i, true
			}
		}
	}
	return len(w.ExportOrder), false
}

// id is the cluster's id.
func (w *worldRun) id(cluster string) string { return cmp.Or(w.ids[cluster], cluster) }

// load creates the objects of the worlds. What an API server refuses is noted in its world; the error is for what stops
// everything.
func load(ctx context.Context, planes map[string]*plane, worlds []*worldRun) error {
	byRank := map[int][]write{}
	for _, w := range worlds {
		for _, one := range w.writes() {
			byRank[one.rank] = append(byRank[one.rank], one)
		}
	}
	ranks := slices.Sorted(maps.Keys(byRank))
	for i, rank := range ranks {
		if i > 0 {
			if err := waitUntil(ctx, time.Now().Add(apart)); err != nil {
				return err
			}
		}
		loadRank(ctx, planes, byRank[rank])
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, w := range worlds {
		w.lastExport = time.Now()
		for _, s := range readSteps(World{ID: w.ID, Local: w.Local, Mode: w.Mode, Namespaces: w.Namespaces, Clusters: w.Clusters, Steps: statusSteps(w)}) {
			for _, a := range s.actions {
				w.refuse(w.do(ctx, planes, a))
			}
			w.refuse(s.err)
		}
	}
	return nil
}

// statusSteps presents the status_patches of a world as steps, which have the same forms.
func statusSteps(w *worldRun) []Object {
	var steps []Object
	for _, p := range w.StatusPatches {
		steps = append(steps, Object{"id": "status_patches", "patch": map[string]any(p)})
	}
	return steps
}

func (w *worldRun) refuse(err error) {
	if err != nil {
		w.refused = append(w.refused, err)
	}
}

// loadRank creates objects: namespaces first, exports last. The exports of a service are created in the order of the
// cluster ids, so that those whose creation times say nothing are never younger in a lower id.
func loadRank(ctx context.Context, planes map[string]*plane, all []write) {
	isKind := func(kind string) func(write) bool { return func(w write) bool { return w.object.kind() == kind } }
	namespaces, others, exports := pick(all, isKind("Namespace")), []write{}, pick(all, isKind("ServiceExport"))
	for _, one := range all {
		if one.object.kind() != "Namespace" && one.object.kind() != "ServiceExport" {
			others = append(others, one)
		}
	}
	for _, group := range [][]write{namespaces, others} {
		loadParallel(ctx, planes, group)
	}
	slices.SortStableFunc(exports, func(a, b write) int {
		return cmp.Compare(a.world.id(a.cluster), b.world.id(b.cluster))
	})
	twins := map[string][]write{}
	for _, one := range exports {
		if one.twins {
			twins[one.key()] = append(twins[one.key()], one)
			continue
		}
		one.world.refuse(create(ctx, planes, one))
	}
	for _, key := range sortedKeys(twins) {
		group := twins[key]
		group[0].world.refuse(createTwins(ctx, planes, group))
	}
}

func pick(all []write, is func(write) bool) []write {
	return slices.DeleteFunc(slices.Clone(all), func(w write) bool { return !is(w) })
}

// loadParallel creates objects in all clusters at the same time, in their order within a cluster.
func loadParallel(ctx context.Context, planes map[string]*plane, all []write) {
	var group sync.WaitGroup
	errs := make([]error, len(all))
	for _, cluster := range sortedKeys(planes) {
		group.Go(func() {
			for i, one := range all {
				if one.cluster == cluster {
					errs[i] = create(ctx, planes, one)
				}
			}
		})
	}
	group.Wait()
	for i, one := range all {
		if planes[one.cluster] == nil {
			errs[i] = create(ctx, planes, one)
		}
		one.world.refuse(errs[i])
	}
}

func create(ctx context.Context, planes map[string]*plane, one write) error {
	p := planes[one.cluster]
	if p == nil {
		return fmt.Errorf("write %s: the world names no cluster for it (%q)", one.object, one.cluster)
	}
	_, err := p.put(ctx, one.object)
	return err
}

func createTwins(ctx context.Context, planes map[string]*plane, group []write) error {
	objects := map[*plane]Object{}
	var in []*plane
	for _, one := range group {
		in = append(in, planes[one.cluster])
		objects[planes[one.cluster]] = one.object
	}
	return createdTogether(ctx, in, func(p *plane) Object { return objects[p] })
}

// do does one action. Exports are created more than a second after the last one of the world.
func (w *worldRun) do(ctx context.Context, planes map[string]*plane, a action) error {
	switch a.verb {
	case verbDisconnect, verbReconnect:
		w.cut[a.cluster] = a.verb == verbDisconnect
		return nil
	case verbLeave, verbJoin:
		w.left[a.cluster] = a.verb == verbLeave
		return nil
	case verbRename:
		w.ids[a.cluster] = a.id
		return nil
	case verbWait:
		return waitUntil(ctx, time.Now().Add(a.span))
	}
	p := planes[a.cluster]
	switch {
	case p == nil:
		return fmt.Errorf("%s %s: no cluster %q", a.verb, a.object, a.cluster)
	case a.verb == verbDelete:
		return p.remove(ctx, a.object)
	case a.verb == verbPatch:
		return p.patch(ctx, a.object, a.part)
	case len(a.part) > 0 && p.patch(ctx, a.object, a.part) == nil:
		return nil
	}
	if a.object.kind() == "ServiceExport" {
		if err := waitUntil(ctx, w.lastExport.Add(apart)); err != nil {
			return err
		}
		defer func() { w.lastExport = time.Now() }()
	}
	_, err := p.put(ctx, a.object)
	return err
}

// doStep does the n-th step, if the world has it and it can be done.
func (w *worldRun) doStep(ctx context.Context, planes map[string]*plane, n int) {
	if n >= len(w.steps) || w.steps[n].err != nil {
		return
	}
	var errs []error
	for _, a := range w.steps[n].actions {
		errs = append(errs, w.do(ctx, planes, a))
	}
	if err := errors.Join(errs...); err != nil {
		w.steps[n].err = fmt.Errorf("step %s: %w: %s", w.steps[n].id, err, w.steps[n].text)
	}
}

// unload deletes the namespaces of the world and what is in them.
func (w *worldRun) unload(ctx context.Context, planes map[string]*plane) error {
	var errs []error
	for _, name := range w.namespaces() {
		for _, cluster := range sortedKeys(planes) {
			namespace := head("Namespace", "", name, nil)
			if there, err := planes[cluster].has(ctx, namespace); err != nil || !there {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, planes[cluster].remove(ctx, namespace))
		}
	}
	return errors.Join(errs...)
}

// stageOf returns how many steps come before a query, or why that is not known.
func (w *worldRun) stageOf(q Query) (int, error) {
	stage := 0
	for _, id := range q.After {
		i := slices.IndexFunc(w.steps, func(s step) bool { return s.id == id })
		if i < 0 {
			return 0, fmt.Errorf("the world has no step %q", id)
		}
		stage = max(stage, i+1)
	}
	for _, s := range w.steps[:stage] {
		if s.err != nil {
			return 0, s.err
		}
	}
	return stage, nil
}
