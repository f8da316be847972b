package cases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// brief prints an action as "verb cluster Kind ns/name id part".
func brief(a action) string {
	words := []string{string(a.verb), a.cluster}
	if a.object != nil {
		words = append(words, a.object.String())
	}
	words = append(words, a.id)
	if a.span > 0 {
		words = append(words, a.span.String())
	}
	if a.part != nil {
		words = append(words, show(a.part))
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" || w == "{}" }), " ")
}

func TestReadSteps(t *testing.T) {
	const object = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: ns}, spec: {clusterIP: None}}"
	tests := []struct {
		name, step string
		want       []string
		wantErr    string
	}{
		{"objects of a cluster", "{id: s, apply: {east: [" + object + "]}}", []string{"apply east Service ns/web"}, ""},
		{"objects as in a world", "{id: s, clusters: {east: {objects: [" + object + "]}, west: {objects: [" + object + "]}}}",
			[]string{"apply east Service ns/web", "apply west Service ns/web"}, ""},
		{"a cluster, and objects", "{id: s, cluster: west, objects: [" + object + "]}", []string{"apply west Service ns/web"}, ""},
		{"a verb, a cluster and an object", "{id: s, action: create, cluster: west, object: " + object + "}", []string{"apply west Service ns/web"}, ""},
		{"a verb with cluster and object below", "{id: s, update: {cluster: west, object: " + object + "}}", []string{"apply west Service ns/web"}, ""},
		{"an object with its cluster beside it", "{id: s, create: [{cluster: west, apiVersion: v1, kind: Service, metadata: {name: web, namespace: ns}}]}",
			[]string{"apply west Service ns/web"}, ""},
		{"an update of some fields", "{id: s, update: {cluster: west, kind: Service, name: web, spec: {a: 1}}}",
			[]string{`apply west Service ns/web {"spec":{"a":1}}`}, ""},
		{"a patch beside the object's name", "{id: s, patch: {cluster: west, kind: Service, namespace: ns, name: web, spec: {a: 1}}}",
			[]string{`patch west Service ns/web {"spec":{"a":1}}`}, ""},
		{"a patch in a key of its own", "{id: s, cluster: west, kind: Service, name: web, patch: {spec: {a: 1}}}",
			[]string{`patch west Service ns/web {"spec":{"a":1}}`}, ""},
		{"status patches as in a world", "{id: s, status_patches: [{cluster: west, kind: Service, namespace: ns, name: lb, status: {x: 1}}]}",
			[]string{`patch west Service ns/lb {"status":{"x":1}}`}, ""},
		{"a deletion by name", "{id: s, delete: {cluster: west, kind: ServiceExport, namespace: ns, name: web}}", []string{"delete west ServiceExport ns/web"}, ""},
		{"a deletion in a flat form", "{id: s, op: delete, cluster: west, kind: ServiceExport, name: web}", []string{"delete west ServiceExport ns/web"}, ""},
		{"a deletion of a whole object", "{id: s, delete: {west: [" + object + "]}}", []string{"delete west Service ns/web"}, ""},
		{"a deletion in words", "{id: s, remove: [west ServiceExport ns/web, 'north:endpointslices/web-a']}",
			[]string{"delete west ServiceExport ns/web", "delete north EndpointSlice ns/web-a"}, ""},
		{"a deletion by kind", "{id: s, cluster: west, delete: {ServiceExport: ns/web}}", []string{"delete west ServiceExport ns/web"}, ""},
		{"all exports of a cluster", "{id: s, unexport: west}", []string{"delete west ServiceExport ns"}, ""},
		{"an export by the service's name", "{id: s, export: {cluster: west, service: web}}", []string{"apply west ServiceExport ns/web"}, ""},
		{"several clusters", "{id: s, delete: {clusters: [east, west], kind: ServiceExport, name: web}}",
			[]string{"delete east ServiceExport ns/web", "delete west ServiceExport ns/web"}, ""},
		{"imports of the local cluster", "{id: s, imports: [{kind: ServiceImport, metadata: {name: web, namespace: ns}}]}",
			[]string{"apply east ServiceImport ns/web"}, ""},
		{"an import that goes, without a cluster", "{id: s, delete: {kind: ServiceImport, name: web}}", []string{"delete east ServiceImport ns/web"}, ""},
		{"a lost cluster", "{id: s, disconnect: west}", []string{"disconnect west"}, ""},
		{"several lost clusters", "{id: s, unreachable: [west, north]}", []string{"disconnect west", "disconnect north"}, ""},
		{"a lost cluster as a state", "{id: s, state: {west: disconnected}}", []string{"disconnect west"}, ""},
		{"a lost cluster as an action", "{id: s, action: cluster_down, cluster: west}", []string{"disconnect west"}, ""},
		{"a lost cluster in a flag", "{id: s, cluster: west, down: true}", []string{"disconnect west"}, ""},
		{"a cluster that comes back", "{id: s, reconnect: {cluster: west}}", []string{"reconnect west"}, ""},
		{"a cluster that leaves", "{id: s, leave: west}", []string{"leave west"}, ""},
		{"a cluster that is removed", "{id: s, remove: west}", []string{"leave west"}, ""},
		{"a cluster that leaves, and its verb", "{id: s, op: remove_cluster, cluster: west}", []string{"leave west"}, ""},
		{"a cluster that joins again", "{id: s, join: west}", []string{"join west"}, ""},
		{"another cluster id", "{id: s, cluster_ids: {west: w2.eu}}", []string{"rename west w2.eu"}, ""},
		{"another cluster id of a named cluster", "{id: s, cluster: west, rename: w2}", []string{"rename west w2"}, ""},
		{"several changes in one step", "{id: s, delete: {cluster: east, kind: Service, name: web}, disconnect: north}",
			[]string{"delete east Service ns/web", "disconnect north"}, ""},
		{"a list of changes", "{id: s, title: two things, actions: [{op: delete, cluster: east, kind: Service, name: web}, {disconnect: north}]}",
			[]string{"delete east Service ns/web", "disconnect north"}, ""},
		{"a whole sentence", "{id: s, do: delete ServiceExport ns/web in west}", []string{"delete west ServiceExport ns/web"}, ""},
		{"a long word", "{id: s, cluster: west, event: api_server_unreachable}", []string{"disconnect west"}, ""},
		{"time that passes after the rest", "{id: s, disconnect: west, for: 3s}", []string{"disconnect west", "wait 3s"}, ""},
		{"time that passes, in seconds", "{id: s, wait: 3}", []string{"wait 3s"}, ""},
		{"too long a time", "{id: s, wait: 3h}", nil, "at most 2m0s"},
		{"an unknown action", "{id: s, cluster: west, op: sing}", nil, `unknown action "sing"`},
		{"an unknown verb", "{id: s, teleport: west}", nil, `unknown key "teleport"`},
		{"an unknown cluster", "{id: s, delete: {cluster: south, kind: Service, name: web}}", nil, `unknown cluster "south"`},
		{"no cluster", "{id: s, delete: {kind: Service, name: web}}", nil, "in which cluster?"},
		{"no name", "{id: s, patch: {cluster: west, kind: Service, spec: {}}}", nil, "of which name?"},
		{"nothing", "{id: s, note: later}", nil, "what is done"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var raw Object
			if err := yaml.Unmarshal([]byte(test.step), &raw); err != nil {
				t.Fatal(err)
			}
			local := "east"
			steps := readSteps(World{
				Mode: "direct", Local: &local, Namespaces: []string{"ns"}, Steps: []Object{raw},
				Clusters: map[string]Contents{"east": {}, "west": {}, "north": {}},
			})
			var got []string
			for _, a := range steps[0].actions {
				got = append(got, brief(a))
			}
			if err := steps[0].err; (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want one with %q", err, test.wantErr)
			}
			if test.wantErr == "" && !slices.Equal(got, test.want) {
				t.Errorf("read %q, want %q", got, test.want)
			}
			if err := steps[0].err; err != nil && !strings.Contains(err.Error(), show(raw)) {
				t.Errorf("error %v does not show the step", err)
			}
		})
	}
}

