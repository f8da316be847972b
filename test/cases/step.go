package cases

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// longestWait bounds the waiting that a step may ask for.
const longestWait = 2 * time.Minute

// verb is what an action does.
type verb string

const (
	verbApply      verb = "apply"      // create or replace an object; with a part: merge it, or create an object of it
	verbPatch      verb = "patch"      // merge a part into an object
	verbDelete     verb = "delete"     // delete an object
	verbDisconnect verb = "disconnect" // the server cannot reach the cluster's API server any more
	verbReconnect  verb = "reconnect"  // it can again
	verbLeave      verb = "leave"      // the cluster is no member any more
	verbJoin       verb = "join"       // it is again
	verbRename     verb = "rename"     // the cluster has another id
	verbWait       verb = "wait"       // time passes
	verbExport     verb = "export"     // only in case files: apply the ServiceExport of a service
	verbUnexport   verb = "unexport"   // only in case files: delete it
)

// words are the ways in which case files may call a verb, lower case and with _ between words.
var words = map[verb][]string{
	verbApply: {"apply", "applied", "create", "created", "add", "added", "update", "updated", "replace", "set", "put", "change",
		"recreate", "objects", "object", "upsert", "imports", "restore_objects"},
	verbPatch: {"patch", "patched", "patches", "modify", "merge", "merge_patch", "edit", "status_patch", "status_patches",
		"patch_status", "update_status", "status"},
	verbDelete: {"delete", "deleted", "remove", "removed", "del", "withdraw", "delete_objects", "remove_objects", "deletes"},
	verbDisconnect: {"disconnect", "disconnected", "disconnects", "unreachable", "down", "cluster_down", "stop", "stopped", "kill",
		"lose", "lost", "offline", "partition", "partitioned", "cut", "disconnect_cluster", "disconnect_clusters",
		"unreachable_cluster", "unreachable_clusters", "api_down", "stop_cluster", "cluster_unreachable"},
	verbReconnect: {"reconnect", "reconnected", "reconnects", "connect", "connected", "reachable", "up", "cluster_up", "start",
		"restore", "recover", "resume", "online", "reconnect_cluster", "cluster_reachable"},
	verbLeave: {"leave", "leaves", "left", "remove_cluster", "remove_clusters", "cluster_removed", "remove_member",
		"member_leaves", "cluster_leaves", "cluster_left", "gone", "drop", "drop_cluster", "deregister", "unregister",
		"delete_cluster", "cluster_leave"},
	verbJoin: {"join", "joins", "joined", "rejoin", "rejoins", "add_cluster", "add_clusters", "add_member", "cluster_joins",
		"cluster_join"},
	verbWait:     {"wait", "for", "duration", "sleep"},
	verbRename:   {"rename", "rename_cluster", "cluster_ids", "cluster_id"},
	verbExport:   {"export", "exports", "export_service"},
	verbUnexport: {"unexport", "unexports", "delete_export", "delete_exports", "remove_export", "unexport_service"},
}

// verbOf finds the verb that a word stands for.
func verbOf(word string) (verb, bool) {
	word = strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(word))
	for v, known := range words {
		if slices.Contains(known, word) {
			return v, true
		}
	}
	// Longer words, such as cluster_is_unreachable. The order matters: reconnect holds connect.
	for _, stem := range []struct {
		part string
		verb verb
	}{
		{"reconnect", verbReconnect}, {"disconnect", verbDisconnect}, {"unreachable", verbDisconnect}, {"partition", verbDisconnect},
		{"rejoin", verbJoin}, {"leave", verbLeave}, {"depart", verbLeave}, {"unexport", verbUnexport},
	} {
		if strings.Contains(word, stem.part) {
			return stem.verb, true
		}
	}
	return "", false
}

// ofCluster tells whether the verb is about a whole cluster.
func (v verb) ofCluster() bool {
	return slices.Contains([]verb{verbDisconnect, verbReconnect, verbLeave, verbJoin, verbRename}, v)
}

// action is one change.
type action struct {
	verb    verb
	cluster string
	object  Object         // all of it to apply; kind, namespace and name are enough otherwise
	part    map[string]any // to patch
	id      string         // to rename
	span    time.Duration  // to wait
}

// step is a named list of changes.
type step struct {
	id      string
	actions []action
	err     error  // why the step cannot be done
	text    string // as the case file has it
}

