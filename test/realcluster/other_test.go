//go:build !linux

package realcluster

import "testing"

func TestRealClusters(t *testing.T) { t.Skip("real clusters need Linux") }
