// Package topology holds the values that say where something is: cluster, region, zone, node.
//
// It owns their names and their validity, and refuses everything else: it knows no API server, no DNS message and no
// policy. It imports the standard library only.
package topology

import (
	"errors"
	"fmt"
	"strings"
)

// ClusterID identifies a cluster of the ClusterSet: one DNS label (the cluster's name) or two joined by a dot (name and
// registry), see KEP-1645, "Terminology". It is always lower case. The zero value means "no cluster".
type ClusterID string

// Limits of a ClusterID. A label has at most 63 octets (RFC 1035 section 2.3.4). KEP-2149 asks for ids under 128
// characters; longer ones leave no room for the rest of a name.
const (
	maxLabel     = 63
	maxClusterID = 127
)

// ParseClusterID checks s and returns it in lower case. The error says which rule s breaks.
func ParseClusterID(s string) (ClusterID, error) {
	if s == "" {
		return "", errors.New("cluster id is empty")
	}
	if len(s) > maxClusterID {
		return "", fmt.Errorf("cluster id %.20q... has %d characters, at most %d are allowed", s, len(s), maxClusterID)
	}
	id := strings.ToLower(s)
	first, second, two := strings.Cut(id, ".")
	// A letter outside ASCII that folds into ASCII, such as the Kelvin sign, gets shorter.
	if len(id) != len(s) || !IsLabel(first) || two && !IsLabel(second) {
		return "", fmt.Errorf("cluster id %q is not one DNS label or two joined by a dot (letters, digits and inner hyphens, at most 63 each)", s)
	}
	return ClusterID(id), nil
}

// IsLabel reports whether s is a lower-case RFC 1123 label: 1 to 63 letters, digits or hyphens, no hyphen at either end.
func IsLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
