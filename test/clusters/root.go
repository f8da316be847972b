package clusters

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// mainModule is the module whose folder is the root of the repository.
const mainModule = "github.com/clusterset-dns/clusterset-dns"

// Root returns the folder of the repository: the nearest one with the main module's go.mod, above this source file or,
// where the binary was built with -trimpath, above the working directory.
func Root() (string, error) {
	var starts []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, start := range starts {
		if root, ok := moduleAbove(start, mainModule); ok {
			return root, nil
		}
	}
	return "", fmt.Errorf("find the repository: no go.mod of %s above %s; run inside a checkout", mainModule, strings.Join(starts, " or "))
}

// moduleAbove walks up from dir to the folder whose go.mod declares the module.
func moduleAbove(dir, module string) (string, bool) {
	for {
		if moduleOf(filepath.Join(dir, "go.mod")) == module {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// moduleOf returns the module path that a go.mod declares, "" when there is none.
func moduleOf(gomod string) string {
	f, err := os.Open(gomod)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if path, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "module "); ok {
			return strings.Trim(strings.TrimSpace(path), `"`)
		}
	}
	return ""
}
