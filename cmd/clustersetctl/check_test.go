package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coredns/caddy/caddyfile"

	"github.com/clusterset-dns/clusterset-dns/internal/plugins"
)

// checked writes files into a folder, and checks the one called Corefile.
func checked(t *testing.T, files map[string]string) report {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "Corefile")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := checkCorefile(path, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range [][]finding{r.Errors, r.Notes} {
		for i := range found {
			found[i].File = strings.TrimPrefix(found[i].File, dir+"/")
			found[i].Text = strings.ReplaceAll(found[i].Text, dir, "DIR")
		}
	}
	return r
}

// has compares findings with the beginnings that are wanted, in order.
func has(t *testing.T, what string, got []finding, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.HasPrefix(got[i].String(), want[i])
	}
	if !ok {
		t.Errorf("%s:\n%v\nwant\n%s", what, got, strings.Join(want, "\n"))
	}
}

func TestCheckFindsErrorsWhereTheyStand(t *testing.T) {
	t.Setenv("ZONE_OF_A_TEST", "example.org")
	for _, row := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing is wrong", map[string]string{"Corefile": ". {\n  forward . 192.0.2.53\n}\n"}, nil},
		{"no server block", map[string]string{"Corefile": "# nothing\n"}, []string{"Corefile: it has no server block"}},
		{"a directive that nobody knows", map[string]string{"Corefile": ". {\n  errors\n  clusterste\n}\n"}, []string{"Corefile:3: Unknown directive 'clusterste'"}},
		{"a block that is not closed", map[string]string{"Corefile": ". {\n  errors\n"}, []string{"Corefile:2: Unexpected token 'errors', expecting '}'"}},
		{"a property that nobody knows", map[string]string{"Corefile": ". {\n  errors\n  clusterset {\n    local east\n    cluster east\n    prefre cluster\n  }\n}\n"}, []string{"Corefile:6: plugin/clusterset: unknown property 'prefre'"}},
		{"a member without an address", map[string]string{"Corefile": ". {\n  clusterset {\n    local east\n    cluster east\n    cluster west\n  }\n}\n"}, []string{"Corefile:5: plugin/clusterset: cluster west needs an 'address'"}},
		{"an error that refers to another line", map[string]string{"Corefile": "\n\n. {\n  errors\n  clusterset {\n    ttl 5\n    ttl 6\n  }\n}\n"}, []string{"Corefile:7: plugin/clusterset: property 'ttl' is given twice, first in line 6"}},
		{"behind lines that were added to kubernetes", map[string]string{"Corefile": ". {\n  kubernetes cluster.local\n  locality {\n    cluster east\n    nodes\n    cidr 10.0.0.0/33 zone=a\n  }\n}\n"}, []string{"Corefile:6: plugin/locality: "}},
		{"an error of kubernetes, which names no line", map[string]string{"Corefile": ". {\n  errors\n  kubernetes cluster.local {\n    pods perhaps\n  }\n}\n"}, []string{"Corefile:3: plugin/kubernetes: wrong value for pods"}},
		{"each plugin's error at once, in order", map[string]string{"Corefile": "a. {\n  forward\n  clusterset {\n    ttl x\n  }\n}\nb. {\n  cache 0\n}\n"}, []string{"Corefile:2: plugin/forward: ", "Corefile:4: plugin/clusterset: 'ttl x'", "Corefile:8: plugin/cache: "}},
		{"in a snippet", map[string]string{"Corefile": "(common) {\n  errors\n  cache 0\n}\na. {\n  import common\n}\n"}, []string{"Corefile:3: plugin/cache: "}},
		{"in an imported file", map[string]string{"Corefile": "a. {\n  errors\n  import more\n}\n", "more": "log\n\ncache 0\n"}, []string{"more:3: plugin/cache: "}},
		{"an import that is not there", map[string]string{"Corefile": "a. {\n  import more\n}\n"}, []string{"Corefile:2: File to import not found: more"}},
		{"a zone that two blocks serve", map[string]string{"Corefile": "a.:1053 {\n  whoami\n}\na.:1053 {\n  whoami\n}\n"}, []string{"Corefile: "}},
		{"locality in another block", map[string]string{"Corefile": "a. {\n  clusterset a. {\n    local east\n    cluster east\n  }\n}\nb. {\n  locality {\n    cluster east\n  }\n}\n"}, []string{"Corefile:2: the plugin locality stands in another server block only"}},
		{"clusterhealth in another block", map[string]string{"Corefile": "a. {\n  clusterset a. {\n    local east\n    cluster east\n  }\n}\nb. {\n  clusterhealth {\n    drain west\n  }\n}\n"}, []string{"Corefile:2: the plugin clusterhealth stands in another server block only"}},
		{"an environment variable that is there", map[string]string{"Corefile": "{$ZONE_OF_A_TEST} {\n  clusterset {$ZONE_OF_A_TEST} {\n    local east\n    cluster east\n  }\n}\n"}, nil},
		{"a kubeconfig that is there and makes no sense", map[string]string{"Corefile": ". {\n  clusterset {\n    local east\n    cluster east DIR/config\n  }\n}\n", "config": "{]"}, []string{"Corefile:4: plugin/clusterset: 'cluster east': "}},
		{"clusters by Secrets with a selector that makes no sense", map[string]string{"Corefile": ". {\n  clusterset {\n    clusters secrets members a==b==c\n  }\n}\n"}, []string{"Corefile:3: plugin/clusterset: 'clusters secrets members a==b==c'"}},
		{"words that need quotes", map[string]string{"Corefile": ". {\n  template IN TXT a.example.org {\n    answer \"{{ .Name }} 60 IN TXT \\\"a # b\\\"\"\n  }\n  log . \"{remote} says \\\"{name}\\\"\"\n}\n"}, nil},
		{"a word of several lines before an error", map[string]string{"Corefile": ". {\n  template IN TXT a.example.org {\n    answer \"{{ .Name }} 60\n      IN TXT a\"\n  }\n  cache 0\n}\n"}, []string{"Corefile:6: plugin/cache: "}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := checked(t, row.files)
			has(t, "The errors", r.Errors, row.want...)
			if r.OK != (len(row.want) == 0) {
				t.Errorf("OK is %v", r.OK)
			}
		})
	}
}

