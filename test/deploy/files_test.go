package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"sigs.k8s.io/yaml"

	"github.com/clusterset-dns/clusterset-dns/test/examples"
	"github.com/clusterset-dns/clusterset-dns/test/readme"
)

func shipped(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", filepath.FromSlash(path)))
	must(t, err)
	return string(text)
}

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := examples.Read(name)
	must(t, err)
	return text
}

// kustomize reads no file outside of its folder, so what deploy shares with corefile-examples is there twice.
func TestCorefilesAreThoseOfTheExamples(t *testing.T) {
	for file, name := range map[string]string{
		"drop-in/Corefile":    "kubeadm",
		"beside/Corefile":     "beside-forwarding-server",
		"node-local/Corefile": "node-local-cache",
	} {
		if shipped(t, file) != example(t, name) {
			t.Errorf("deploy/%s and corefile-examples/%s differ: copy one over the other", file, name)
		}
	}
	block := uncommented(shipped(t, "beside/clusterset.server"))
	if rest, ok := strings.CutPrefix(uncommented(example(t, "beside-forwarding")), block); !ok || !strings.HasPrefix(rest, ".:53 {") {
		t.Errorf("corefile-examples/beside-forwarding does not begin with what deploy/beside/clusterset.server has")
	}
}

// uncommented returns the lines of a Corefile that count, one blank between words.
func uncommented(corefile string) string {
	var b strings.Builder
	for line := range strings.Lines(corefile) {
		if line = readme.Words(line); line != "" && !strings.HasPrefix(line, "#") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func TestImagesAreTheSameEverywhere(t *testing.T) {
	const image, tag = "registry.example.org/clusterset-dns", "v0.1.0"
	for file, want := range map[string]string{
		"drop-in/corednsdeployment+strategic.yaml": "image: " + image + ":" + tag,
		"beside/kustomization.yaml":                "newName: " + image + " newTag: " + tag,
		"helm-values.yaml":                         "repository: " + image + " tag: " + tag,
	} {
		if !strings.Contains(readme.Words(shipped(t, file)), want) {
			t.Errorf("deploy/%s does not have %q", file, want)
		}
	}
}

// values are those of the CoreDNS chart, as far as they are used here.
type values struct {
	ServiceAccount      struct{ Name string }
	K8sAppLabelOverride string
	ExtraVolumes        []struct{ Name string }
	ExtraVolumeMounts   []struct{ Name, MountPath string }
	Servers             []struct {
		Zones   []struct{ Zone string }
		Port    int
		Plugins []struct{ Name, Parameters, ConfigBlock string }
	}
}

// corefile does what the template configmap.yaml of the chart does.
func (v values) corefile() string {
	var b strings.Builder
	for _, server := range v.Servers {
		for i, zone := range server.Zones {
			if i > 0 {
				b.WriteString(" ")
			}
			b.WriteString(zone.Zone)
		}
		fmt.Fprintf(&b, ":%d {\n", server.Port)
		for _, plugin := range server.Plugins {
			b.WriteString("    " + plugin.Name)
			if plugin.Parameters != "" {
				b.WriteString(" " + plugin.Parameters)
			}
			if plugin.ConfigBlock != "" {
				b.WriteString(" {\n" + plugin.ConfigBlock + "\n    }")
			}
			b.WriteString("\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestHelmValuesMakeTheCorefileOfTheDropIn(t *testing.T) {
	var v values
	// The chart gives a number to its template as it is.
	text := strings.ReplaceAll(shipped(t, "helm-values.yaml"), "parameters: 30", `parameters: "30"`)
	must(t, yaml.Unmarshal([]byte(text), &v))
	if got, want := uncommented(v.corefile()), uncommented(shipped(t, "drop-in/Corefile")); got != want {
		t.Errorf("The values make the Corefile\n%swant\n%s", got, want)
	}
	if v.ServiceAccount.Name != "coredns" || v.K8sAppLabelOverride != "kube-dns" {
		t.Errorf("The account is %q and the label %q; deploy/drop-in has rights and a PodDisruptionBudget for coredns and kube-dns",
			v.ServiceAccount.Name, v.K8sAppLabelOverride)
	}
	for i, mount := range v.ExtraVolumeMounts {
		if mount.Name != v.ExtraVolumes[i].Name || mount.MountPath == "" {
			t.Errorf("Volume %q is mounted as %v", v.ExtraVolumes[i].Name, mount)
		}
	}
	places := examples.Places{Local: east.AdminKubeconfig(), Upstream: "127.0.0.1:53", State: t.TempDir()}
	s := serve(t, coredns, v.corefile(), places)
	query{"", "dns-version.clusterset.local.", dns.TypeTXT, `"1.0.0"`}.check(t, s)
}
