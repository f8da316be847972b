package watch

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/mcs"
)

// The secrets of the test kubeconfigs: none of them may ever be seen.
const (
	secretToken    = "S3CR3T-token-of-the-member"
	secretPassword = "S3CR3T-password"
	secretInURL    = "S3CR3T-in-the-address"
)

func TestParseKubeconfig(t *testing.T) {
	const server = "https://192.0.2.1:6443"
	cert, key := certificate(t, "S3CR3T", time.Now().Add(time.Hour))
	_, otherKey := certificate(t, "S3CR3T", time.Now().Add(time.Hour))
	ca := "certificate-authority-data: " + base64.StdEncoding.EncodeToString(cert)
	token := "token: " + secretToken
	good := kubeconfigText(server, ca, token)
	for _, tc := range []struct{ name, text, says string }{
		{"a token", good, ""},
		{"a client certificate", kubeconfigText(server, ca, inlineCertificate(cert, key)), ""},
		{"a user name and a password", kubeconfigText(server, ca, "username: u, password: "+secretPassword), ""},
		{"a server name, no compression, extensions", kubeconfigText(server, "tls-server-name: x, disable-compression: true, extensions: [{name: x, extension: {a: b}}]", token), ""},
		{"JSON", `{"clusters":[{"name":"a","cluster":{"server":"` + server + `"}}],"users":[{"name":"a","user":{"token":"` + secretToken + `"}}],"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}]}`, ""},
		{"one context and no current one", strings.Replace(good, "current-context: it", "", 1), ""},
		{"a user who is not chosen may be anything", strings.Replace(good, "users: [", "users: [{name: other, user: {tokenFile: /x}}, ", 1), ""},

		{"nothing", "", "no current-context and 0 contexts"},
		{"two contexts and no current one", strings.NewReplacer("current-context: it", "", "contexts: [", "contexts: [{name: x, context: {}}, ").Replace(good), "no current-context and 2 contexts"},
		{"a current context that is not there", strings.Replace(good, "current-context: it", "current-context: that", 1), `no context "that"`},
		{"a cluster that is not there", strings.Replace(good, "cluster: it", "cluster: that", 1), `no cluster "that"`},
		{"a user that is not there", strings.Replace(good, "user: it", "user: that", 1), `no user "that"`},
		{"two users of one name", strings.Replace(good, "users: [", "users: [{name: it, user: {}}, ", 1), `2 entries for user "it"`},
		{"too large", good + strings.Repeat("#", maxKubeconfig), "more than 1048576 bytes"},
		{"no YAML", "{" + good, "cannot be parsed"},
		{"a token where a list belongs", "users: " + secretToken, "wrong type"},
		{"another kind", strings.Replace(good, "kind: Config", "kind: Secret", 1), "not of kind Config"},
		{"a field that nobody knows", kubeconfigText(server, ca, token+", tokn: "+secretToken), "a field that is not known here"},
		{"a secret in place of a field", kubeconfigText(server, ca, token+", "+secretToken+": x"), "a field that is not known here"},
		{"a field twice", kubeconfigText(server, ca, token+", "+token), "cannot be parsed"},

		{"exec", kubeconfigText(server, ca, "exec: {command: /bin/true, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}"), "exec is a program: give a token"},
		{"exec beside a token", kubeconfigText(server, ca, token+", exec: {command: /bin/true}"), "exec is a program"},
		{"an auth provider", kubeconfigText(server, ca, "auth-provider: {name: oidc, config: {id-token: "+secretToken+"}}"), "auth-provider: give a token"},
		{"a token file", kubeconfigText(server, ca, "tokenFile: /etc/passwd"), "tokenFile is the path of a file: put its content into token"},
		{"a certificate file", kubeconfigText(server, ca, "client-certificate: /etc/passwd, client-key: /etc/passwd"), "client-certificate is the path of a file"},
		{"a key file", kubeconfigText(server, ca, token+", client-key: /etc/passwd"), "client-key is the path of a file"},
		{"a CA file", kubeconfigText(server, "certificate-authority: /etc/passwd", token), "put its content, in base64, into certificate-authority-data"},
		{"a proxy", kubeconfigText(server, "proxy-url: http://u:"+secretPassword+"@proxy", token), "proxy-url: the server must be reachable directly"},
		{"TLS that is not verified", kubeconfigText(server, "insecure-skip-tls-verify: true", token), "always verified, so give its certificate-authority-data"},
		{"plain HTTP", kubeconfigText("http://192.0.2.1", "", token), "does not begin with https://"},
		{"a server without a scheme", kubeconfigText("192.0.2.1:6443", "", token), "does not begin with https://"},
		{"a server without a host", kubeconfigText("https://:6443", "", token), "does not begin with https://"},
		{"a server that is no URL", kubeconfigText("https://["+secretInURL, "", token), "no URL"},
		{"no server", kubeconfigText("", "", token), "no server"},
		{"a password in the address", kubeconfigText("https://u:"+secretInURL+"@192.0.2.1", "", token), "credentials belong to the user"},
		{"a token in the address", kubeconfigText("https://192.0.2.1?token="+secretInURL, "", token), "credentials belong to the user"},
		{"impersonation", kubeconfigText(server, ca, token+", as: admin"), "impersonation: give credentials of the account itself"},
		{"impersonation of a group", kubeconfigText(server, ca, token+", as-groups: [admins]"), "impersonation"},

		{"no credentials", kubeconfigText(server, ca, ""), "no credentials: give a token"},
		{"two kinds of credentials", kubeconfigText(server, ca, token+", username: u, password: "+secretPassword), "keep one of them"},
		{"a token of two lines", kubeconfigText(server, ca, `token: "`+secretToken+`\n`+secretToken+`"`), "give it in one line"},
		{"a CA that is no base64", kubeconfigText(server, "certificate-authority-data: "+secretToken+"!", token), "wrong type"},
		{"a CA that is no certificate", kubeconfigText(server, "certificate-authority-data: "+base64.StdEncoding.EncodeToString([]byte(secretToken)), token), "certificate authority is no PEM certificate"},
		{"a certificate that is none", kubeconfigText(server, ca, inlineCertificate([]byte(secretToken), key)), "client certificate is no PEM certificate"},
		{"a key that is none", kubeconfigText(server, ca, inlineCertificate(cert, []byte("-----BEGIN "+secretToken+"-----\n-----END "+secretToken+"-----\n"))), "client key is no PEM private key"},
		{"the key of another certificate", kubeconfigText(server, ca, inlineCertificate(cert, otherKey)), "client key does not belong"},
		{"a key without a certificate", kubeconfigText(server, ca, token+", client-key-data: "+base64.StdEncoding.EncodeToString(key)), "client certificate is no PEM certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := ParseKubeconfig("west", []byte(tc.text))
			switch {
			case tc.says == "" && err != nil:
				t.Fatal(err)
			case tc.says == "":
				acceptable(t, c)
			case err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "west"):
				t.Errorf("The error is %v, want one that says %q and names the member", err, tc.says)
			}
			if err != nil && strings.Contains(err.Error(), "S3CR3T") {
				t.Errorf("A secret is shown: %v", err)
			}
		})
	}
	one, _ := ParseKubeconfig("west", []byte(good))
	same, _ := ParseKubeconfig("west", []byte("# a remark\n"+good))
	other, _ := ParseKubeconfig("west", []byte(kubeconfigText(server, ca, token+"x")))
	if one.Key != same.Key || one.Key == other.Key {
		t.Error("Keys do not follow what is said")
	}
}