func TestCheckTakesForGrantedWhatOnlyThePodHas(t *testing.T) {
	for _, row := range []struct {
		name, corefile string
		notes          []string
	}{
		{"the ServiceAccount", ". {\n  kubernetes cluster.local {\n    pods insecure\n  }\n  locality {\n    cluster east\n    nodes\n  }\n  clusterset {\n    local east\n    cluster east\n  }\n}\n", nil},
		{"the ServiceAccount, of a cluster without a name", ". {\n  clusterset {\n    clusters secrets members role=member\n  }\n}\n", nil},
		{"the ServiceAccount, for ServiceImports", ". {\n  clusterset {\n    serviceimports\n  }\n}\n", nil},
		{"kubeconfigs", ". {\n  kubernetes cluster.local {\n    kubeconfig /etc/clusterset/here.kubeconfig context\n  }\n  clusterset {\n    serviceimports /etc/clusterset/hub.kubeconfig context\n    cluster west /etc/clusterset/west.kubeconfig context {\n      address clusterip\n    }\n  }\n}\n", []string{
			"Corefile:3: /etc/clusterset/here.kubeconfig is not on this machine", "Corefile:6: /etc/clusterset/hub.kubeconfig is not", "Corefile:7: /etc/clusterset/west.kubeconfig is not",
		}},
		{"folders", ". {\n  clusterset {\n    clusters directory /nowhere/members\n    state /nowhere/state\n  }\n}\n", []string{"Corefile:3: /nowhere/members is not", "Corefile:4: /nowhere/state is not"}},
		{"files below the root", ". {\n  root /nowhere\n  clusterset {\n    local east\n    cluster east kubeconfig\n  }\n}\n", []string{"Corefile:5: kubeconfig is not"}},
		{"a certificate authority", ". {\n  clusterhealth {\n    probe west https https://192.0.2.1/\n    tls /nowhere/ca.pem\n  }\n}\n", []string{"Corefile:4: /nowhere/ca.pem is not"}},
		{"plugins that contact what they read from", ". {\n  etcd {\n    endpoint http://192.0.2.1:2379\n  }\n  route53 example.org.:Z1\n}\n", []string{"Corefile:2: etcd is not looked at", "Corefile:5: route53 is not looked at"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := checked(t, map[string]string{"Corefile": row.corefile})
			has(t, "The errors", r.Errors)
			has(t, "The notes", r.Notes, row.notes...)
		})
	}
}

