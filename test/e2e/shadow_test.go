package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
	"github.com/clusterset-dns/clusterset-dns/test/server"
)

func TestShadowComparesAndTheNextPluginAnswers(t *testing.T) {
	const service = "shaded"
	made, err := east.Create(t.Context(), kube.Simple{Namespace: namespace, Name: service, Addresses: []string{"192.0.2.31"}})
	must(t, err)
	must(t, east.Export(t.Context(), namespace, service))
	t.Run("the same answers are counted, others are logged too", func(t *testing.T) {
		s := run(t, corefile("reload 10s 0s", stanza([]cluster{east}, "shadow"), "hosts {\n"+made.Spec.ClusterIP+" "+name(service)+"\n192.0.2.99 "+name("other-"+service)+"\n}"))
		ready(t, s)
		within(t, limit, "an answer is the same", func(ctx context.Context) error {
			if err := answers(s, name(service), 1)(ctx); err != nil {
				return err
			}
			return counts(ctx, s, "same")
		})
		within(t, limit, "another answer is logged, one a second", func(ctx context.Context) error {
			m, err := s.Query(ctx, name("other-"+service), dns.TypeA)
			if err != nil {
				return err
			}
			if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "192.0.2.99") {
				return fmt.Errorf("the next plugin's answer does not come through: %v", m.Answer)
			}
			if want := "answered NOERROR [192.0.2.99], would be NXDOMAIN [] (member -, tier -, unknown)"; !strings.Contains(s.Log(), want) {
				return fmt.Errorf("there is no %q in the log", want)
			}
			return counts(ctx, s, "different")
		})
	})
	t.Run("nobody waits for it", func(t *testing.T) {
		text, err := os.ReadFile(east.Kubeconfig())
		must(t, err)
		nobody := filepath.Join(t.TempDir(), "kubeconfig")
		must(t, os.WriteFile(nobody, []byte(strings.ReplaceAll(string(text), east.URL(), "https://127.0.0.1:1")), 0o600))
		of := strings.ReplaceAll(stanza([]cluster{east}, "shadow"), east.Kubeconfig(), nobody)
		s := run(t, corefile(of, "hosts {\n192.0.2.99 "+name("other-"+service)+"\n}"))
		ready(t, s)
		now(t, answers(s, name("other-"+service), 1))
	})
	t.Run("somebody must stand after it", func(t *testing.T) {
		s, err := server.Start(t.Context(), coredns, corefile(stanza([]cluster{east}, "shadow")), server.Options{})
		if err == nil {
			stopped(t, s)
		}
		if err == nil || !strings.Contains(err.Error(), "no plugin stands after clusterset") {
			t.Errorf("It starts with the error %v", err)
		}
	})
}

// counts checks that some answers of the shadow came out like that.
func counts(ctx context.Context, s *server.Server, result string) error {
	families, err := s.Metrics(ctx)
	if err != nil {
		return err
	}
	if f := families["coredns_clusterset_shadow_answers_total"]; f != nil {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result && m.GetCounter().GetValue() > 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("no answer counts as %s", result)
}
