package watch

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// followed is a watcher of a guarded server that has told of shop/a.
type followed struct {
	*guardedServer
	*Watcher
	sink *told
	dir  string
}

// newFollowed writes the files of a kubeconfig folder and watches with them, as somebody called old.
func newFollowed(t *testing.T, files func(g *guardedServer, dir string) map[string]string) *followed {
	t.Helper()
	f := &followed{guardedServer: newGuardedServer(t, "old"), dir: t.TempDir()}
	for name, text := range files(f.guardedServer, f.dir) {
		write(t, f.file(name), []byte(text))
	}
	f.offerA()
	f.Watcher, f.sink = startWatcher(t, mcs.Exports, load(t, f.file("kubeconfig")))
	f.sink.has(t, oneIP+" a-1 10.8.0.1")
	f.watchedBy(t, "old")
	return f
}

func (f *followed) file(name string) string { return filepath.Join(f.dir, name) }

func (f *followed) offerA() {
	f.set("serviceexports", export("shop", "a"))
	f.set("services", service("shop", "a", "10.0.0.1"))
	f.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.1"))
}

// renewals waits until the observer was told so many times, and returns what.
func (f *followed) renewals(t *testing.T, want int) (got []error) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d renewals", want), func() bool {
		f.sink.look(func() { got = append([]error(nil), f.sink.renewals...) })
		return len(got) >= want
	})
	return got
}

func inlineCertificate(certPEM, keyPEM []byte) string {
	return "client-certificate-data: " + base64.StdEncoding.EncodeToString(certPEM) +
		", client-key-data: " + base64.StdEncoding.EncodeToString(keyPEM)
}

func TestCredentialsRotateWithoutAGap(t *testing.T) {
	oldCert, oldKey := certificate(t, "old", time.Now().Add(time.Hour))
	newCert, newKey := certificate(t, "new", time.Now().Add(2*time.Hour))
	only := func(user string) func(g *guardedServer, _ string) map[string]string {
		return func(g *guardedServer, _ string) map[string]string {
			return map[string]string{"kubeconfig": g.kubeconfigOf(user)}
		}
	}
	for _, tc := range []struct {
		name   string
		files  func(g *guardedServer, dir string) map[string]string
		rotate func(t *testing.T, f *followed)
	}{
		{
			"a token in the kubeconfig", only("token: old"),
			func(t *testing.T, f *followed) {
				t.Helper()
				write(t, f.file("kubeconfig"), []byte(f.kubeconfigOf("token: new")))
			},
		},
		{
			"a token file",
			func(g *guardedServer, _ string) map[string]string {
				return map[string]string{"kubeconfig": g.kubeconfigOf("tokenFile: token"), "token": "old\n"}
			},
			func(t *testing.T, f *followed) { t.Helper(); write(t, f.file("token"), []byte("new\n")) },
		},
		{
			"a client certificate in the kubeconfig", only(inlineCertificate(oldCert, oldKey)),
			func(t *testing.T, f *followed) {
				t.Helper()
				write(t, f.file("kubeconfig"), []byte(f.kubeconfigOf(inlineCertificate(newCert, newKey))))
			},
		},
		{
			"a client certificate and its key in files that change one after the other",
			func(g *guardedServer, _ string) map[string]string {
				return map[string]string{
					"kubeconfig": g.kubeconfigOf("client-certificate: tls.crt, client-key: tls.key"),
					"tls.crt":    string(oldCert), "tls.key": string(oldKey),
				}
			},
			func(t *testing.T, f *followed) {
				t.Helper()
				write(t, f.file("tls.crt"), newCert)
				if got := f.renewals(t, 1); !strings.Contains(got[0].Error(), "does not belong") {
					t.Errorf("Between the two files it said %v", got[0])
				}
				write(t, f.file("tls.key"), newKey)
			},
		},
		{
			"a mounted Secret, whose files change by one symbolic link",
			func(g *guardedServer, dir string) map[string]string {
				mount(t, filepath.Join(dir, "mounted"), "old")
				return map[string]string{"kubeconfig": g.kubeconfigOf("tokenFile: mounted/..data/token")}
			},
			func(t *testing.T, f *followed) { t.Helper(); mount(t, f.file("mounted"), "new") },
		},
		{
			"a certificate in place of a token", only("token: old"),
			func(t *testing.T, f *followed) {
				t.Helper()
				write(t, f.file("kubeconfig"), []byte(f.kubeconfigOf(inlineCertificate(newCert, newKey))))
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFollowed(t, tc.files)
			f.accept("old", "new")
			// client-go lists anew when a stream has lasted for less than a second.
			eventually(t, "the streams are a second old", func() bool {
				requests := f.askedBy("")
				return time.Since(requests[len(requests)-1].at) > 1100*time.Millisecond
			})
			lists := f.lists()
			calls := 0
			f.sink.look(func() { calls = f.sink.calls })
			tc.rotate(t, f)
			f.watchedBy(t, "new")
			if got := f.lists() - lists; got != 0 {
				t.Errorf("There were %d full lists because of new credentials, want none", got)
			}
			f.sink.look(func() {
				if f.sink.calls != calls {
					t.Errorf("The sink was told %d things, though nothing has changed", f.sink.calls-calls)
				}
			})
			f.accept("new")
			f.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.2"))
			f.sink.has(t, oneIP+" a-1 10.8.0.2")
			f.sink.hadProblems(t)
		})
	}
}