// acceptable checks what every connection of a dynamic member must be like.
func acceptable(t *testing.T, c Connection) {
	t.Helper()
	config := c.access.settings.config
	server, err := c.access.open()
	switch {
	case err != nil:
		t.Errorf("It cannot be used: %v", err)
	case server.Scheme != "https" || config.Insecure || config.Proxy != nil || config.Transport != nil || config.Dial != nil || config.WrapTransport != nil:
		t.Errorf("TLS is not what it should be: %s, %+v", server.Scheme, config.Insecure)
	case config.CAFile+config.CertFile+config.KeyFile+config.BearerTokenFile != "" || c.access.read != nil || c.access.settings.plugin != nil:
		t.Error("It reads files or runs a program")
	case config.ExecProvider != nil || config.AuthProvider != nil || config.Impersonate.UserName != "":
		t.Error("It has credentials that are not its own")
	case config.UserAgent != userAgent:
		t.Error("It does not say who we are")
	}
	if _, err := c.clients(); err != nil {
		t.Errorf("It makes no clients: %v", err)
	}
}

func FuzzParseKubeconfig(f *testing.F) {
	cert, key := certificate(f, "x", time.Now().Add(time.Hour))
	ca := "certificate-authority-data: " + base64.StdEncoding.EncodeToString(cert)
	for _, trust := range []string{ca, "insecure-skip-tls-verify: true", "certificate-authority: /x", "proxy-url: http://x", "tls-server-name: x"} {
		f.Add([]byte(kubeconfigText("https://192.0.2.1", trust, "token: t")))
	}
	for _, user := range []string{
		"", inlineCertificate(cert, key), "exec: {command: /x}", "tokenFile: /x", "auth-provider: {name: x}", "as: x", "username: x, password: y",
	} {
		f.Add([]byte(kubeconfigText("https://192.0.2.1", ca, user)))
	}
	for _, server := range []string{"http://x", "https://u:p@x", "x:1", "https://[::1]:6443/a/b", "unix:///x", "https://%zz", "https:x"} {
		f.Add([]byte(kubeconfigText(server, ca, "token: t")))
	}
	f.Add([]byte("a: &a [*a, *a]"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseKubeconfig("west", text)
		if err == nil {
			acceptable(t, c)
		}
	})
}

