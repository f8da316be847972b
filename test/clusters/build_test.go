package clusters

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// newModule returns a builder for a small module with one program, hello.
func newModule(t *testing.T) builder {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":        "module example.org/hello\n\ngo 1.26.0\n",
		"hello/main.go": "package main\n\nfunc main() {}\n",
		"bad/main.go":   "package main\n\nfunc main() { nothing }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return builder{module: dir, sources: map[Program]source{"hello": {"./hello", "a second"}, "bad": {"./bad", "a second"}}}
}

func TestBuildMakesWhatIsMissingOrStale(t *testing.T) {
	b := newModule(t)
	gomod := filepath.Join(b.module, "go.mod")
	for _, step := range []struct {
		name   string
		before func() error
		builds bool
	}{
		{"nothing is there", func() error { return nil }, true},
		{"everything is there", func() error { return nil }, false},
		{"go.mod has changed", func() error {
			return os.WriteFile(gomod, []byte("module example.org/hello\n\ngo 1.26.0\n\n// newer\n"), 0o644)
		}, true},
		{"an interrupted build left no stamp", func() error { return os.Remove(b.stamp("hello")) }, true},
		{"the program is gone", func() error { return os.Remove(b.path("hello")) }, true},
		{"everything is there again", func() error { return nil }, false},
	} {
		if err := step.before(); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		if err := b.build(t.Context(), &said, []Program{"hello"}); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := strings.Contains(said.String(), "built hello in "); got != step.builds {
			t.Errorf("When %s, built is %t, want %t; it said %q", step.name, got, step.builds, said.String())
		}
		if info, err := os.Stat(b.path("hello")); err != nil || info.Mode()&0o100 == 0 {
			t.Errorf("When %s, there is no program to execute: %v, %v", step.name, info, err)
		}
	}
}

func TestBuildsAtTheSameTimeBuildOnce(t *testing.T) {
	b := newModule(t)
	said := make([]strings.Builder, 4)
	var group sync.WaitGroup
	for i := range said {
		group.Go(func() {
			if err := b.build(t.Context(), &said[i], []Program{"hello"}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	built := 0
	for i := range said {
		built += strings.Count(said[i].String(), "built hello")
	}
	if built != 1 {
		t.Errorf("Four builds at the same time built %d times, want once", built)
	}
}

func TestBuildErrors(t *testing.T) {
	t.Run("a program that does not compile shows the compiler's message and leaves no stamp", func(t *testing.T) {
		b := newModule(t)
		err := b.build(t.Context(), &strings.Builder{}, []Program{"bad"})
		if err == nil || !strings.Contains(err.Error(), "undefined: nothing") {
			t.Errorf("Error is %v, want the compiler's message", err)
		}
		if _, err := os.Stat(b.stamp("bad")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stamp after a failed build: %v", err)
		}
	})
	t.Run("an unknown program", func(t *testing.T) {
		b := newModule(t)
		if err := b.build(t.Context(), &strings.Builder{}, []Program{"kubelet"}); err == nil {
			t.Error("Built")
		}
	})
	t.Run("a lock that is held is waited for no longer than the context", func(t *testing.T) {
		b := newModule(t)
		if err := os.Mkdir(filepath.Join(b.module, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		unlock, err := lock(t.Context(), &strings.Builder{}, filepath.Join(b.module, "bin", ".lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		var said strings.Builder
		if err := b.build(ctx, &said, []Program{"hello"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Error is %v, want the end of the context", err)
		}
		if !strings.Contains(said.String(), "waiting for another process") {
			t.Errorf("It said %q, want that it waits", said.String())
		}
	})
}

func TestTailIsTheLastLines(t *testing.T) {
	for _, row := range []struct {
		text string
		n    int
		want string
	}{
		{"", 2, ""},
		{"a", 2, "a"},
		{"a\nb\n", 2, "a\nb"},
		{"a\nb\nc\n", 2, "b\nc"},
		{"a\n\nc\n\n", 2, "\nc"},
	} {
		if got := string(tail([]byte(row.text), row.n)); got != row.want {
			t.Errorf("The last %d lines of %q are %q, want %q", row.n, row.text, got, row.want)
		}
	}
}

func TestRootHoldsTheMainModule(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "deploy", "member", "rbac.yaml")); err != nil {
		t.Error(err)
	}
	if _, ok := moduleAbove(t.TempDir(), mainModule); ok {
		t.Error("An unrelated folder is taken for the repository")
	}
}