// mount makes or changes a folder as the kubelet mounts a Secret: all files by the symbolic link ..data.
func mount(t *testing.T, dir, token string) {
	t.Helper()
	version := filepath.Join(dir, "..v"+strconv.FormatInt(time.Now().UnixNano(), 10))
	for _, err := range []error{
		os.MkdirAll(version, 0o700), os.WriteFile(filepath.Join(version, "token"), []byte(token), 0o600),
		os.Symlink(filepath.Base(version), filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatDoesNotWorkIsNotUsed(t *testing.T) {
	whole := func(f *followed) string { return f.kubeconfigOf("token: new") }
	for _, tc := range []struct {
		name   string
		broken func(f *followed) string
		says   string
	}{
		{"an empty file", func(*followed) string { return "" }, "no current-context"},
		{"a file of which the end is missing", func(f *followed) string { return whole(f)[:len(whole(f))/2] }, "kubeconfig"},
		{"a token of which the end is missing", func(f *followed) string { return f.kubeconfigOf("token: ne") }, "tried in vain"},
		{"no credentials", func(f *followed) string { return f.kubeconfigOf("") }, "tried in vain"},
		{"a token file that is not there", func(f *followed) string { return f.kubeconfigOf("tokenFile: none") }, "no such file"},
		{"another server that is not there", func(*followed) string { return kubeconfigText("https://127.0.0.1:1", "", "token: new") }, "tried in vain"},
		{
			"another certificate authority", func(f *followed) string {
				ca, _ := certificate(t, "ca", time.Now().Add(time.Hour))
				return kubeconfigText(f.tls.URL, "certificate-authority-data: "+base64.StdEncoding.EncodeToString(ca), "token: new")
			},
			"tried in vain",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFollowed(t, func(g *guardedServer, _ string) map[string]string {
				return map[string]string{"kubeconfig": g.kubeconfigOf("token: old")}
			})
			f.accept("old", "new")
			lists := f.lists()
			write(t, f.file("kubeconfig"), []byte(tc.broken(f)))
			if got := f.renewals(t, 1); got[0] == nil || !strings.Contains(got[0].Error(), tc.says) {
				t.Errorf("It says %v, want %q", got[0], tc.says)
			}
			f.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.2"))
			f.sink.has(t, oneIP+" a-1 10.8.0.2") // the old stream goes on
			write(t, f.file("kubeconfig"), []byte(whole(f)))
			f.watchedBy(t, "new")
			if got := f.renewals(t, 2); len(got) != 2 || got[1] != nil {
				t.Errorf("It said %v, want one refusal and one success", got)
			}
			f.sink.look(func() {
				if len(f.sink.problems) != 0 {
					t.Errorf("Problems were %q, want none", f.sink.problems)
				}
			})
			if got := f.lists() - lists; got > 3 { // streams that are less than a second old are listed anew
				t.Errorf("%d full lists, want no more than one per resource", got)
			}
		})
	}
}

func TestAnotherServerIsListedAnew(t *testing.T) {
	f := newFollowed(t, func(g *guardedServer, _ string) map[string]string {
		return map[string]string{"kubeconfig": g.kubeconfigOf("token: old")}
	})
	other := newGuardedServer(t, "new")
	other.set("serviceexports", export("shop", "a"))
	other.set("services", service("shop", "a", "10.0.0.1"))
	other.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.7"))
	f.tls.CloseClientConnections()
	f.accept() // it may be refused or gone: the new one is as good
	write(t, f.file("kubeconfig"), []byte(other.kubeconfigOf("token: new")))
	f.sink.has(t, oneIP+" a-1 10.8.0.7")
	other.watchedBy(t, "new")
	if len(f.askedBy("new")) > 0 {
		t.Error("The old server was sent the credentials of the new one")
	}
}

func TestRejectedCredentialsAreReadAgain(t *testing.T) {
	f := newFollowed(t, func(g *guardedServer, _ string) map[string]string {
		return map[string]string{"kubeconfig": g.kubeconfigOf("tokenFile: token"), "token": "old"}
	})
	f.accept()
	f.tls.CloseClientConnections()
	eventually(t, "it is not accepted", func() bool { return f.problems.any() })
	began := time.Now()
	time.Sleep(2 * time.Second) // long enough for a loop to be seen
	rejected := 0
	for _, r := range f.askedBy("old") {
		if r.status == http.StatusUnauthorized {
			rejected++
		}
	}
	if rejected < 2 || rejected > 60 {
		t.Errorf("%d requests in %s were rejected, want some but not a loop", rejected, time.Since(began))
	}
	f.accept("new")
	write(t, f.file("token"), []byte("new"))
	began = time.Now()
	f.watchedBy(t, "new")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("The new token was used after %s, want at once and not after the pause between two attempts", took)
	}
	f.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.2"))
	f.sink.has(t, oneIP+" a-1 10.8.0.2")
	eventually(t, "nothing is wrong any more", func() bool { return !f.problems.any() })
	unauthorized := 0
	f.sink.look(func() {
		for _, p := range f.sink.problems {
			if strings.HasSuffix(p, string(Unauthorized)) {
				unauthorized++
			}
		}
	})
	if unauthorized == 0 || unauthorized > 4 { // once per resource, and once for discovery
		t.Errorf("It was said %d times that the credentials are not accepted, want once for each resource", unauthorized)
	}
}

// plugin is a script that gives what stands in a file, and counts.
func plugin(t *testing.T, dir, more string) string {
	t.Helper()
	script := `#!/bin/sh
echo called >> "$COUNT"
case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 9 ;; esac
` + more + `
cat "$CREDENTIAL"
`
	path := filepath.Join(dir, "plugin")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return fmt.Sprintf(`exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never, env: [{name: COUNT, value: %q}, {name: CREDENTIAL, value: %q}]}`,
		filepath.Join(dir, "count"), filepath.Join(dir, "credential"))
}

func credential(token string, life time.Duration) string {
	expires := ""
	if life != 0 {
		expires = fmt.Sprintf(`"expirationTimestamp": %q, `, time.Now().Add(life).UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf(`{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {%s"token": %q}}`, expires, token)
}

// calls is how often the plugin was called.
func (f *followed) pluginCalls() int {
	text, err := os.ReadFile(f.file("count"))
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "called")
}

// newPlugged is newFollowed with an exec plugin.
func newPlugged(t *testing.T, life time.Duration) *followed {
	t.Helper()
	dir := t.TempDir()
	f := &followed{guardedServer: newGuardedServer(t, "old"), dir: dir}
	write(t, f.file("kubeconfig"), []byte(f.kubeconfigOf(plugin(t, dir, ""))))
	write(t, f.file("credential"), []byte(credential("old", life)))
	f.offerA()
	f.Watcher, f.sink = startWatcher(t, mcs.Exports, load(t, f.file("kubeconfig")))
	f.sink.has(t, oneIP+" a-1 10.8.0.1")
	return f
}

func TestPluginIsCalledWhenItsCredentialsEnd(t *testing.T) {
	f := newPlugged(t, 3*time.Second)
	if got := time.Until(f.Status().CredentialExpiry); got > 3*time.Second || got < -time.Second {
		t.Errorf("The credentials end in %s, want at most 3 s", got)
	}
	f.accept("old", "new")
	write(t, f.file("credential"), []byte(credential("new", time.Hour)))
	f.watchedBy(t, "new")
	f.accept("new")
	f.set("endpointslices", slice("shop", "a-1", "a", "10.8.0.2"))
	f.sink.has(t, oneIP+" a-1 10.8.0.2")
	if got := f.pluginCalls(); got > 3 {
		t.Errorf("The plugin was called %d times, want once at the beginning and once at the end", got)
	}
	f.sink.hadProblems(t)
}

func TestPluginIsCalledWhenItsCredentialsAreRejected(t *testing.T) {
	f := newPlugged(t, 0)
	write(t, f.file("credential"), []byte(credential("new", 0)))
	f.accept("new")
	f.tls.CloseClientConnections()
	f.watchedBy(t, "new")
	if got := f.pluginCalls(); got != 2 {
		t.Errorf("The plugin was called %d times, want once at the beginning and once after 401", got)
	}

	before := f.pluginCalls()
	f.accept()
	f.tls.CloseClientConnections()
	eventually(t, "the plugin is called again", func() bool { return f.pluginCalls() > before })
	time.Sleep(2 * time.Second) // long enough for a loop to be seen
	if got := f.pluginCalls() - before; got > 3 {
		t.Errorf("The plugin was called %d times in 2 s, want pauses that grow", got)
	}
}

func TestPluginThatFailsOrHangs(t *testing.T) {
	const secret = "s3cr3t-of-the-plugin"
	for _, tc := range []struct{ name, more, says string }{
		{"fails", "echo " + secret + " >&2; echo " + secret + "; exit 3", "exit code 3"},
		{"gives nothing", "echo '{}'; exit 0", "ExecCredential"},
		{"gives nonsense", "echo " + secret + "; exit 0", "no ExecCredential"},
		{"hangs", "exec sleep 60", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			g := newGuardedServer(t)
			write(t, filepath.Join(dir, "kubeconfig"), []byte(g.kubeconfigOf(plugin(t, dir, tc.more))))
			w, sink := startWatcher(t, mcs.Exports, load(t, filepath.Join(dir, "kubeconfig")))
			if tc.says != "" {
				f := &followed{sink: sink}
				if got := f.renewals(t, 1)[0]; !strings.Contains(got.Error(), tc.says) || strings.Contains(got.Error(), secret) {
					t.Errorf("It says %v, want %q and nothing secret", got, tc.says)
				}
				eventually(t, "the problem is reported", func() bool { return w.problems.any() })
				sink.hadProblems(t, "discovery unauthorized")
			}
			if len(g.askedBy("")) > 0 {
				t.Error("The server was asked without credentials")
			}
			began := time.Now()
			w.Close()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Close took %s", took)
			}
		})
	}
}

