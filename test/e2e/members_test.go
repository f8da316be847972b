package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1alpha1 "sigs.k8s.io/mcs-api/pkg/apis/v1alpha1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// readyAfter is how long after the start of the process the server must be ready when a remote cluster is away: five
// seconds, and something for the test to see it.
const readyAfter = 5500 * time.Millisecond

func TestMemberThatIsDownAtStart(t *testing.T) {
	tests := []struct {
		name, id string
		down     func() error
		up       func(context.Context) error
	}{
		{"it refuses connections", "refusing", north.KillAPIServer, north.StartAPIServer},
		{"it hangs", "hanging", north.PauseAPIServer, func(context.Context) error { return north.ResumeAPIServer() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			here, there := test.id+"-east", test.id+"-north"
			export(t, east, here, "10.1.0.1")
			export(t, north, there, "10.3.0.1")
			must(t, test.down())
			isUp := false
			up := func() {
				if !isUp {
					isUp = true
					must(t, test.up(t.Context()))
				}
			}
			defer up()

			begin := time.Now()
			s := run(t, corefile(stanza([]cluster{east, west, north})))
			listening := time.Since(begin)
			within(t, limit, here, answers(s, name(here), 1))
			answered := time.Since(begin)
			now(t, rcode(s, name(there), dns.RcodeServerFailure))
			now(t, rcode(s, name("nobody"), dns.RcodeServerFailure))
			now(t, rcode(s, "nobody.no-such-namespace.svc."+zone, dns.RcodeNameError)) // whatever north says
			ready(t, s)
			t.Logf("after %s it listens, after %s it answers a known name, after %s it is ready",
				round(listening), round(answered), round(time.Since(begin)))
			if took := time.Since(begin); took > readyAfter {
				t.Errorf("ready after %s, want %s", round(took), readyAfter)
			}
			if answered > 3*time.Second {
				t.Errorf("a known name is answered after %s", round(answered))
			}
			now(t, rcode(s, name("nobody"), dns.RcodeServerFailure))

			r := watchReadiness(t, s)
			up()
			took := within(t, limit, there, answers(s, name(there), 1))
			t.Logf("the names of the member appear %s after it is up", round(took))
			within(t, limit, "unknown names are denied", rcode(s, name("nobody"), dns.RcodeNameError))
			r.end()
			r.check(t)
		})
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func TestMemberWithoutTheAPI(t *testing.T) {
	const service = "versions-north"
	t.Cleanup(func() { must(t, north.ApplyCRDs(context.Background(), clusters.V1Beta1AndV1Alpha1)) })
	must(t, north.ApplyCRDs(t.Context(), clusters.NoCRDs))
	export(t, east, "versions-east", "10.1.0.1")
	_, err := north.Create(t.Context(), kube.Simple{Namespace: namespace, Name: service, Headless: true, Addresses: []string{"10.3.0.1"}})
	must(t, err)

	begin := time.Now()
	s := run(t, corefile(stanza([]cluster{east, north})))
	ready(t, s)
	if took := time.Since(begin); took > remoteGrace {
		t.Errorf("ready after %s: it waited for a cluster that has said all", round(took))
	}
	now(t, answers(s, name("versions-east"), 1))
	now(t, rcode(s, name(service), dns.RcodeNameError))
	now(t, shows(s, 1, problemMetric, "cluster", "north", "reason", "not_served"))
	now(t, once(s, `WARNING.*north.*not_served`))
	l, r := ask(t, s, 5*time.Millisecond, has(name("versions-east"), 1)), watchReadiness(t, s)

	must(t, north.ApplyCRDs(t.Context(), clusters.OnlyV1Alpha1))
	object := &mcsv1alpha1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service}}
	_, err = north.MCS.MulticlusterV1alpha1().ServiceExports(namespace).Create(t.Context(), object, metav1.CreateOptions{})
	must(t, err)
	took := within(t, limit, "an export of v1alpha1", answers(s, name(service), 1))
	t.Logf("%s after v1alpha1 was installed its export shows", round(took))
	now(t, shows(s, 0, problemMetric, "cluster", "north"))

	must(t, north.ApplyCRDs(t.Context(), clusters.V1Beta1AndV1Alpha1))
	export(t, north, "versions-new", "10.3.0.2")
	took = within(t, limit, "an export of v1beta1", answers(s, name("versions-new"), 1))
	t.Logf("%s after v1beta1 was installed its export shows", round(took))
	now(t, answers(s, name(service), 1))

	must(t, north.DeleteCRDs(t.Context()))
	took = within(t, limit, "the names vanish", rcode(s, name(service), dns.RcodeNameError))
	t.Logf("%s after the CRDs were deleted the names are gone", round(took))
	within(t, limit, "the names vanish", rcode(s, name("versions-new"), dns.RcodeNameError))
	within(t, limit, "the problem is reported", shows(s, 1, problemMetric, "cluster", "north", "reason", "not_served", "resource", "discovery"))

	must(t, north.ApplyCRDs(t.Context(), clusters.V1Beta1AndV1Alpha1))
	must(t, north.Export(t.Context(), namespace, service))
	within(t, limit, "the names come back", answers(s, name(service), 1))
	l.end()
	r.end()
	l.check(t)
	r.check(t)
}

