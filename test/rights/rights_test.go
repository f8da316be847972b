// Package rights holds a test of the RBAC manifests in deploy: that the server needs each right in them, needs no
// other, and can write nothing.
package rights

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// binaries and binary are the control plane and the server.
var (
	binaries clusters.Binaries
	binary   string
)

func TestMain(m *testing.M) {
	var errs [2]error
	binaries, errs[0] = clusters.Build(context.Background(), os.Stderr)
	binary, errs[1] = server.Build(context.Background(), os.Stderr)
	if err := errors.Join(errs[:]...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

var must = suite.Must

// limit bounds each wait. It is longer than an API server must be quiet before it is asked for a sign of life.
const limit = 60 * time.Second

// within waits until check returns nil, for as long as limit.
func within(t *testing.T, what string, check func() error) {
	t.Helper()
	suite.Within(t, limit, what, func(context.Context) error { return check() })
}

// granted returns the rights in a manifest, as "verb resource".
func granted(t *testing.T, manifest string) map[string]bool {
	t.Helper()
	root, err := clusters.Root()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "deploy", filepath.FromSlash(manifest)))
	must(t, err)
	out := map[string]bool{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbacv1.ClusterRole
		must(t, yaml.Unmarshal([]byte(document), &role))
		if role.Kind != "ClusterRole" && role.Kind != "Role" {
			continue
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					out[verb+" "+resource] = true
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s grants nothing", manifest)
	}
	return out
}

// request is a line of the audit log (audit.k8s.io/v1), as far as it matters here.
type request struct {
	Stage     string `json:"stage"`
	Verb      string `json:"verb"`
	URI       string `json:"requestURI"`
	UserAgent string `json:"userAgent"`
	Object    struct {
		Resource string `json:"resource"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// used returns the rights that the server has used in a cluster, and the requests that were refused for want of one.
func used(t *testing.T, c *clusters.Cluster) (rights map[string]bool, refused []string) {
	t.Helper()
	f, err := os.Open(c.AuditLog())
	must(t, err)
	defer f.Close()
	rights = map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		if json.Unmarshal(lines.Bytes(), &r) != nil || !strings.HasPrefix(r.UserAgent, "clusterset-dns") || r.Object.Resource == "" {
			continue // the last line may be half
		}
		switch {
		case r.Response.Code == 403:
			refused = append(refused, r.Verb+" "+r.URI)
		case r.Stage == "ResponseStarted" || r.Stage == "ResponseComplete" && r.Response.Code < 300:
			rights[r.Verb+" "+r.Object.Resource] = true
		}
	}
	return rights, refused
}

// TestEachRightIsNeededAndNoOther lets a server do everything that it can do, in its own cluster and in another one.
func TestEachRightIsNeededAndNoOther(t *testing.T) {
	all, err := clusters.StartAll(t.Context(), binaries,
		clusters.Options{Name: "east"}, clusters.Options{Name: "west", Remote: true})
	must(t, err)
	t.Cleanup(func() { must(t, clusters.StopAll(all...)) })
	east, west := all[0], all[1]
	var clients []kube.Client
	for _, c := range all {
		must(t, c.Apply(t.Context(), clusters.ClusterPropertyCRD("v1beta1")))
		client, err := kube.New(c)
		must(t, err)
		must(t, client.Namespace(t.Context(), "shop"))
		_, err = client.Core.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: "a", Labels: map[string]string{"topology.kubernetes.io/region": "r"},
		}}, metav1.CreateOptions{})
		must(t, err)
		clients = append(clients, client)
	}
	s, err := server.Start(t.Context(), binary, fmt.Sprintf(`.:{{.DNS}} {
    bind 127.0.0.1
    errors
    ready {{.Ready}}
    locality {
        cluster east
        nodes %[1]s
    }
    clusterset {
        local east
        cluster east %[1]s
        cluster west %[2]s {
            address clusterip
        }
        serviceimports
        clusters secrets clusterset-members
    }
}
`, east.Kubeconfig(), west.Kubeconfig()), server.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Stop()) })
	must(t, s.WaitReady(t.Context()))
	for i, client := range clients {
		// Exported once the server follows, so that it fetches what belongs to it.
		name := fmt.Sprint("late-", i)
		_, err := client.Service(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
		must(t, err)
		must(t, client.Export(t.Context(), "shop", name))
	}

	member, local, secrets := granted(t, "member/rbac.yaml"), granted(t, "base/local.yaml"), granted(t, "base/secrets.yaml")
	maps.Copy(local, secrets)
	within(t, "every right is used", func() error {
		inEast, _ := used(t, east)
		inWest, _ := used(t, west)
		var idle []string
		for right := range member {
			if !inEast[right] && !inWest[right] {
				idle = append(idle, right)
			}
		}
		for right := range local {
			if !inEast[right] {
				idle = append(idle, right+" in the local cluster")
			}
		}
		if slices.Sort(idle); len(idle) > 0 {
			return fmt.Errorf("not used: %q", idle)
		}
		return nil
	})
	for _, c := range all {
		rights, refused := used(t, c)
		if len(refused) > 0 {
			t.Errorf("%s refused %q", c.Name(), refused)
		}
		for right := range rights {
			if !member[right] && (c != east || !local[right]) {
				t.Errorf("%s allowed %q, which no manifest grants", c.Name(), right)
			}
		}
		if c == west {
			for right := range local {
				if rights[right] && !member[right] {
					t.Errorf("%q is used in a cluster that is not the local one", right)
				}
			}
		}
	}
	t.Run("nothing else is granted, and nothing can be written", func(t *testing.T) {
		for right := range secrets {
			delete(local, right)
		}
		ownRights(t, east, member, local)
		ownRights(t, west, member)
	})
}

// everybodysRights are those that Kubernetes gives to every account (system:basic-user, system:discovery,
// system:public-info-viewer and system:service-account-issuer-discovery): to ask what it may itself, who it is, and what the
// API server serves. None changes anything.
var everybodysRights = []string{"create selfsubjectaccessreviews", "create selfsubjectrulesreviews", "create selfsubjectreviews"}

// ownRights asks the API server for all that the account of the server may do.
func ownRights(t *testing.T, c *clusters.Cluster, manifests ...map[string]bool) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	must(t, err)
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	for _, namespace := range []string{"default", "kube-system", "clusterset-dns", "shop"} {
		review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
		review, err = client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), review, metav1.CreateOptions{})
		must(t, err)
		if review.Status.Incomplete {
			t.Fatalf("%s does not tell all", c.Name())
		}
		for _, rule := range review.Status.ResourceRules {
			for _, verb := range rule.Verbs {
				for _, resource := range rule.Resources {
					right := verb + " " + resource
					known := slices.ContainsFunc(manifests, func(m map[string]bool) bool { return m[right] })
					if !known && !slices.Contains(everybodysRights, right) {
						t.Errorf("in %s the account may %s of %q in namespace %s", c.Name(), right, rule.APIGroups, namespace)
					}
				}
			}
		}
		for _, rule := range review.Status.NonResourceRules {
			if !slices.Equal(rule.Verbs, []string{"get"}) {
				t.Errorf("in %s the account may %v %v", c.Name(), rule.Verbs, rule.NonResourceURLs)
			}
		}
	}
}
