package cases

import (
	"fmt"
	"slices"
	"strings"
)

// link is how a server reaches the API server of a member.
type link string

const (
	linkGood link = ""     // directly
	linkDead link = "dead" // nothing listens there, and never did
	linkCut  link = "cut"  // through a proxy that can cut the line
)

// member is a cluster as the Corefile has it.
type member struct {
	cluster string // key of the cluster in the case file
	id      string
	link    link
	lines   []string // properties of its own
}

// setup is what a query needs of the server. Queries with equal setups share a server.
type setup struct {
	local    string // key of the cluster; "" without a `local` line
	imports  string // key of the cluster whose ServiceImports are read; "" for none
	members  []member
	zones    []string
	lines    []string
	proxied  string   // whose proxies are used, for linkCut
	cutLater []string // clusters that cannot be reached any more once the server has read them
	deadHome bool     // the local cluster cannot be reached and never could
}

// memberProperties are the properties that stand in the block of a cluster.
var memberProperties = []string{"address", "region", "weight", "allow", "namespaces"}

// newSetup puts together what the world and the query ask for. config and given are theirs, merged.
func newSetup(w *worldRun, config, given Object) (setup, error) {
	s := setup{}
	if w.Local != nil {
		s.local = *w.Local
		if w.Mode == "import" || w.Mode == "both" {
			s.imports = *w.Local
		}
	}
	for _, cluster := range sortedKeys(w.Clusters) {
		m := member{cluster: cluster, id: cluster}
		if id := w.ids[cluster]; id != "" {
			m.id = id
		}
		if !w.left[cluster] {
			s.members = append(s.members, m)
		}
	}
	if w.proxied {
		s.throughProxies(w.ID)
	}
	if err := s.give(w, given); err != nil {
		return s, err
	}
	if err := s.configure(w, config); err != nil {
		return s, err
	}
	for _, m := range s.members {
		s.deadHome = s.deadHome || m.cluster == s.local && m.link == linkDead
	}
	return s, nil
}

// unsynced, cut and gone are the names that `given` may use for the state of a cluster.
var (
	unsyncedWords = []string{"unsynced", "not_synced", "never_synced"}
	cutWords      = []string{"unreachable", "disconnected", "down", "lost", "offline"}
	goneWords     = []string{"left", "removed", "gone", "not_member"}
)

// give applies the state of the data sources.
func (s *setup) give(w *worldRun, given Object) error {
	for _, key := range sortedKeys(given) {
		which, err := s.clustersIn(given[key])
		if err != nil {
			return fmt.Errorf("the runner does not know given %s", show(given))
		}
		switch {
		case slices.Contains(unsyncedWords, key):
			s.kill(which)
		case key == "synced":
			s.kill(slices.DeleteFunc(s.clusters(), func(c string) bool { return slices.Contains(which, c) }))
		case slices.Contains(cutWords, key):
			s.cutLater = append(s.cutLater, which...)
			s.throughProxies(w.ID + "-without-" + strings.Join(s.cutLater, "-"))
		case slices.Contains(goneWords, key):
			s.members = slices.DeleteFunc(s.members, func(m member) bool { return slices.Contains(which, m.cluster) })
		default:
			return fmt.Errorf("the runner does not know given %s", show(given))
		}
	}
	return nil
}

// clustersIn reads a list of clusters, one cluster, true or "all" for every one, and false for none.
func (s *setup) clustersIn(value any) ([]string, error) {
	switch value := value.(type) {
	case bool:
		if value {
			return s.clusters(), nil
		}
		return nil, nil
	case string:
		if value == "all" {
			return s.clusters(), nil
		}
		return []string{value}, nil
	case []any:
		var all []string
		for _, v := range value {
			all = append(all, text(v))
		}
		return all, nil
	}
	return nil, fmt.Errorf("no clusters: %s", show(value))
}

func (s *setup) clusters() []string {
	var all []string
	for _, m := range s.members {
		all = append(all, m.cluster)
	}
	return all
}

// throughProxies makes the server reach every member through a proxy of that owner.
func (s *setup) throughProxies(owner string) {
	s.proxied = owner
	for i, m := range s.members {
		if m.link != linkDead {
			s.members[i].link = linkCut
		}
	}
}

func (s *setup) kill(clusters []string) {
	for i, m := range s.members {
		if slices.Contains(clusters, m.cluster) {
			s.members[i].link = linkDead
		}
	}
}

