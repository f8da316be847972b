package browser

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// TestComplaintsAreHeard proves that the other tests would notice what must not be.
func TestComplaintsAreHeard(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; img-src 'self'")
		switch r.URL.Path {
		case "/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = io.WriteString(w, `console.warn("as it were"); nothing.there();`)
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `<!DOCTYPE html><title>x</title><p style="color: red">x</p><script>1</script><img src="gone.png" alt=""><link rel="icon" href="i.svg"><script src="script.js"></script>`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer other.Close()
	page := tab(t, 800)
	suite.Must(t, page.Open(other.URL))
	for _, want := range []string{"inline style", "inline script", "404", `console.warning "as it were"`, "nothing is not defined"} {
		suite.Within(t, 10*time.Second, want, func(context.Context) error {
			said := strings.Join(page.Complaints(), "\n")
			return unless(strings.Contains(said, want), "%q is not in\n%s", want, said)
		})
	}
}
