package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestWrongCommandLinesAreAnsweredWithTheUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"no command":       {},
		"unknown command":  {"stop"},
		"run without name": {"run", "-controller-manager"},
		"unknown flag":     {"run", "-kubelet", "east"},
	} {
		if err := run(t.Context(), &strings.Builder{}, args); !errors.Is(err, errUsage) {
			t.Errorf("%s: error is %v, want the usage", name, err)
		}
	}
}

// interrupted ends a context when a text is written, as a person would who reads it.
type interrupted struct {
	strings.Builder
	text   string
	cancel context.CancelFunc
}

func (w *interrupted) Write(p []byte) (int, error) {
	n, err := w.Builder.Write(p)
	if strings.Contains(w.String(), w.text) {
		w.cancel()
	}
	return n, err
}

func TestRunPrintsKubeconfigsAndStopsWhenInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &interrupted{text: "Ctrl-C", cancel: cancel}
	if err := run(ctx, w, []string{"run", "east", "west"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"east  https://127.0.0.1:", "west  https://127.0.0.1:", "KUBECONFIG=" + os.TempDir()} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("Output has no %q:\n%s", want, w.String())
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("Left behind: %v, %v", left, err)
	}
}