func TestPluginIsTold(t *testing.T) {
	dir := t.TempDir()
	g := newGuardedServer(t, "old")
	user := strings.Replace(plugin(t, dir, `printf %s "$KUBERNETES_EXEC_INFO" > "$COUNT.info"`), "interactiveMode", "provideClusterInfo: true, interactiveMode", 1)
	write(t, filepath.Join(dir, "kubeconfig"), []byte(g.kubeconfigOf(user)))
	write(t, filepath.Join(dir, "credential"), []byte(credential("old", 0)))
	c := load(t, filepath.Join(dir, "kubeconfig"))
	if _, err := c.Region(t.Context()); err != nil { // who asks once is served too
		t.Fatal(err)
	}
	info, err := os.ReadFile(filepath.Join(dir, "count.info"))
	if err != nil || !strings.Contains(string(info), g.tls.URL) || !strings.Contains(string(info), "certificate-authority-data") {
		t.Errorf("The plugin was told %s, %v, want the cluster", info, err)
	}
}

func TestPatience(t *testing.T) {
	var p patience
	now := time.Now()
	var waits []time.Duration
	for range 8 {
		p.more(now)
		waits = append(waits, p.until.Sub(now))
		now = p.until
	}
	if want := "[1s 2s 4s 8s 16s 32s 1m0s 1m0s]"; fmt.Sprint(waits) != want {
		t.Errorf("It waits %v, want %s", waits, want)
	}
	now = now.Add(time.Hour)
	if p.more(now); p.wait != renewFirst {
		t.Errorf("After an hour it waits %s", p.wait)
	}
}