const (
	problemMetric = "coredns_clusterset_watch_problem"
	remoteGrace   = 5 * time.Second
)

func TestMemberThatForbidsAResource(t *testing.T) {
	const service = "forbidden-north"
	export(t, east, "forbidden-east", "10.1.0.1")
	export(t, north, service, "10.3.0.1")
	allow := forbid(t, north, "endpointslices")
	since := mark(t, north)

	s := run(t, corefile(stanza([]cluster{east, north})))
	within(t, limit, "another cluster", answers(s, name("forbidden-east"), 1))
	within(t, limit, "the problem is reported", shows(s, 1, problemMetric, "cluster", "north", "resource", "endpointslices", "reason", "forbidden"))
	within(t, limit, "it is tried again and again", func(context.Context) error {
		if n := since.asked(t, "endpointslices"); n < 4 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	now(t, once(s, `WARNING.*north.*endpointslices.*forbidden`))
	now(t, shows(s, 1, problemMetric)) // nothing else is wrong
	now(t, rcode(s, name(service), dns.RcodeServerFailure))
	ready(t, s)

	allow()
	took := within(t, limit, "the names appear", answers(s, name(service), 1))
	t.Logf("%s after it is allowed the names appear", round(took))
	now(t, shows(s, 0, problemMetric))
	within(t, limit, "unknown names are denied", rcode(s, name("nobody"), dns.RcodeNameError))
}

// forbid takes the right to a resource from the server's account. allow gives it back; the end of the test does too.
func forbid(t *testing.T, c cluster, resource string) (allow func()) {
	t.Helper()
	roles := c.Core.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "clusterset-dns-member", metav1.GetOptions{})
	must(t, err)
	all := role.Rules
	change := func(rules []rbacv1.PolicyRule) {
		role.Rules = rules
		changed, err := roles.Update(context.Background(), role, metav1.UpdateOptions{})
		must(t, err)
		role = changed
	}
	change(slices.DeleteFunc(slices.Clone(all), func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, resource) }))
	allow = sync.OnceFunc(func() { change(all) })
	t.Cleanup(allow)
	within(t, limit, resource+" are forbidden", func(ctx context.Context) error { return mayNotWatch(ctx, c, resource) })
	return allow
}

// mayNotWatch asks the API server, whose authorizer learns of roles by a watch of its own.
func mayNotWatch(ctx context.Context, c cluster, resource string) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:clusterset-dns:clusterset-dns",
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "watch", Group: "discovery.k8s.io", Resource: resource},
	}}
	answer, err := c.Core.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err == nil && answer.Status.Allowed {
		err = errors.New("allowed")
	}
	return err
}