func TestKubeconfigsOfTheOperator(t *testing.T) {
	cert, key := certificate(t, "x", time.Now().Add(time.Hour))
	const server = "https://192.0.2.1:6443"
	dir := t.TempDir()
	for name, text := range map[string][]byte{"ca": cert, "cert": cert, "key": key, "token": []byte(secretToken + "\n"), "none": nil, "bad": []byte(secretToken)} {
		write(t, filepath.Join(dir, name), text)
	}
	for _, tc := range []struct {
		name, text, says string
		check            func(*rest.Config) bool
	}{
		{"relative paths", kubeconfigText(server, "certificate-authority: ca", "client-certificate: cert, client-key: key"), "", func(c *rest.Config) bool {
			return string(c.CAData) == string(cert) && string(c.CertData) == string(cert) && string(c.KeyData) == string(key) && c.CAFile+c.CertFile+c.KeyFile == ""
		}},
		{"a token file", kubeconfigText(server, "", "tokenFile: token"), "", func(c *rest.Config) bool { return c.BearerToken == secretToken && c.BearerTokenFile == "" }},
		{"a token file takes precedence over a token", kubeconfigText(server, "", "tokenFile: token, token: x"), "", func(c *rest.Config) bool { return c.BearerToken == secretToken }},
		{"a token is as good as a token file that is not there", kubeconfigText(server, "", "tokenFile: nowhere, token: x"), "", func(c *rest.Config) bool { return c.BearerToken == "x" }},
		{"impersonation and a proxy", kubeconfigText(server, "proxy-url: http://proxy", "token: x, as: me"), "", func(c *rest.Config) bool { return c.Impersonate.UserName == "me" && c.Proxy != nil }},
		{"a token takes precedence over a plugin", kubeconfigText(server, "", "token: x, exec: {command: /bin/false, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}"), "", func(c *rest.Config) bool {
			return c.ExecProvider == nil && c.BearerToken == "x"
		}},
		{"TLS that is not verified", kubeconfigText(server, "insecure-skip-tls-verify: true", "token: x"), "", func(c *rest.Config) bool { return c.Insecure }},

		{"an empty token file", kubeconfigText(server, "", "tokenFile: none"), "is empty", nil},
		{"a token file that is not there", kubeconfigText(server, "", "tokenFile: nowhere"), "no such file", nil},
		{"a CA file that is none", kubeconfigText(server, "certificate-authority: bad", "token: x"), "certificate authority is no PEM certificate", nil},
		{"a certificate file that is none", kubeconfigText(server, "", "client-certificate: bad, client-key: key"), "client certificate is no PEM", nil},
		{"a key file that is none", kubeconfigText(server, "", "client-certificate: cert, client-key: bad"), "client key is no PEM", nil},
		{"an auth provider", kubeconfigText(server, "", "auth-provider: {name: oidc, config: {id-token: "+secretToken+"}}"), `auth-provider "oidc" is not supported: use exec or tokenFile`, nil},
		{"a plugin that wants to talk", kubeconfigText(server, "", "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Always}"), "interactiveMode Never", nil},
		{"a plugin of an unknown version", kubeconfigText(server, "", "exec: {command: x, apiVersion: client.authentication.k8s.io/v9, interactiveMode: Never}"), "is not known", nil},
		{"a password in the address", kubeconfigText("https://u:"+secretInURL+"@192.0.2.1", "", "token: x"), "credentials belong to the user", nil},
		{"a server that is no URL", kubeconfigText("https://["+secretInURL, "", "token: x"), "no URL", nil},
		{"a proxy that is no URL", kubeconfigText(server, "proxy-url: 'http://u:"+secretPassword+"@['", "token: x"), "proxy-url is no URL", nil},
		{"a proxy of an unknown kind", kubeconfigText(server, "proxy-url: 'ftp://u:"+secretPassword+"@x'", "token: x"), "proxy-url is no URL", nil},
		{"a token where a list belongs", "users: " + secretToken, "no kubeconfig", nil},
		{"a token where a number belongs", kubeconfigText(server, "insecure-skip-tls-verify: "+secretToken, "token: x"), "no kubeconfig", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(dir, "kubeconfig")
			write(t, path, []byte(tc.text))
			c, err := LoadKubeconfig(path, "")
			switch {
			case tc.says == "" && err != nil:
				t.Fatal(err)
			case tc.says == "" && (!tc.check(c.access.settings.config) || c.Insecure() != c.access.settings.config.Insecure):
				t.Error("It is not what it should be")
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
				t.Errorf("The error is %v, want one that says %q", err, tc.says)
			}
			for _, shown := range []string{fmt.Sprint(err), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), fmt.Sprintf("%+v", &c)} {
				if strings.Contains(shown, "S3CR3T") {
					t.Errorf("A secret is shown: %s", shown)
				}
			}
		})
	}
}

