package clusterset

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/lease"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/state"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/topology"
	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// inline is a kubeconfig as a dynamic member has it.
func inline(token string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "u", "user": {"token": %q}}],
"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`, token)
}

// onlooker is a rosterUser that remembers.
type onlooker struct {
	members map[topology.ClusterID]*member
	late    map[topology.ClusterID]bool
	calls   []string
	all     bool
}

func newOnlooker() *onlooker {
	return &onlooker{members: map[topology.ClusterID]*member{}, late: map[topology.ClusterID]bool{}}
}

func (o *onlooker) setMember(m *member, joins bool) {
	o.members[m.ID], o.late[m.ID] = m, joins
	o.calls = append(o.calls, "+"+string(m.ID))
}

func (o *onlooker) dropMember(id topology.ClusterID) {
	delete(o.members, id)
	o.calls = append(o.calls, "-"+string(id))
}

func (o *onlooker) knowsMembers() { o.all = true }

// bare is a roster that nobody feeds but the test.
func bare() *roster {
	return &roster{wake: make(chan struct{}, 1), known: map[string]*described{}, members: map[topology.ClusterID]*elected{}}
}

func secret(created int64, pairs ...string) *watch.MemberSecret {
	s := &watch.MemberSecret{Created: created, Data: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		s.Data[pairs[i]] = pairs[i+1]
	}
	return s
}

func TestRoster(t *testing.T) {
	type step struct {
		name   string
		secret *watch.MemberSecret
	}
	good := func(created int64, more ...string) *watch.MemberSecret {
		return secret(created, append([]string{"kubeconfig", inline("t"), "address", "clusterip"}, more...)...)
	}
	for _, row := range []struct {
		what    string
		steps   []step
		want    string // members and what is told of them
		refused map[refusal]int
		calls   string // since the first list
	}{
		{"members come", []step{{"west", good(1)}, {"north.eu", good(1)}}, "north.eu west", nil, "+west +north.eu"},
		{"a key can say the id", []step{{"some-secret", good(1, "cluster", "west\n")}}, "west", nil, "+west"},
		{"members go", []step{{"west", good(1)}, {"west", nil}}, "", nil, "+west -west"},
		{"the same once more is no news", []step{{"west", good(1)}, {"west", good(1)}}, "west", nil, "+west"},
		{"a change is told", []step{{"west", good(1)}, {"west", good(1, "weight", "7")}}, "west", nil, "+west +west"},
		{"a name that is no id is refused", []step{{"a.b.c", good(1)}}, "", map[refusal]int{badID: 1}, ""},
		{"no kubeconfig is refused", []step{{"west", secret(1, "address", "clusterip")}}, "", map[refusal]int{badKubeconfig: 1}, ""},
		{"a kubeconfig that runs programs is refused", []step{{"west", secret(1, "kubeconfig", strings.Replace(inline("t"), `"token": "t"`, `"exec": {"command": "sh", "apiVersion": "client.authentication.k8s.io/v1"}`, 1))}}, "", map[refusal]int{badKubeconfig: 1}, ""},
		{"a bad setting is refused", []step{{"west", good(1, "weight", "much")}}, "", map[refusal]int{badSetting: 1}, ""},
		{"the last good one goes on", []step{{"west", good(1)}, {"west", good(1, "weight", "much")}}, "west", map[refusal]int{badSetting: 1}, "+west"},
		{"of two the older one wins", []step{{"a", good(2, "cluster", "west")}, {"b", good(1, "cluster", "west")}}, "west", map[refusal]int{duplicate: 1}, "+west +west"},
		{"of two of an age the first by name", []step{{"b", good(1, "cluster", "west")}, {"a", good(1, "cluster", "west", "weight", "9")}}, "west", map[refusal]int{duplicate: 1}, "+west +west"},
		{"the other one takes its place", []step{{"a", good(1, "cluster", "west")}, {"b", good(2, "cluster", "west")}, {"a", nil}}, "west", nil, "+west +west"},
		{"an id that changes is refused, and the old one goes on", []step{{"a", good(1, "cluster", "west")}, {"a", good(1, "cluster", "east")}}, "west", map[refusal]int{badID: 1}, "+west"},
		{"without an address it is a member for headless services", []step{{"west", secret(1, "kubeconfig", inline("t"))}}, "west", nil, "+west"},
	} {
		t.Run(row.what, func(t *testing.T) {
			r, o := bare(), newOnlooker()
			r.join(o)
			r.SetSecretsListed()
			r.work()
			if !o.all {
				t.Error("It does not say that all has been told")
			}
			for _, s := range row.steps {
				r.ApplySecret(s.name, s.secret)
				r.work()
			}
			got := make([]string, 0, len(o.members))
			for _, id := range slices.Sorted(maps.Keys(o.members)) {
				got = append(got, string(id))
			}
			if strings.Join(got, " ") != row.want {
				t.Errorf("Members are %q, want %q", got, row.want)
			}
			if calls := strings.Join(o.calls, " "); calls != row.calls {
				t.Errorf("Told %q, want %q", calls, row.calls)
			}
			n, refused := r.counts()
			if n != len(got) || !maps.Equal(refused, row.refused) {
				t.Errorf("It counts %d members and refused %v, want %v", n, refused, row.refused)
			}
			late := newOnlooker()
			r.join(late)
			if len(late.members) != len(got) || !late.all {
				t.Errorf("A late world is told %v", late.members)
			}
		})
	}
}