func TestSetup(t *testing.T) {
	tests := []struct {
		name         string
		mode         string
		config       string
		given        string
		want, absent []string
		wantErr      string
	}{
		{"what every server has", "direct", "{}", "{}",
			[]string{"local a.b", "cluster a.b east.kubeconfig east {", "cluster west west.kubeconfig west {", "address clusterip", "prefer none", "answer all"},
			[]string{"serviceimports"}, ""},
		{"imports", "import", "{}", "{}", []string{"serviceimports east.kubeconfig east"}, nil, ""},
		{"both sources", "both", "{}", "{}", []string{"serviceimports east.kubeconfig east", "cluster west"}, nil, ""},
		{"no local cluster", "direct", "{local: null}", "{}", []string{"cluster a.b"}, []string{"local"}, ""},
		{"another local cluster", "direct", "{local: west}", "{}", []string{"local west"}, []string{"local a.b"}, ""},
		{"a flag", "direct", "{fallthrough: true}", "{}", []string{"fallthrough\n"}, nil, ""},
		{"a flag that is off", "direct", "{fallthrough: false}", "{}", nil, []string{"fallthrough"}, ""},
		{"a number", "direct", "{ttl: 0}", "{}", []string{"ttl 0\n"}, nil, ""},
		{"a list", "direct", "{fallthrough: [example.org, example.net]}", "{}", []string{"fallthrough example.org example.net\n"}, nil, ""},
		{"empty services, in one way", "direct", "{ignore: empty_service}", "{}", []string{"ignore empty_service\n"}, nil, ""},
		{"empty services, in another way", "direct", "{ignore_empty_service: true}", "{}", []string{"ignore empty_service\n"}, nil, ""},
		{"another choice in place of the usual one", "direct", "{answer: one}", "{}", []string{"answer one\n"}, []string{"answer all"}, ""},
		{"an option of one cluster", "direct", "{weight: {west: 3}}", "{}", []string{"weight 3\n"}, nil, ""},
		{"an option of every cluster", "direct", "{address: endpoints}", "{}", []string{"address endpoints\n"}, []string{"address clusterip"}, ""},
		{"a property that nobody knows is tried", "direct", "{colour: red}", "{}", []string{"colour red\n"}, nil, ""},
		{"another zone", "direct", "{zone: example.org}", "{}", []string{"clusterset example.org {"}, nil, ""},
		{"clusters never reached", "direct", "{}", "{unsynced: [west]}", []string{"cluster west west-dead.kubeconfig west {", "cluster a.b east.kubeconfig"}, nil, ""},
		{"clusters reached", "direct", "{}", "{synced: [west]}", []string{"cluster a.b east-dead.kubeconfig", "cluster west west.kubeconfig"}, nil, ""},
		{"no cluster ever reached", "direct", "{}", "{unsynced: true}", []string{"east-dead.kubeconfig", "west-dead.kubeconfig"}, nil, ""},
		{"clusters lost", "direct", "{}", "{unreachable: west}", []string{"west-cut.kubeconfig", "east-cut.kubeconfig"}, nil, ""},
		{"clusters that left", "direct", "{}", "{left: [west]}", nil, []string{"cluster west"}, ""},
		{"a state that nobody knows", "direct", "{}", "{asleep: [west]}", nil, nil, `given {"asleep":["west"]}`},
		{"a local cluster that is none", "direct", "{local: south}", "{}", nil, nil, "unknown cluster"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var config, given Object
			if err := errors.Join(yaml.Unmarshal([]byte(test.config), &config), yaml.Unmarshal([]byte(test.given), &given)); err != nil {
				t.Fatal(err)
			}
			local := "east"
			w := newWorldRun(World{ID: "w", Mode: test.mode, Local: &local, Clusters: map[string]Contents{"east": {}, "west": {}}, ClusterIDs: map[string]string{"east": "a.b"}})
			s, err := newSetup(w, config, given)
			if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want one with %q", err, test.wantErr)
			}
			if err != nil {
				return
			}
			text := s.corefile(func(cluster string, how link) string {
				return strings.TrimSuffix(fmt.Sprintf("%s-%s", cluster, how), "-") + ".kubeconfig"
			})
			for _, line := range test.want {
				if !strings.Contains(text, line) {
					t.Errorf("no %q in\n%s", line, text)
				}
			}
			for _, line := range test.absent {
				if strings.Contains(text, "        "+line) {
					t.Errorf("%q in\n%s", line, text)
				}
			}
		})
	}
}