func TestMemberWhoseAPIServerIsAway(t *testing.T) {
	tests := []struct {
		name, id string
		// away takes the API server away until the test has seen enough, and brings it back.
		away func(t *testing.T, s *server.Server)
	}{
		{"it is killed and restarted", "killed", func(t *testing.T, _ *server.Server) {
			t.Helper()
			must(t, north.KillAPIServer())
			must(t, north.StartAPIServer(t.Context()))
		}},
		{"it hangs for 25 seconds", "hung", func(t *testing.T, s *server.Server) {
			t.Helper()
			must(t, north.PauseAPIServer())
			defer func() { must(t, north.ResumeAPIServer()) }()
			within(t, time.Minute, "25 s without a proof of life", func(ctx context.Context) error {
				age, err := metric(ctx, s, "coredns_clusterset_member_proof_age_seconds", "cluster", "north")
				if err == nil && age < 25 {
					err = fmt.Errorf("%.0f s", age)
				}
				return err
			})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			here, there := test.id+"-east", test.id+"-north"
			export(t, east, here, "10.1.0.1")
			object := export(t, north, there, "10.3.0.1", "10.3.0.2")
			s := run(t, corefile("kubernetes cluster.local {\nkubeconfig "+east.Kubeconfig()+"\n}", stanza([]cluster{east, north})))
			ready(t, s)
			within(t, limit, there, answers(s, name(there), 2))
			local := here + "." + namespace + ".svc.cluster.local."
			l := ask(t, s, 5*time.Millisecond, has(name(here), 1), has(name(there), 2), has(local, 1), denied(name("nobody")))
			r := watchReadiness(t, s)

			test.away(t, s)

			l.end()
			l.check(t)
			t.Logf("%d answers meanwhile", l.answered())
			object.Addresses = append(object.Addresses, "10.3.0.3")
			must(t, north.UpdateSlice(t.Context(), object.Slice()))
			took := within(t, limit, "a change after it is back", answers(s, name(there), 3))
			t.Logf("a change shows after %s", round(took))
			if took > backAfter {
				t.Errorf("a change after the API server is back shows after %s, want %s", round(took), backAfter)
			}
			r.end()
			r.check(t)
		})
	}
}

// backAfter is how soon changes must show once an API server is back: the longest pause between two attempts, and some.
const backAfter = 12 * time.Second

func TestLocalMemberThatIsDownAtStart(t *testing.T) {
	export(t, east, "other-east", "10.1.0.1")
	export(t, north, "other-north", "10.3.0.1")
	must(t, north.PauseAPIServer())
	resume := sync.OnceFunc(func() { must(t, north.ResumeAPIServer()) })
	t.Cleanup(resume)
	of := strings.NewReplacer("local east", "local north", "address clusterip", "").Replace(stanza([]cluster{north}))
	of = strings.TrimSuffix(of, "}\n") + fmt.Sprintf("cluster east %s {\nregion there\naddress clusterip\n}\n}\n", east.Kubeconfig())

	begin := time.Now()
	s := run(t, corefile(of))
	within(t, limit, "a name of a remote cluster", answers(s, name("other-east"), 1))
	now(t, rcode(s, name("other-north"), dns.RcodeServerFailure))
	for time.Since(begin) < readyAfter {
		if status, err := s.Ready(t.Context()); err != nil || status != http.StatusServiceUnavailable {
			t.Fatalf("readiness is %d, %v after %s: the local cluster is not known", status, err, round(time.Since(begin)))
		}
		time.Sleep(pollEvery)
	}
	resume()
	ready(t, s)
	within(t, limit, "a name of the local cluster", answers(s, name("other-north"), 1))
	within(t, limit, "unknown names are denied", rcode(s, name("nobody"), dns.RcodeNameError))
}

func TestReloadThatAddsAMemberThatHangs(t *testing.T) {
	export(t, east, "added-east", "10.1.0.1")
	export(t, west, "added-west", "10.2.0.1")
	export(t, north, "added-north", "10.3.0.1")
	s := run(t, corefile(stanza([]cluster{east, west})))
	ready(t, s)
	within(t, limit, "added-west", answers(s, name("added-west"), 1))
	must(t, north.PauseAPIServer())
	resume := sync.OnceFunc(func() { must(t, north.ResumeAPIServer()) })
	t.Cleanup(resume)

	l, r := ask(t, s, time.Millisecond, has(name("added-east"), 1), has(name("added-west"), 1)), watchReadiness(t, s)
	begin := time.Now()
	must(t, s.Reload(t.Context(), corefile(stanza([]cluster{east, west, north}))))
	t.Logf("the reload took %s", round(time.Since(begin)))
	now(t, rcode(s, name("added-north"), dns.RcodeServerFailure))
	within(t, limit, "load after the reload", more(l, l.answered()))
	resume()
	within(t, limit, "added-north", answers(s, name("added-north"), 1))
	l.end()
	r.end()
	l.check(t)
	r.check(t)
}
