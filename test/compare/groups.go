//go:build linux

package compare

import (
	"fmt"
	"slices"
	"strings"
)

// Group is a set of figures that are measured together.
type Group string

// The groups.
const (
	CPU     Group = "cpu"     // what a query costs, as fast as answers come
	Latency Group = "latency" // how long an answer takes, at a fixed rate
	Churn   Group = "churn"   // the same, while endpoints come and go
	Change  Group = "change"  // how long it takes from a change to its answer
	Start   Group = "start"   // how long a start takes, and the memory after it
	Kubeadm Group = "kubeadm" // the memory in kubeadm's chain
)

var allGroups = []Group{CPU, Latency, Churn, Change, Start, Kubeadm}

// GroupNames lists the groups, with commas.
func GroupNames() string {
	var names []string
	for _, g := range allGroups {
		names = append(names, string(g))
	}
	return strings.Join(names, ",")
}

// ParseGroups reads the names of groups, with commas between them.
func ParseGroups(s string) ([]Group, error) {
	var all []Group
	for name := range strings.SplitSeq(s, ",") {
		g := Group(strings.TrimSpace(name))
		if !slices.Contains(allGroups, g) {
			return nil, fmt.Errorf("there is no group %q, only %s", g, GroupNames())
		}
		all = append(all, g)
	}
	return all, nil
}
