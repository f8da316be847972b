package deploy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// testOperations types what docs/operations.md and docs/migration.md print, while the server of the drop-in answers.
func (o operator) testOperations(t *testing.T) {
	must(t, west.Apply(t.Context(), clusters.ClusterPropertyCRD("v1alpha1")))
	t.Cleanup(func() { o.Run(t, "kubectl --context west delete crd clusterproperties.about.k8s.io") })
	o.applies(t, east, "drop-in")
	shippedCorefile := shipped(t, "drop-in/Corefile")
	s := serve(t, coredns, shippedCorefile, placesOf(t, "kube-system", "coredns"))
	must(t, s.WaitReady(t.Context()))
	o = o.reads(t, "docs/operations.md")

	t.Run("a cluster is let in with one namespace, and then with all", func(t *testing.T) {
		o.Does(t, "kubectl --kubeconfig=west.kubeconfig get serviceexports --all-namespaces")
		o.Does(t, `kubectl --context east -n clusterset-members create secret generic west --from-file=kubeconfig=west.kubeconfig
			--from-literal=address=clusterip --from-literal=namespaces=canary`)
		within(t, "west is a member", func() error {
			if !strings.Contains(s.Log(), "Cluster west: exports are synced") {
				return errors.New("the log does not say so")
			}
			return nil
		})
		query{"", "echo.shop.svc.clusterset.local.", dns.TypeA, "NXDOMAIN"}.check(t, s)
		o.Does(t, `kubectl --context east -n clusterset-members patch secret west --type json
			-p '[{"op": "remove", "path": "/data/namespaces"}]'`)
		query{"", "echo.shop.svc.clusterset.local.", dns.TypeA, echoAddress}.check(t, s)
	})
	t.Run("it drains itself, and what nobody else has goes on being answered", func(t *testing.T) {
		o.Run(t, o.Script(t, "kubectl --context west apply -f - <<END"))
		query{"", "echo.shop.svc.clusterset.local.", dns.TypeA, echoAddress}.check(t, s)
		o.Run(t, "kubectl --context west delete clusterproperty drain.clusterset-dns.io")
	})
	t.Run("a namespace owner drains one service, and takes it back", func(t *testing.T) {
		o.Does(t, "kubectl --context west -n shop annotate serviceexport web clusterset-dns.io/weight-percent=0")
		o.Does(t, "kubectl --context west -n shop annotate --overwrite serviceexport web clusterset-dns.io/weight-percent=20")
		o.Does(t, "kubectl --context west -n shop annotate serviceexport web clusterset-dns.io/weight-percent-")
	})
	t.Run("credentials are written anew", func(t *testing.T) {
		o.Does(t, `kubectl --context east -n clusterset-members create secret generic west --from-file=kubeconfig=west.kubeconfig
			--from-literal=address=clusterip --dry-run=client -o yaml | kubectl --context east apply --server-side --force-conflicts -f -`)
		query{"", "echo.shop.svc.clusterset.local.", dns.TypeA, echoAddress}.check(t, s)
	})
	t.Run("the Corefile is replaced", func(t *testing.T) {
		changed := strings.Replace(shippedCorefile, "local east\n", "local east\n        ttl 7\n", 1)
		must(t, os.WriteFile(filepath.Join(o.Dir, "new.Corefile"), []byte(changed), 0o600))
		buildChecker(t, filepath.Join(o.Dir, "bin", "clustersetctl"))
		if out := o.Does(t, "bin/clustersetctl check new.Corefile"); !strings.Contains(out, "OK: new.Corefile") {
			t.Errorf("The check says %q", out)
		}
		o.Does(t, `kubectl --context east -n kube-system create configmap coredns-clusterset --from-file=Corefile=new.Corefile
			--dry-run=client -o yaml | kubectl --context east apply --server-side --force-conflicts -f -`)
		config, err := clientOf(t, east).CoreV1().ConfigMaps("kube-system").Get(t.Context(), "coredns-clusterset", metav1.GetOptions{})
		must(t, err)
		if config.Data["Corefile"] != changed {
			t.Errorf("The ConfigMap has\n%s", config.Data["Corefile"])
		}
	})
	t.Run("two servers are compared", func(t *testing.T) { testCompare(t, o.reads(t, "docs/migration.md"), s) })
	leave(t, s)
}

// buildChecker builds clustersetctl, as make does.
func buildChecker(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*limit) // linking takes its time where nothing is cached
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/clustersetctl")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build clustersetctl: %v\n%s", err, out)
	}
}

// testCompare compares a server with itself, and with one that knows nothing.
func testCompare(t *testing.T, o operator, s *server.Server) {
	t.Helper()
	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("dig is not installed: install the package bind9-dnsutils")
	}
	const addresses = "OLD=10.96.0.10 NEW=10.96.0.53\n"
	script, found := strings.CutPrefix(o.Script(t, "kubectl --context east get serviceexports"), addresses)
	if !found {
		t.Fatalf("%s does not begin with %q", script, addresses)
	}
	other, err := server.Start(t.Context(), stock, upstream, server.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, other.Stop()) })
	at := func(s *server.Server) string { return "127.0.0.1 -p " + strconv.Itoa(s.Port("DNS")) }
	if out := o.Run(t, "OLD='"+at(s)+"' NEW='"+at(s)+"'\n"+script); out != "" {
		t.Errorf("Compared with itself, it differs:\n%s", out)
	}
	if out := o.Run(t, "OLD='"+at(other)+"' NEW='"+at(s)+"'\n"+script); !strings.Contains(out, "== web.shop A\n") || !strings.Contains(out, webInEast) {
		t.Errorf("A server that knows nothing does not differ:\n%s", out)
	}
}
