package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTheRuntimeIsTuned looks whether the program does what its own tests look at piece by piece.
func TestTheRuntimeIsTuned(t *testing.T) {
	s, err := Start(t.Context(), binary, `.:{{.DNS}} {
		bind 127.0.0.1
		pprof 127.0.0.1:{{.Port "pprof"}}
		prometheus {{.Metrics}}
	}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(port, path string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", s.Port(port), path), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	sunk, spared := false, false
	for end := time.Now().Add(time.Minute); (!sunk || !spared) && time.Now().Before(end); {
		get("pprof", "debug/pprof/heap?gc=1")
		sunk = strings.Contains(get("pprof", "debug/pprof/goroutine?debug=2"), "main.sink(")
		spared = strings.Contains(get("Metrics", "metrics"), "\ngo_gc_gogc_percent 220\n")
	}
	if !sunk || !spared {
		t.Errorf("A goroutine waits with a deep stack: %v; a small heap is spared from collections: %v", sunk, spared)
	}
}