func TestInClusterTokenRotates(t *testing.T) {
	// What InCluster follows has a fixed place on disk, so the test reads another.
	dir := t.TempDir()
	g := newGuardedServer(t, "old")
	write(t, filepath.Join(dir, "token"), []byte("old"))
	write(t, filepath.Join(dir, "ca.crt"), g.ca())
	read := func() (settings, error) {
		return readFiles(&rest.Config{
			Host: g.tls.URL, BearerToken: "stale", BearerTokenFile: filepath.Join(dir, "token"),
			TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
		})
	}
	c, err := follow("test", read, "in-cluster")
	if err != nil {
		t.Fatal(err)
	}
	c.access.look = 10 * time.Millisecond
	g.set("serviceexports", export("shop", "a"))
	w, _ := startWatcher(t, mcs.Exports, c)
	g.watchedBy(t, "old")
	g.accept("old", "new")
	write(t, filepath.Join(dir, "token"), []byte("new"))
	g.watchedBy(t, "new")
	if err := os.Remove(filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
	g.set("services", service("shop", "a", "10.0.0.1"))
	eventually(t, "it goes on without the file", func() bool { return w.Status().State == Synced })
}

func TestServerThatRepeatsWhatItWasSent(t *testing.T) {
	for _, tc := range []struct{ name, user, secret string }{
		{"a token", "token: " + secretToken, secretToken},
		{"a password", "username: u, password: " + secretPassword, secretPassword},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGuardedServer(t)
			g.refusal = func(w http.ResponseWriter, r *http.Request) {
				sent := r.Header.Get("Authorization")
				if _, password, ok := r.BasicAuth(); ok {
					sent = password
				}
				http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":401,"reason":"Unauthorized","message":"do not know `+sent+`"}`, http.StatusUnauthorized)
			}
			path := filepath.Join(t.TempDir(), "kubeconfig")
			write(t, path, []byte(g.kubeconfigOf(tc.user)))
			c := load(t, path)
			seen := &keeper{told: newTold()}
			w, err := Start(Spec{Kind: mcs.Exports, Cluster: "east", Connection: c, Observer: seen})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			eventually(t, "the problem is told", func() bool { return w.problems.any() })
			_, err = c.Region(t.Context())
			said := seen.text() + fmt.Sprint(err)
			if strings.Contains(said, tc.secret) || !strings.Contains(said, hidden) {
				t.Errorf("It says %s, want the secret to be hidden", said)
			}
		})
	}
}

// keeper keeps the errors that an Observer is told.
type keeper struct {
	*told
	errors []string
}

func (k *keeper) Problem(_, _ string, _ Problem, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errors = append(k.errors, fmt.Sprint(err))
}

func (k *keeper) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.errors, "\n")
}

func TestTooManyRequestsIsRespected(t *testing.T) {
	for _, tc := range []struct{ name, watch string }{{"of a list", ""}, {"of a watch", "true"}} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGuardedServer(t, "me")
			g.busyOnce(tc.watch)
			path := filepath.Join(t.TempDir(), "kubeconfig")
			write(t, path, []byte(g.kubeconfigOf("token: me")))
			startWatcher(t, mcs.Namespaces, load(t, path))
			var refused time.Time
			eventually(t, "it is tried again", func() bool {
				for _, r := range g.askedBy("me") {
					if r.status == http.StatusTooManyRequests {
						refused = r.at
					} else if !refused.IsZero() && r.watch == (tc.watch != "") {
						if pause := r.at.Sub(refused); pause < 900*time.Millisecond || pause > 3*time.Second {
							t.Errorf("It was tried again after %s, want the second that the server asks for", pause)
						}
						return true
					}
				}
				return false
			})
		})
	}
}