func TestSecretsAreConcealed(t *testing.T) {
	a := newAccess("it", settings{}, nil)
	a.previous.Store(&route{secrets: []string{"old-token"}})
	a.current.Store(&route{secrets: []string{"new-token-long", "new-token"}})
	err := fmt.Errorf("you sent old-token, then new-token-long and new-token: %w", errTooLarge)
	got := a.conceal(err)
	if strings.Contains(got.Error(), "-token") || !errors.Is(got, errTooLarge) {
		t.Errorf("Got %v", got)
	}
}

// roundTrip is an http.RoundTripper of one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequestsFollowTheAddress(t *testing.T) {
	for _, tc := range []struct{ name, was, is, want string }{
		{"the address stays", "https://a:1", "https://a:1", "https://a:1/api/v1/nodes?limit=100&resourceVersion=0"},
		{"another host", "https://a:1", "https://b:2", "https://b:2/api/v1/nodes?limit=100&resourceVersion=0"},
		{"a path comes", "https://a", "https://b/k8s/c/", "https://b/k8s/c/api/v1/nodes?limit=100&resourceVersion=0"},
		{"a path goes", "https://a/k8s/c", "https://b", "https://b/api/v1/nodes?limit=100&resourceVersion=0"},
		{"a path becomes another", "https://a/k8s/c", "https://a/k8s/d", "https://a/k8s/d/api/v1/nodes?limit=100&resourceVersion=0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			transport := roundTrip(func(r *http.Request) (*http.Response, error) {
				got = r.URL.String()
				return nil, errTooLarge
			})
			c, err := NewConnection(&rest.Config{Host: tc.was, Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			clients, err := c.clients()
			if err != nil {
				t.Fatal(err)
			}
			next, err := newRoute(settings{config: &rest.Config{Host: tc.is, Transport: transport}}, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			c.access.move(next)
			_, err = clients.metadata.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).
				List(t.Context(), metav1.ListOptions{ResourceVersion: "0", Limit: 100})
			if got != tc.want || !errors.Is(err, errTooLarge) {
				t.Errorf("Asked for %s (%v), want %s", got, err, tc.want)
			}
		})
	}
}

func TestOldSecretsAreForgotten(t *testing.T) {
	f := newFollowed(t, func(g *guardedServer, _ string) map[string]string {
		return map[string]string{"kubeconfig": g.kubeconfigOf("token: old")}
	})
	f.accept("old", "new")
	write(t, f.file("kubeconfig"), []byte(f.kubeconfigOf("token: new")))
	f.watchedBy(t, "new")
	eventually(t, "only the new ones are kept", func() bool { return f.access.latest().config.BearerToken == "new" })
}
