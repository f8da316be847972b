//go:build !linux

package chaos

// partition needs network namespaces.
func partition() row {
	return row{
		name:     "The cable to a cluster is pulled out, and put in again",
		possible: func() string { return "skipped: there are network namespaces on Linux only" },
	}
}