// TestCheckAcceptsAllExamples also proves that line numbers are not needed for the whole of CoreDNS's own Corefiles.
func TestCheckAcceptsAllExamples(t *testing.T) {
	for _, pattern := range []string{"../../corefile-examples/*", "../../deploy/*/Corefile"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 3 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			t.Run(file, func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				r, err := checkCorefile(file, text)
				if err != nil {
					t.Fatal(err)
				}
				has(t, "The errors", r.Errors)
			})
		}
	}
}

// TestCheckContactsNobody lets a listener stand for everything that a Corefile names.
func TestCheckContactsNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var came atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	addr := listener.Addr().String()
	config := "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: c}}], users: [{name: c, user: {token: t}}], clusters: [{name: c, cluster: {server: \"http://" + addr + "\"}}]}"
	r := checked(t, map[string]string{"config": config, "Corefile": strings.ReplaceAll(`.:1053 {
  kubernetes cluster.local {
    kubeconfig DIR/config
  }
  clusterhealth {
    probe west tcp ADDR
    probe north http http://ADDR/
    probe south grpc ADDR
  }
  locality {
    cluster east
    nodes DIR/config
  }
  clusterset {
    local east
    cluster east DIR/config
    clusters secrets members
    serviceimports DIR/config
  }
  etcd example.org {
    endpoint http://ADDR
  }
  nomad service.nomad {
    address http://ADDR
  }
  dnstap tcp://ADDR full
  trace zipkin http://ADDR/api
  secondary example.net {
    transfer from ADDR
  }
  forward . tls://ADDR
  grpc example.com ADDR
}
`, "ADDR", addr)})
	has(t, "The errors", r.Errors)
	listener.Close()
	<-done
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// FuzzWrite writes any server block anew. The parser reads the same words in it, in the same lines of directives.
func FuzzWrite(f *testing.F) {
	for _, seed := range []string{"errors", "clusterset {\n local x\n}\ncache", "\x00\"", "log . \"a\nb # \\\"c\\\"\" {\n class error\n}\nlog"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "$%") || strings.Contains(text, "import") || strings.Contains(text, `"{"`) || strings.Contains(text, `"}"`) {
			return // the environment and files of this machine, and braces that only look like those of a block
		}
		before, err := caddyfile.Parse("Corefile", strings.NewReader(". {\n"+text+"\n}\n"), plugins.Directives)
		if err != nil || len(before) != 1 {
			return
		}
		one := block{before[0].Keys, map[string][][]caddyfile.Token{}}
		for name, tokens := range before[0].Tokens {
			one.directives[name] = split(tokens)
		}
		written, _ := write("Corefile", []block{one})
		after, err := caddyfile.Parse("Corefile", bytes.NewReader(written), append(slices.Clone(plugins.Directives), assemble))
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		delete(after[len(after)-1].Tokens, assemble)
		if got, want := words(after), words(before); got != want {
			t.Errorf("%q has become %q, which is read as\n%s\nwant\n%s", text, written, got, want)
		}
	})
}

// words are what a parser has read, with the ends of lines.
func words(blocks []caddyfile.ServerBlock) string {
	var out strings.Builder
	for _, b := range blocks {
		fmt.Fprintf(&out, "%q\n", b.Keys)
		for _, name := range slices.Sorted(maps.Keys(b.Tokens)) {
			for _, line := range split(b.Tokens[name]) {
				for _, w := range line {
					fmt.Fprintf(&out, "%q ", w.Text)
				}
				out.WriteByte('\n')
			}
		}
	}
	return out.String()
}