func TestRanks(t *testing.T) {
	tests := []struct {
		name, exports, order string
		want                 map[string]string
	}{
		{"nothing said", "{east: '', west: ''}", "[]", map[string]string{"east": "0", "west": "0"}},
		{"by the order of exports", "{east: '', west: ''}", "[west, east]", map[string]string{"east": "1", "west": "0"}},
		{"by the creation times", "{east: '2024-01-02', west: '2024-01-01'}", "[]", map[string]string{"east": "1", "west": "0"}},
		{"creation times before the order of exports", "{east: '2024-01-02', west: '2024-01-01'}", "[east, west]", map[string]string{"east": "1", "west": "0"}},
		{"equal creation times", "{east: '2024-01-01', west: '2024-01-01', north: '2023-01-01'}", "[]",
			map[string]string{"east": "1 twins", "west": "1 twins", "north": "0 twins"}},
		{"clusters that share a position", "{east: '', west: '', north: ''}", "[north, [east, west]]",
			map[string]string{"east": "1 twins", "west": "1 twins", "north": "0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var created map[string]string
			if err := yaml.Unmarshal([]byte(test.exports), &created); err != nil {
				t.Fatal(err)
			}
			w := World{ID: "w", Clusters: map[string]Contents{}}
			if err := yaml.Unmarshal([]byte(test.order), &w.ExportOrder); err != nil {
				t.Fatal(err)
			}
			for cluster, at := range created {
				o := head("ServiceExport", "ns", "web", nil)
				if at != "" {
					o.metadata()["creationTimestamp"] = at
				}
				w.Clusters[cluster] = Contents{Objects: []Object{o}}
			}
			for _, one := range newWorldRun(w).writes() {
				got := fmt.Sprint(one.rank)
				if one.twins {
					got += " twins"
				}
				if got != test.want[one.cluster] {
					t.Errorf("%s has rank %s, want %s", one.cluster, got, test.want[one.cluster])
				}
			}
		})
	}
}

func TestBatches(t *testing.T) {
	world := func(id string, namespaces ...string) World { return World{ID: id, Namespaces: namespaces} }
	got := batches([]World{world("a", "x"), world("b", "y", "z"), world("c", "z"), world("d", "x", "z"), world("e", "q")})
	var text []string
	for _, batch := range got {
		var ids []string
		for _, w := range batch {
			ids = append(ids, w.ID)
		}
		text = append(text, strings.Join(ids, " "))
	}
	if want := []string{"a b e", "c", "d"}; !slices.Equal(text, want) {
		t.Errorf("batches %q, want %q", text, want)
	}
}