func TestNothingIsToldBeforeAllIsListed(t *testing.T) {
	r, o := bare(), newOnlooker()
	r.join(o)
	r.ApplySecret("west", secret(1, "kubeconfig", inline("t")))
	r.work()
	if len(o.members) != 0 || o.all {
		t.Errorf("Told %v", o.members)
	}
	r.SetSecretsListed()
	r.work()
	r.ApplySecret("late", secret(2, "kubeconfig", inline("t")))
	r.work()
	if len(o.members) != 2 || o.late["west"] || !o.late["late"] || !o.all {
		t.Errorf("Told %v, late %v", o.members, o.late)
	}
	r.leave(o)
	r.ApplySecret("later", secret(3, "kubeconfig", inline("t")))
	r.work()
	if len(o.members) != 2 {
		t.Error("One that has left is told")
	}
}

func TestTooManyMembers(t *testing.T) {
	r, o := bare(), newOnlooker()
	r.join(o)
	r.SetSecretsListed()
	for i := range maxDynamic + 3 {
		r.ApplySecret(fmt.Sprintf("m%d", i), secret(int64(i), "kubeconfig", inline("t")))
	}
	r.work()
	if _, refused := r.counts(); len(o.members) != maxDynamic || refused[tooMany] != 3 {
		t.Errorf("%d members, refused %v", len(o.members), refused)
	}
	r.ApplySecret("m0", nil)
	r.work()
	if _, refused := r.counts(); len(o.members) != maxDynamic || refused[tooMany] != 2 {
		t.Errorf("After one has gone, %d members, refused %v", len(o.members), refused)
	}
}

func TestSettingsOfADynamicMember(t *testing.T) {
	m, why, err := parseMember("west", secret(1, "kubeconfig", inline("t"), "address", "endpoints any_port\n", "region", "eu",
		"weight", "7", "allow", "10.0.0.0/8 fd00::/8", "namespaces", "shop  data").Data)
	if err != nil || why != accepted {
		t.Fatal(why, err)
	}
	if m.ID != "west" || m.Address != mcs.AddressEndpoints || !m.AnyPort || m.NoAddress || m.region != "eu" || *m.weight != 7 ||
		!slices.Equal(m.Allow, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}) ||
		!slices.Equal(m.Namespaces, []string{"shop", "data"}) {
		t.Errorf("Got %+v", m)
	}
	if _, _, err := parseMember("west", secret(1, "kubeconfig", `{"users": "hunter2"}`).Data); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("The error is %v", err)
	}
}

