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
	CPU Group = "cpu" // what a query costs
)

var allGroups = []Group{CPU}

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