// forPeople are keys of a step that change nothing.
var forPeople = []string{"id", "step", "title", "note", "notes", "why", "source", "about", "description", "comment", "what", "effect",
	"merged", "conditions", "after"}

// readSteps understands the steps of a world. A step that it cannot read carries the reason.
func readSteps(w World) []step {
	var steps []step
	for i, raw := range w.Steps {
		s := step{id: text(raw["id"]), text: show(raw)}
		if s.id == "" {
			s.id = text(raw["step"])
		}
		if s.id == "" {
			s.id = fmt.Sprint(i + 1)
		}
		r := stepReader{world: w}
		rest := maps.Clone(raw)
		for _, key := range forPeople {
			delete(rest, key)
		}
		if s.err = r.read(scope{}, rest); s.err == nil && len(r.actions) == 0 {
			s.err = fmt.Errorf("the step changes nothing that the runner understands")
		}
		if s.err != nil {
			s.err = fmt.Errorf("step %s: %w: %s", s.id, s.err, s.text)
		}
		s.actions = r.actions
		steps = append(steps, s)
	}
	return steps
}

// scope is what surrounding levels of a step have said.
type scope struct {
	verb                              verb
	clusters                          []string
	apiVersion, kind, namespace, name string
}

// stepReader collects the actions of a step.
type stepReader struct {
	world   World
	actions []action
}

// read understands a list, a mapping or a string.
func (r *stepReader) read(in scope, node any) error {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			if err := r.read(in, n); err != nil {
				return err
			}
		}
		return nil
	case Object:
		return r.readMapping(in, node)
	case map[string]any:
		return r.readMapping(in, node)
	case string:
		return r.readWords(in, node)
	case nil, bool:
		if node == false {
			return nil
		}
		return r.emit(in, nil)
	}
	return fmt.Errorf("unknown form %s", show(node))
}

// readMapping reads a whole object, or keys that say where, what and how.
func (r *stepReader) readMapping(in scope, node Object) error {
	if node.isObject() && !hasVerb(node) {
		return r.readObject(in, node)
	}
	rest, err := in.narrow(r.world, node)
	if err != nil {
		return err
	}
	in, node = rest.scope, rest.node

	part := map[string]any{}
	var waits []any // after everything else
	said := false   // whether the keys below have said what is done
	for _, key := range sortedKeys(node) {
		value := node[key]
		v, isVerb := verbOf(key)
		kind, isKind := kindOf(key)
		_, isCluster := r.world.Clusters[key]
		inner := in
		switch {
		case isCluster:
			inner.clusters = []string{key}
		case key == "spec" || key == "metadata" || key == "status" && in.kind != "" && in.verb != "":
			part[key] = value
			continue
		case key == "imports":
			inner.verb, inner.clusters = verbApply, r.local()
		case key == "status" && in.kind != "":
			part[key], in.verb = value, verbPatch
			continue
		case (key == "patch" || key == "merge") && in.kind != "" && in.name != "":
			return r.patch(in, value)
		case key == "objects" || key == "object" || key == "resources" || key == "manifests" || key == "items":
			if inner.verb == "" {
				inner.verb = verbApply
			}
		case isVerb && v == verbRename:
			if err := r.rename(in, value); err != nil {
				return err
			}
			said = true
			continue
		case isVerb && v == verbWait:
			waits = append(waits, value)
			continue
		case isVerb:
			inner.verb = v
		case isKind:
			inner.kind = kind
		case key == "clusters" || key == "changes" || key == "actions" || key == "members" || slices.Contains(actionKeys, key):
		default:
			return fmt.Errorf("unknown key %q", key)
		}
		if err := r.read(inner, value); err != nil {
			return err
		}
		said = true
	}
	if len(part) > 0 || !said && (in.verb != "" || len(waits) == 0) {
		if err := r.emit(in, part); err != nil {
			return err
		}
	}
	return r.wait(waits)
}

// wait reads "60s" or a number of seconds.
func (r *stepReader) wait(spans []any) error {
	for _, value := range spans {
		span, err := time.ParseDuration(text(value))
		if err != nil {
			span, err = time.ParseDuration(text(value) + "s")
		}
		if err != nil || span < 0 || span > longestWait {
			return fmt.Errorf("wait for %s: not a time of at most %s", show(value), longestWait)
		}
		r.actions = append(r.actions, action{verb: verbWait, span: span})
	}
	return nil
}