// TestMembersOfAFolder mounts a Secret as kubelet does, whose content changes by a symbolic link.
func TestMembersOfAFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(version, weight string) {
		t.Helper()
		folder := filepath.Join(dir, "west", version)
		for name, text := range map[string]string{"kubeconfig": inline("t"), "weight": weight} {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(dir, "west", "..data_tmp")
		if err := os.Symlink(version, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "west", "..data")); err != nil {
			t.Fatal(err)
		}
	}
	write("..one", "1")
	for _, name := range []string{"kubeconfig", "weight"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, "west", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("no member"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, o := bare(), newOnlooker()
	r.spec.dir = dir
	r.join(o)
	r.setListed()
	known := map[string]bool{}
	look := func() {
		t.Helper()
		var err error
		if known, err = r.look(known); err != nil {
			t.Fatal(err)
		}
		r.work()
	}
	look()
	if m := o.members["west"]; len(o.members) != 1 || m == nil || *m.weight != 1 {
		t.Fatalf("Members are %v", o.members)
	}
	write("..two", "2")
	look()
	if *o.members["west"].weight != 2 {
		t.Error("The change was not noticed")
	}
	if err := os.RemoveAll(filepath.Join(dir, "west")); err != nil {
		t.Fatal(err)
	}
	look()
	if len(o.members) != 0 {
		t.Errorf("Members are %v", o.members)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := r.look(known); err == nil {
		t.Error("A folder that is gone is no error, so all members would go")
	}
}

// TestWorldsFollowARoster lets a member come, change and go in a folder, beside one of the Corefile.
func TestWorldsFollowARoster(t *testing.T) {
	dir := t.TempDir()
	put := func(id, file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, id, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("west", "kubeconfig", inline("one"))
	put("east", "kubeconfig", inline("one")) // in the Corefile already
	s := newTestStore(t)
	c := configOf(t, "east")
	c.dynamic = &rosterSpec{dir: dir}
	mine, next := &lease.Tenant{}, &lease.Tenant{}
	w, key := s.mustAcquire(t, mine, c)
	eventually := func(what func() string) {
		t.Helper()
		said := what()
		for deadline := time.Now().Add(20 * time.Second); said != "" && time.Now().Before(deadline); said = what() {
			time.Sleep(5 * time.Millisecond)
		}
		if said != "" {
			t.Fatal(said)
		}
	}
	watched := func(want ...string) {
		t.Helper()
		eventually(func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			var got []string
			for k := range s.watchers {
				if k.kind == mcs.Exports {
					got = append(got, string(k.cluster))
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Sprintf("Watched are %v, want %v", got, want)
			}
			return ""
		})
	}
	unsynced := func(want ...topology.ClusterID) {
		t.Helper()
		w.publish() // a member is watched a moment before the snapshot that has it is published
		var got []topology.ClusterID
		for _, source := range w.snapshot.Load().Unsynced() {
			if source.Kind == mcs.Exports {
				got = append(got, source.Cluster)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("Waited for are %v, want %v", got, want)
		}
	}
	watched("east", "west")
	unsynced("east", "west")
	put("north", "kubeconfig", inline("two"))
	put("north", "weight", "5")
	watched("east", "north", "west")
	eventually(func() string {
		if weight := handlerOf(w).view.current(handlerOf(w)).Weights["north"]; weight != 5 {
			return fmt.Sprintf("Its weight is %d", weight)
		}
		return ""
	})
	unsynced("east", "west") // a newcomer does not make unknown names uncertain
	// A reload with another Corefile: the new world has the members at once.
	other := configOf(t, "east")
	other.dynamic, other.ttl, other.members[0].Namespaces = c.dynamic, 9, []string{"shop"}
	w2, key2 := s.mustAcquire(t, next, other)
	if w2 == w || w2.member("west") == nil || w2.member("north") == nil {
		t.Error("The new world does not know the members")
	}
	s.worlds.Release(mine, key)
	if err := os.RemoveAll(filepath.Join(dir, "west")); err != nil {
		t.Fatal(err)
	}
	watched("east", "north")
	s.worlds.Release(next, key2)
	if len(s.rosters) != 0 || len(s.watchers) != 0 {
		t.Errorf("Left are %d rosters and %d watchers", len(s.rosters), len(s.watchers))
	}
}

// TestMembersBySecretAreRememberedAfterARestart starts without the API server that has the Secrets, nor any other.
func TestMembersBySecretAreRememberedAfterARestart(t *testing.T) {
	dir := t.TempDir()
	connection := deadEnd(t, "east")
	spec := rosterSpec{connection: &connection, namespace: "members", state: dir}
	first, err := newRoster(spec)
	if err != nil {
		t.Fatal(err)
	}
	first.ApplySecret("west", secret(1, "kubeconfig", inline("t"), "address", "clusterip", "weight", "7", "region", "us"))
	first.ApplySecret("north.secret", secret(2, "cluster", "north", "kubeconfig", inline("t")))
	first.SetSecretsListed()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, err := state.Read(dir, spec.source()); err == nil && len(r.Facts.Members) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("The members are not written")
		}
	}
	first.stop()
	text, err := os.ReadFile(state.Path(dir, spec.source()))
	if err != nil || strings.Contains(string(text), "kubeconfig") || strings.Contains(string(text), "token") {
		t.Fatalf("The file has what it must not have: %v\n%s", err, text)
	}
	key := mcs.ServiceKey{Namespace: "shop", Name: "web"}
	for _, r := range []state.Record{
		{Source: mcs.Source{Kind: mcs.Namespaces, Cluster: "east"}, Facts: mcs.Facts{Namespaces: []string{"shop"}}},
		{Source: mcs.Source{Cluster: "west"}, Proof: time.Now(), Facts: mcs.Facts{Shards: map[mcs.ServiceKey]*mcs.Shard{key: clusterIPShard("10.1.0.1")}}},
	} {
		if err := state.Write(dir, r); err != nil {
			t.Fatal(err)
		}
	}

	s := newTestStore(t)
	c := configOf(t, "east")
	c.members[0].connection, c.state, c.dynamic = connection, dir, &spec
	w, _ := s.mustAcquire(t, &lease.Tenant{}, c)
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("Not within 20 s: " + what)
			}
		}
	}
	until("what the member said is known", func() bool { return w.snapshot.Load().Service("shop", "web") != nil })
	h := handlerOf(w)
	if view := h.view.current(h); view.Weights["west"] != 7 || view.Regions["west"] != "us" {
		t.Errorf("Its settings are %v, %v", view.Weights, view.Regions)
	}
	if !slices.Contains(w.snapshot.Load().Unsynced(), mcs.Source{Kind: mcs.Members}) {
		t.Error("It counts as known who the members are")
	}

	var now *sharedRoster
	for _, r := range s.rosters {
		now = r
	}
	now.ApplySecret("north.secret", secret(2, "cluster", "north", "kubeconfig", inline("t")))
	now.SetSecretsListed()
	until("the member is gone that has no Secret any more", func() bool { return w.snapshot.Load().Service("shop", "web") == nil && w.member("west") == nil })
	until("and is forgotten", func() bool {
		r, err := state.Read(dir, spec.source())
		return err == nil && len(r.Facts.Members) == 1 && r.Facts.Members["north.secret"]["cluster"] == "north"
	})
}
