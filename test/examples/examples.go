// Package examples makes the Corefiles of corefile-examples, and those in the READMEs, run on this machine. They are
// written as an operator would write them, for port 53 and a pod: Fill puts loopback ports, the kubeconfigs of test
// clusters and an upstream server in the places where they stand, and changes nothing else.
package examples

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
)

// kubeconfigs is the folder in which the examples expect one kubeconfig per cluster, NAME.kubeconfig.
const kubeconfigs = "/etc/clusterset/"

// Places are what takes the place of things that only a pod in a real cluster has.
type Places struct {
	// Kubeconfigs are the paths of the kubeconfigs by the name that the examples use: "west" stands for
	// /etc/clusterset/west.kubeconfig.
	Kubeconfigs map[string]string
	// Local is the path of the kubeconfig for whatever uses the pod's own ServiceAccount.
	Local string
	// Targets are the addresses (HOST:PORT) that are probed instead of those in the Corefile, by the cluster's name.
	Targets map[string]string
	// Members is a folder in which members are described.
	Members string
	// State is a folder for the last known state.
	State string
	// Upstream is the address (HOST:PORT) of a DNS server for whatever is forwarded to /etc/resolv.conf.
	Upstream string
}

// Names returns the names of all examples, sorted.
func Names() ([]string, error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Read returns the Corefile of an example.
func Read(name string) (string, error) {
	dir, err := folder()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("read the example: %w", err)
	}
	return string(text), nil
}

func folder() (string, error) {
	root, err := clusters.Root()
	return filepath.Join(root, "corefile-examples"), err
}

// Fill returns the Corefile as a template for server.Start: it listens on 127.0.0.1 at {{.DNS}} instead of port 53,
// *prometheus*, *ready* and *health* are at {{.Metrics}}, {{.Ready}} and {{.Health}}, status is told at port
// {{.Port "Status"}} of 127.0.0.2, and the places are filled. The error
// names the line that has something it does not know how to run here.
func Fill(corefile string, p Places) (string, error) {
	var out []string
	depth, stanza := 0, ""
	for n, line := range strings.Split(corefile, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			out = append(out, line)
			continue
		}
		if words[0] == "}" {
			depth--
		}
		if depth == 1 {
			stanza = words[0]
		}
		filled, err := p.line(depth, stanza, words)
		if err != nil {
			return "", fmt.Errorf("line %d: %w", n+1, err)
		}
		for _, f := range filled {
			out = append(out, strings.Repeat("    ", depth)+f)
		}
		if words[len(words)-1] == "{" {
			depth++
		}
	}
	return strings.Join(out, "\n"), nil
}

// line fills one line at a depth of blocks, in a plugin's stanza. It may become several.
func (p Places) line(depth int, stanza string, words []string) ([]string, error) {
	block := words[len(words)-1] == "{"
	switch {
	case depth == 0 && block:
		return listen(words)
	case depth == 1 && words[0] == "bind":
		return nil, nil // listen has said where
	case depth == 1 && words[0] == "prometheus":
		return []string{"prometheus {{.Metrics}}"}, nil
	case depth == 1 && words[0] == "ready":
		return []string{"ready {{.Ready}}"}, nil
	case depth == 1 && words[0] == "health":
		return join(slices.Insert(words, 1, "{{.Health}}")), nil
	case depth == 1 && words[0] == "kubernetes" && block:
		return append(join(words), "    kubeconfig "+p.Local), nil
	case depth == 1 && words[0] == "kubernetes":
		return append(join(append(words, "{")), "    kubeconfig "+p.Local, "}"), nil
	case depth == 1 && words[0] == "forward":
		if at := slices.Index(words, "/etc/resolv.conf"); at >= 0 {
			words[at] = p.Upstream
		}
	case depth == 2 && stanza == "clusterset" && words[0] == "cluster" && len(words) > 1:
		return p.kubeconfig(words, 2)
	case depth == 2 && stanza == "clusterset" && words[0] == "clusters" && words[1] == "directory":
		return []string{"clusters directory " + p.Members}, nil
	case depth == 2 && stanza == "clusterset" && words[0] == "state":
		return []string{"state " + p.State}, nil
	case depth == 2 && stanza == "clusterset" && words[0] == "status":
		// It shares its port with nobody, so it cannot have one that is reserved.
		return []string{`status 127.0.0.2:{{.Port "Status"}}`}, nil
	case depth == 2 && stanza == "clusterhealth" && words[0] == "probe":
		return p.probe(words)
	case depth == 2 && (words[0] == "serviceimports" || words[0] == "nodes"):
		return p.kubeconfig(words, 1)
	}
	return join(words), nil
}

// listen takes the keys of a server block.
func listen(words []string) ([]string, error) {
	for i, key := range words[:len(words)-1] {
		host, port, given := strings.Cut(key, ":")
		if given && port != "53" {
			return nil, fmt.Errorf("%q: only port 53 has a substitute", key)
		}
		words[i] = host + ":{{.DNS}}"
	}
	return append(join(words), "    bind 127.0.0.1"), nil
}

// kubeconfig fills in the path that stands at a place of the line, or is missing there.
func (p Places) kubeconfig(words []string, at int) ([]string, error) {
	if at == len(words) || words[at] == "{" {
		return join(slices.Insert(words, at, p.Local)), nil
	}
	name, ok := strings.CutSuffix(path.Base(words[at]), ".kubeconfig")
	if to := p.Kubeconfigs[name]; ok && strings.HasPrefix(words[at], kubeconfigs) && to != "" {
		words[at] = to
		return join(words), nil
	}
	return nil, fmt.Errorf("kubeconfig %q: want %sNAME.kubeconfig with one of the names %v", words[at], kubeconfigs, slices.Sorted(maps.Keys(p.Kubeconfigs)))
}

// probe fills in what is probed: the host of a URL, or HOST:PORT with the name of a service or without.
func (p Places) probe(words []string) ([]string, error) {
	if len(words) != 4 || p.Targets[words[1]] == "" {
		return nil, fmt.Errorf("%q: want probe CLUSTER KIND TARGET of one of the clusters %v", words, slices.Sorted(maps.Keys(p.Targets)))
	}
	scheme, rest, isURL := strings.Cut(words[3], "://")
	if !isURL {
		scheme, rest = "", words[3]
	} else {
		scheme += "://"
	}
	at := strings.IndexByte(rest, '/')
	if at < 0 {
		at = len(rest)
	}
	words[3] = scheme + p.Targets[words[1]] + rest[at:]
	return join(words), nil
}

func join(words []string) []string { return []string{strings.Join(words, " ")} }