// hasVerb tells whether an object that has kind and metadata says more than an object does.
func hasVerb(o Object) bool {
	for key := range o {
		if _, ok := verbOf(key); ok && key != "status" || slices.Contains(actionKeys, key) || key == "cluster" {
			return true
		}
	}
	return false
}

// actionKeys hold a verb as their value.
var actionKeys = []string{"action", "op", "operation", "verb", "do", "event", "state"}

// narrowed is a scope with what a mapping adds to it, and the keys that are left.
type narrowed struct {
	scope scope
	node  Object
}

// narrow takes the keys out of a mapping that say where and what.
func (in scope) narrow(w World, node Object) (narrowed, error) {
	rest := maps.Clone(node)
	if node.isObject() { // an object with a verb or a cluster beside it
		object := Object{}
		for _, key := range []string{"apiVersion", "kind", "metadata", "spec", "status", "ports", "endpoints", "addressType"} {
			if value, ok := node[key]; ok {
				object[key] = value
				delete(rest, key)
			}
		}
		rest["object"] = map[string]any(object)
	}
	for _, key := range []string{"cluster", "clusters", "in", "at", "on"} {
		switch value := rest[key].(type) {
		case string:
			in.clusters = []string{value}
			delete(rest, key)
		case []any:
			in.clusters = nil
			for _, v := range value {
				in.clusters = append(in.clusters, text(v))
			}
			delete(rest, key)
		}
	}
	for _, c := range in.clusters {
		if _, ok := w.Clusters[c]; !ok {
			return narrowed{}, fmt.Errorf("unknown cluster %q", c)
		}
	}
	for _, key := range actionKeys {
		word, ok := rest[key].(string)
		if !ok {
			continue
		}
		v, known := verbOf(word)
		if !known && strings.Contains(word, " ") {
			continue // several words, read later
		}
		if !known {
			return narrowed{}, fmt.Errorf("unknown action %q", word)
		}
		in.verb = v
		delete(rest, key)
	}
	take := func(into *string, keys ...string) {
		for _, key := range keys {
			if value, ok := rest[key]; ok && text(value) != "" {
				*into = text(value)
				delete(rest, key)
			}
		}
	}
	take(&in.apiVersion, "apiVersion")
	take(&in.namespace, "namespace", "ns")
	take(&in.name, "name", "service")
	if v, ok := verbOf(text(rest["type"])); ok && in.verb == "" {
		in.verb = v
		delete(rest, "type")
	}
	var kind string
	if take(&kind, "kind", "resource", "type"); kind != "" {
		known, ok := kindOf(kind)
		if !ok {
			known = kind
		}
		in.kind = known
	}
	if ns, name, ok := strings.Cut(in.name, "/"); ok {
		in.namespace, in.name = ns, name
	}
	if in.kind == "" && in.name != "" && strings.Contains(in.name, " ") {
		in.name = "" // the title of the step
	}
	return narrowed{in, rest}, nil
}

// readObject acts on a whole object.
func (r *stepReader) readObject(in scope, o Object) error {
	v := in.verb
	switch {
	case v == "":
		v = verbApply
	case v == verbExport || v == verbUnexport || v.ofCluster():
		return fmt.Errorf("%s with a whole object", v)
	}
	where, err := r.where(in, o.kind())
	if err != nil {
		return err
	}
	for _, cluster := range where {
		r.actions = append(r.actions, action{verb: v, cluster: cluster, object: o, part: r.partOf(v, o)})
	}
	return nil
}

// partOf is what a patch merges when it is given as an object.
func (r *stepReader) partOf(v verb, o Object) map[string]any {
	if v != verbPatch {
		return nil
	}
	part := maps.Clone(o)
	delete(part, "kind")
	delete(part, "apiVersion")
	return part
}

// readWords reads "west", "disconnected", "ServiceExport w33/cart", "delete ServiceExport cart in west" and the like.
func (r *stepReader) readWords(in scope, s string) error {
	for _, word := range strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == '/' || c == ':' || c == ',' }) {
		_, isCluster := r.world.Clusters[word]
		kind, isKind := kindOf(word)
		v, isVerb := verbOf(word)
		switch {
		case slices.Contains([]string{"in", "from", "of", "to", "on", "at", "the", "cluster"}, word):
		case isCluster && (in.kind == "" || in.name != "" && len(in.clusters) == 0):
			in.clusters = []string{word}
		case isKind && in.kind == "":
			in.kind = kind
		case in.kind == "" && isVerb && in.verb == "":
			in.verb = v
		case in.name == "":
			in.name = word
		case in.namespace == "":
			in.namespace, in.name = in.name, word
		default:
			return fmt.Errorf("unknown form %q", s)
		}
	}
	return r.emit(in, nil)
}

