package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// membersNamespace is where the Secrets about members are, as deploy/base/secrets.yaml has it.
const membersNamespace = "clusterset-members"

// describe creates or replaces the Secret about a member in east, or removes it when there are no pairs.
func describe(t *testing.T, name string, pairs ...string) {
	t.Helper()
	secrets := east.Core.CoreV1().Secrets(membersNamespace)
	if len(pairs) == 0 {
		must(t, secrets.Delete(t.Context(), name, metav1.DeleteOptions{}))
		return
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		secret.StringData[pairs[i]] = pairs[i+1]
	}
	_, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	if err != nil {
		_, err = secrets.Create(t.Context(), secret, metav1.CreateOptions{})
	}
	must(t, err)
}

// TestMembersComeAndGo adds north by a Secret, changes it and removes it, while names of the others are asked.
func TestMembersComeAndGo(t *testing.T) {
	text, err := os.ReadFile(north.Kubeconfig())
	must(t, err)
	kubeconfig := string(text)
	export(t, east, "dynamic-east", "10.1.0.1")
	export(t, west, "dynamic-west", "10.2.0.1")
	export(t, north, "dynamic-north", "10.3.0.1")
	started := mark(t, west)
	s := run(t, corefile(stanza([]cluster{east, west}, "clusters secrets "+membersNamespace)))
	ready(t, s)
	within(t, limit, "dynamic-west", answers(s, name("dynamic-west"), 1))
	settled(t, started, readsOfMember)
	within(t, limit, "unknown names are denied", rcode(s, name("dynamic-north"), dns.RcodeNameError))
	asked := mark(t, west)
	l, r := ask(t, s, time.Millisecond, has(name("dynamic-east"), 1), has(name("dynamic-west"), 1), denied(name("dynamic-nobody"))), watchReadiness(t, s)

	describe(t, "north", "kubeconfig", kubeconfig, "address", "clusterip")
	added := within(t, limit, "a member that has come", answers(s, name("dynamic-north"), 1))
	now(t, shows(s, 1, "coredns_clusterset_dynamic_members"))
	describe(t, "north", "kubeconfig", kubeconfig, "namespaces", "elsewhere")
	changed := within(t, limit, "settings that have changed", rcode(s, name("dynamic-north"), dns.RcodeNameError))
	describe(t, "north", "kubeconfig", kubeconfig)
	within(t, limit, "settings as before", answers(s, name("dynamic-north"), 1))

	describe(t, "another", "cluster", "west", "kubeconfig", kubeconfig)
	describe(t, "third", "cluster", "north", "kubeconfig", kubeconfig)
	within(t, limit, "a duplicate is refused", shows(s, 1, "coredns_clusterset_refused_members", "reason", "duplicate"))
	within(t, limit, "one of the Corefile wins", once(s, "Cluster west is in the Corefile"))
	describe(t, "north", "kubeconfig", "apiVersion: v1\nusers: [{user: {exec: {command: reboot}}}]\n")
	within(t, limit, "a bad kubeconfig is refused", shows(s, 1, "coredns_clusterset_refused_members", "reason", "kubeconfig"))
	now(t, answers(s, name("dynamic-north"), 1))
	describe(t, "another")
	describe(t, "north")
	within(t, limit, "the other description takes its place", shows(s, 0, "coredns_clusterset_refused_members", "reason", "duplicate"))
	now(t, answers(s, name("dynamic-north"), 1))
	describe(t, "third")
	removed := within(t, limit, "a member that has gone", rcode(s, name("dynamic-north"), dns.RcodeNameError))
	now(t, shows(s, 0, "coredns_clusterset_dynamic_members"))
	t.Logf("a member added is answered after %s, changed after %s, removed after %s", round(added), round(changed), round(removed))
	within(t, limit, "load afterwards", more(l, l.answered()))
	l.end()
	l.check(t)
	r.end()
	r.check(t)
	if reads := asked.reads(t); len(reads) != 0 {
		t.Errorf("west was asked for %v", reads)
	}
}