// configure adds the options of a query to those that every server has.
func (s *setup) configure(w *worldRun, config Object) error {
	lines := map[string][]string{"prefer": {"prefer none"}, "answer": {"answer all"}}
	for _, key := range sortedKeys(config) {
		value := config[key]
		if byCluster, ok := value.(map[string]any); ok {
			if err := s.configureMembers(key, byCluster); err != nil {
				return err
			}
			continue
		}
		words, on, err := arguments(value)
		if err != nil {
			return fmt.Errorf("the runner does not know config %s", show(config))
		}
		switch {
		case key == "local":
			if s.local = strings.Join(words, ""); s.local != "" {
				if _, ok := w.Clusters[s.local]; !ok {
					return fmt.Errorf("config %s: unknown cluster", show(config))
				}
			}
		case key == "zone" || key == "zones":
			s.zones = words
		case key == "serviceimports" && !on:
			s.imports = ""
		case key == "serviceimports":
			s.imports = w.home()
		case slices.Contains(memberProperties, key) && on:
			for i := range s.members {
				s.members[i].lines = append(s.members[i].lines, join(key, words))
			}
		case slices.Equal(words, []string{"ignore"}):
			lines["ignore"] = []string{"ignore " + key}
		case strings.HasPrefix(key, "ignore_") && on:
			lines["ignore"] = []string{"ignore " + strings.TrimPrefix(key, "ignore_")}
		case on:
			lines[key] = []string{join(key, words)}
		default:
			delete(lines, key)
		}
	}
	for _, key := range sortedKeys(lines) {
		s.lines = append(s.lines, lines[key]...)
	}
	return nil
}

func (s *setup) configureMembers(key string, byCluster map[string]any) error {
	for _, cluster := range sortedKeys(byCluster) {
		words, on, err := arguments(byCluster[cluster])
		i := slices.IndexFunc(s.members, func(m member) bool { return m.cluster == cluster })
		if err != nil || i < 0 {
			return fmt.Errorf("the runner does not know config %s: %s", key, show(byCluster))
		}
		if on {
			s.members[i].lines = append(s.members[i].lines, join(key, words))
		}
	}
	return nil
}

// arguments turns a value into the words that follow the name of a property. Null and false turn the property off.
func arguments(value any) (words []string, on bool, err error) {
	switch value := value.(type) {
	case nil:
		return nil, false, nil
	case bool:
		return nil, value, nil
	case []any:
		for _, v := range value {
			words = append(words, text(v))
		}
		return words, true, nil
	case map[string]any:
		return nil, false, fmt.Errorf("no words: %s", show(value))
	}
	return strings.Fields(text(value)), true, nil
}

func join(key string, words []string) string {
	return strings.Join(append([]string{key}, words...), " ")
}

// id returns the id of a cluster, "" when it is no member.
func (s *setup) id(cluster string) string {
	for _, m := range s.members {
		if m.cluster == cluster {
			return m.id
		}
	}
	return ""
}

// kubeconfigs says which file a server uses to reach the API server of a cluster.
type kubeconfigs func(cluster string, how link) string

// corefile writes the Corefile: a template for test/server. Equal setups give equal text.
func (s *setup) corefile(file kubeconfigs) string {
	var b strings.Builder
	put := func(depth int, format string, args ...any) {
		b.WriteString(strings.Repeat("    ", depth))
		fmt.Fprintf(&b, format+"\n", args...)
	}
	put(0, ".:{{.DNS}} {")
	put(1, "bind %s", listenIP)
	put(1, "ready {{.Ready}}")
	put(1, "prometheus {{.Metrics}}")
	put(1, "errors")
	put(1, "%s {", join("clusterset", s.zones))
	if s.local != "" {
		id := s.id(s.local)
		if id == "" {
			id = s.local
		}
		put(2, "local %s", id)
	}
	for _, m := range s.members {
		put(2, "cluster %s %s %s {", m.id, file(m.cluster, m.link), m.cluster)
		if !slices.ContainsFunc(m.lines, func(l string) bool { return strings.HasPrefix(l, "address ") }) {
			put(3, "address clusterip")
		}
		for _, l := range m.lines {
			put(3, "%s", l)
		}
		put(2, "}")
	}
	if s.imports != "" {
		put(2, "serviceimports %s %s", file(s.imports, s.linkOf(s.imports)), s.imports)
	}
	for _, l := range s.lines {
		put(2, "%s", l)
	}
	put(1, "}")
	put(1, "template ANY ANY . {")
	put(2, "additional \"%s 0 IN TXT unhandled\"", unhandledMark)
	put(1, "}")
	put(0, "}")
	return b.String()
}

func (s *setup) linkOf(cluster string) link {
	for _, m := range s.members {
		if m.cluster == cluster {
			return m.link
		}
	}
	return linkGood
}

// zone is where names are asked.
func (s *setup) zone() string {
	if len(s.zones) > 0 {
		return strings.TrimSuffix(s.zones[0], ".") + "."
	}
	return "clusterset.local."
}

// reaches tells whether the server has a line to the cluster from the start.
func (s *setup) reaches(cluster string) bool { return !s.deadHome && s.linkOf(cluster) != linkDead }