// emit adds the actions that the scope describes, with a part of an object to merge or apply.
func (r *stepReader) emit(in scope, part map[string]any) error {
	switch {
	case in.verb == verbDelete && in.kind == "" && in.name == "" && len(in.clusters) > 0:
		in.verb = verbLeave
	case in.verb == verbApply && in.kind == "" && in.name == "" && len(in.clusters) > 0:
		in.verb = verbJoin
	case in.verb == verbExport || in.verb == verbUnexport:
		in.kind = "ServiceExport"
		in.verb = map[verb]verb{verbExport: verbApply, verbUnexport: verbDelete}[in.verb]
	case in.verb == "" && len(part) > 0:
		in.verb = verbPatch
	}
	if in.verb.ofCluster() {
		if len(in.clusters) == 0 {
			return fmt.Errorf("%s: which cluster?", in.verb)
		}
		for _, cluster := range in.clusters {
			r.actions = append(r.actions, action{verb: in.verb, cluster: cluster})
		}
		return nil
	}
	return r.emitObject(in, part)
}

func (r *stepReader) emitObject(in scope, part map[string]any) error {
	if in.verb == "" || in.kind == "" {
		return fmt.Errorf("what is done (%q) to which kind (%q)?", in.verb, in.kind)
	}
	if in.namespace == "" && in.kind != "Namespace" {
		if len(r.world.Namespaces) != 1 {
			return fmt.Errorf("%s %s: in which namespace?", in.verb, in.kind)
		}
		in.namespace = r.world.Namespaces[0]
	}
	if in.name == "" && in.verb != verbDelete {
		return fmt.Errorf("%s %s: of which name?", in.verb, in.kind)
	}
	o := Object{"kind": in.kind, "metadata": map[string]any{"name": in.name}}
	if in.kind != "Namespace" {
		o.metadata()["namespace"] = in.namespace
	}
	if in.apiVersion != "" {
		o["apiVersion"] = in.apiVersion
	}
	if in.verb == verbApply {
		for key, value := range part {
			if key != "metadata" {
				o[key] = value
			}
		}
	}
	where, err := r.where(in, in.kind)
	if err != nil {
		return err
	}
	for _, cluster := range where {
		r.actions = append(r.actions, action{verb: in.verb, cluster: cluster, object: o, part: part})
	}
	return nil
}

// patch reads the part that is merged into the object that the scope names.
func (r *stepReader) patch(in scope, value any) error {
	part, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("a patch must be a mapping: %s", show(value))
	}
	in.verb = verbPatch
	return r.emitObject(in, part)
}

// rename reads {west: west-2}, or the new id of the cluster in the scope.
func (r *stepReader) rename(in scope, value any) error {
	switch value := value.(type) {
	case map[string]any:
		for _, cluster := range sortedKeys(value) {
			if _, ok := r.world.Clusters[cluster]; !ok {
				return fmt.Errorf("unknown cluster %q", cluster)
			}
			r.actions = append(r.actions, action{verb: verbRename, cluster: cluster, id: text(value[cluster])})
		}
		return nil
	case string:
		if len(in.clusters) == 1 {
			r.actions = append(r.actions, action{verb: verbRename, cluster: in.clusters[0], id: value})
			return nil
		}
	}
	return fmt.Errorf("a new cluster id for which cluster? %s", show(value))
}

// where returns the clusters that the scope names. A ServiceImport without a cluster is the local one's.
func (r *stepReader) where(in scope, kind string) ([]string, error) {
	if len(in.clusters) > 0 {
		return in.clusters, nil
	}
	if kind == "ServiceImport" || r.world.Mode == "import" {
		return r.local(), nil
	}
	return nil, fmt.Errorf("%s %s: in which cluster?", in.verb, kind)
}

func (r *stepReader) local() []string {
	if r.world.Local == nil {
		return nil
	}
	return []string{*r.world.Local}
}
