package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clusterset-dns/clusterset-dns/test/server"
)

// account is somebody who may read what a member exports, with credentials for north.
type account struct{ user string }

// newAccount makes a ServiceAccount of that name in north, or anew, and lets it read. The end of the test removes it.
func newAccount(t *testing.T, name string) account {
	t.Helper()
	a := account{"system:serviceaccount:" + namespace + ":" + name}
	must(t, north.Apply(t.Context(), fmt.Appendf(nil, `apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
`, name, namespace)))
	a.mayRead(t)
	t.Cleanup(func() { a.remove(t) })
	return a
}

func (a account) name() string { return a.user[strings.LastIndexByte(a.user, ':')+1:] }

// mayRead binds the account, by its name as a user, to the role of the server.
func (a account) mayRead(t *testing.T) {
	t.Helper()
	must(t, north.Apply(t.Context(), fmt.Appendf(nil, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-%s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: clusterset-dns-member}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %q}]
`, a.name(), a.user)))
}

// mayNotRead takes that away again.
func (a account) mayNotRead(t *testing.T) {
	t.Helper()
	must(t, north.Core.RbacV1().ClusterRoleBindings().Delete(context.Background(), "e2e-"+a.name(), metav1.DeleteOptions{}))
}

// remove deletes the account, and with it all of its tokens.
func (a account) remove(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	_ = north.Core.RbacV1().ClusterRoleBindings().Delete(ctx, "e2e-"+a.name(), metav1.DeleteOptions{})
	_ = north.Core.CoreV1().ServiceAccounts(namespace).Delete(ctx, a.name(), metav1.DeleteOptions{})
}

// token asks for a token of the account.
func (a account) token(t *testing.T, life time.Duration) string {
	t.Helper()
	seconds := int64(life / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	made, err := north.Core.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), a.name(), request, metav1.CreateOptions{})
	must(t, err)
	return made.Status.Token
}

// certificate makes a client certificate of the account.
func (a account) certificate(t *testing.T, life time.Duration) (certPEM, keyPEM []byte) {
	t.Helper()
	certPEM, keyPEM, err := north.ClientCertificate(a.user, time.Now().Add(life))
	must(t, err)
	return certPEM, keyPEM
}

// folder holds the kubeconfig of north and the files that it names.
type folder struct {
	dir string
	// secrets are those that were ever in it.
	secrets []string
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// put writes a file as a whole; its content is a secret.
func (f *folder) put(t *testing.T, name string, text []byte) {
	t.Helper()
	f.secrets = append(f.secrets, string(text))
	must(t, os.WriteFile(f.path(name+".new"), text, 0o600))
	must(t, os.Rename(f.path(name+".new"), f.path(name)))
}

// kubeconfig writes a kubeconfig for north with that user.
func (f *folder) kubeconfig(t *testing.T, user *clientcmdapi.AuthInfo) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(north.Kubeconfig())
	must(t, err)
	for name := range config.AuthInfos {
		config.AuthInfos[name] = user
	}
	text, err := clientcmd.Write(*config)
	must(t, err)
	f.put(t, "kubeconfig", text)
	f.secrets[len(f.secrets)-1] = user.Token
}

// stanza is a stanza with east and north, in which north has the kubeconfig of the folder.
func (f *folder) stanza() string {
	return strings.Replace(stanza([]cluster{east, north}), north.Kubeconfig(), f.path("kubeconfig"), 1)
}

// silent checks that no secret is in the log or in the metrics of a server.
func (f *folder) silent(t *testing.T, s *server.Server) {
	t.Helper()
	families, err := s.Metrics(t.Context())
	must(t, err)
	shown := s.Log() + fmt.Sprint(families)
	for _, secret := range f.secrets {
		// A part of a token is as bad: its signature is at its end.
		if part := secret[max(0, len(secret)-40):]; strings.TrimSpace(part) != "" && strings.Contains(shown, strings.TrimSpace(part)) {
			t.Errorf("a secret is in the log or in the metrics: ...%s", part[max(0, len(part)-8):])
		}
	}
}

// expires checks when the credentials for north end.
func expires(s *server.Server, life time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		at, err := metric(ctx, s, "coredns_clusterset_credential_expiry_timestamp_seconds", "cluster", "north", "source", "exports")
		if err == nil && (time.Until(time.Unix(int64(at), 0))-life).Abs() > time.Minute {
			err = fmt.Errorf("they end in %s, want %s", time.Until(time.Unix(int64(at), 0)), life)
		}
		return err
	}
}

const plugin = `#!/bin/sh
echo called >> "$COUNT"
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s", "expirationTimestamp": "%s"}}' \
	"$(cat "$TOKEN")" "$(date -u -d "+$LIFE seconds" +%Y-%m-%dT%H:%M:%SZ)"
`

func TestCredentialsRotate(t *testing.T) {
	tests := []struct {
		name, id string
		// begin writes the first credentials, of an account that has them for an hour.
		begin func(t *testing.T, f *folder, a account)
		// rotate replaces them by those of another, for two hours.
		rotate func(t *testing.T, f *folder, a account, s *server.Server)
		// soon is how long it may take until the new ones are used.
		soon time.Duration
		// ends is when the new ones end.
		ends time.Duration
	}{
		{
			"a token in the kubeconfig", "inline",
			func(t *testing.T, f *folder, a account) {
				t.Helper()
				f.kubeconfig(t, &clientcmdapi.AuthInfo{Token: a.token(t, time.Hour)})
			},
			func(t *testing.T, f *folder, a account, _ *server.Server) {
				t.Helper()
				f.kubeconfig(t, &clientcmdapi.AuthInfo{Token: a.token(t, 2*time.Hour)})
			},
			10 * time.Second, 2 * time.Hour,
		},
		{
			"a token file", "file",
			func(t *testing.T, f *folder, a account) {
				t.Helper()
				f.put(t, "token", []byte(a.token(t, time.Hour)))
				f.kubeconfig(t, &clientcmdapi.AuthInfo{TokenFile: "token"})
			},
			func(t *testing.T, f *folder, a account, _ *server.Server) {
				t.Helper()
				f.put(t, "token", []byte(a.token(t, 2*time.Hour)))
			},
			10 * time.Second, 2 * time.Hour,
		},
		{
			"a client certificate", "cert",
			func(t *testing.T, f *folder, a account) {
				t.Helper()
				cert, key := a.certificate(t, time.Hour)
				f.put(t, "tls.crt", cert)
				f.put(t, "tls.key", key)
				f.kubeconfig(t, &clientcmdapi.AuthInfo{ClientCertificate: "tls.crt", ClientKey: "tls.key"})
			},
			func(t *testing.T, f *folder, a account, s *server.Server) {
				t.Helper()
				cert, key := a.certificate(t, 2*time.Hour)
				f.put(t, "tls.crt", cert)
				within(t, limit, "the server sees that the key does not fit", func(context.Context) error {
					if !strings.Contains(s.Log(), "the client key does not belong to the client certificate") {
						return errors.New("it says nothing")
					}
					return nil
				})
				f.put(t, "tls.key", key)
			},
			17 * time.Second, 2 * time.Hour,
		},
		{
			"an exec plugin", "exec",
			func(t *testing.T, f *folder, a account) {
				t.Helper()
				must(t, os.WriteFile(f.path("plugin"), []byte(plugin), 0o700))
				f.put(t, "token", []byte(a.token(t, time.Hour)))
				f.kubeconfig(t, &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
					APIVersion: "client.authentication.k8s.io/v1", Command: "./plugin", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
					Env: []clientcmdapi.ExecEnvVar{{Name: "TOKEN", Value: f.path("token")}, {Name: "COUNT", Value: f.path("count")}, {Name: "LIFE", Value: "20"}},
				}})
			},
			func(t *testing.T, f *folder, a account, _ *server.Server) {
				t.Helper()
				f.put(t, "token", []byte(a.token(t, 2*time.Hour)))
			},
			25 * time.Second, 20 * time.Second,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			here, there := "creds-"+test.id+"-east", "creds-"+test.id+"-north"
			export(t, east, here, "10.1.0.1")
			object := export(t, north, there, "10.3.0.1", "10.3.0.2")
			was, next := newAccount(t, test.id+"-was"), newAccount(t, test.id+"-next")
			f := &folder{dir: t.TempDir()}
			test.begin(t, f, was)
			startEast, start := mark(t, east), mark(t, north)
			s := run(t, corefile(f.stanza()))
			ready(t, s)
			within(t, limit, there, answers(s, name(there), 2))
			settled(t, startEast, readsOfLocal)
			within(t, limit, "the first credentials are used", usedBy(t, start, was))
			l, r := ask(t, s, time.Millisecond, has(name(here), 1), has(name(there), 2), denied(name("nobody"))), watchReadiness(t, s)
			undisturbed, since := mark(t, east), mark(t, north)
			streams := time.Now()
			within(t, limit, "the streams are a second old", func(context.Context) error {
				if time.Since(streams) < 1100*time.Millisecond {
					return errors.New("client-go lists anew what has streamed for less")
				}
				return nil
			})

			began := time.Now()
			test.rotate(t, f, next, s)
			within(t, limit, "the new credentials are used", usedBy(t, since, next))
			took := time.Since(began)
			if took > test.soon {
				t.Errorf("it took %s until the new credentials are used, want %s", round(took), test.soon)
			}
			was.mayNotRead(t)
			within(t, limit, "their end is known", expires(s, test.ends))
			l.end()
			l.check(t)
			object.Addresses = append(object.Addresses, "10.3.0.3")
			must(t, north.UpdateSlice(t.Context(), object.Slice()))
			shows := within(t, limit, "a change after the rotation", answers(s, name(there), 3))
			r.end()
			r.check(t)
			if got := undisturbed.reads(t); len(got) != 0 {
				t.Errorf("requests to another member: %v, want none", got)
			}
			lists := 0
			for what, n := range since.reads(t) {
				if strings.HasPrefix(what, "list ") {
					lists += n
				}
			}
			if lists != 0 {
				t.Errorf("%d lists because of new credentials, want none: streams go on where they were", lists)
			}
			f.silent(t, s)
			t.Logf("%s until the new credentials are used, a change then shows after %s; %d answers meanwhile", round(took), round(shows), l.answered())
		})
	}
}

// usedBy checks that all that a member exports is watched by an account.
func usedBy(t *testing.T, since audit, a account) func(context.Context) error {
	t.Helper()
	return func(context.Context) error {
		got := since.watchedBy(t, a.user)
		if got["serviceexports"] == 0 || got["services"] == 0 || got["endpointslices"] == 0 {
			return fmt.Errorf("%s watches %v", a.user, got)
		}
		return nil
	}
}

func TestRevokedToken(t *testing.T) {
	const here, there = "revoked-east", "revoked-north"
	export(t, east, here, "10.1.0.1")
	object := export(t, north, there, "10.3.0.1", "10.3.0.2")
	a := newAccount(t, "revoked")
	f := &folder{dir: t.TempDir()}
	f.put(t, "token", []byte(a.token(t, time.Hour)))
	f.kubeconfig(t, &clientcmdapi.AuthInfo{TokenFile: "token"})
	s := run(t, corefile(f.stanza()))
	ready(t, s)
	within(t, limit, there, answers(s, name(there), 2))
	l, r := ask(t, s, time.Millisecond, has(name(here), 1), has(name(there), 2), denied(name("nobody"))), watchReadiness(t, s)

	// A stream that is open goes on, whatever becomes of its token: a restart ends it.
	a.remove(t)
	must(t, north.KillAPIServer())
	must(t, north.StartAPIServer(t.Context()))
	within(t, limit, "the problem is reported", shows(s, 1, problemMetric, "cluster", "north", "resource", "services", "reason", "unauthorized"))
	since := mark(t, north)
	const seen = 10 * time.Second
	time.Sleep(seen)
	rejected := len(since.ours(t))
	if rejected > 120 { // 2 sources with 4 resources, each every 5 s to 10 s, and first ones sooner
		t.Errorf("%d requests in %s with a token that is not accepted: this is a loop", rejected, seen)
	}
	now(t, once(s, `WARNING.*north.*services cannot be read \(unauthorized\)`))

	a = newAccount(t, "revoked")
	began := time.Now()
	f.put(t, "token", []byte(a.token(t, time.Hour)))
	within(t, limit, "nothing is wrong any more", shows(s, 0, problemMetric, "cluster", "north", "reason", "unauthorized"))
	took := time.Since(began)
	l.end()
	l.check(t)
	r.end()
	r.check(t)
	object.Addresses = append(object.Addresses, "10.3.0.3")
	must(t, north.UpdateSlice(t.Context(), object.Slice()))
	within(t, limit, "a change with the new token", answers(s, name(there), 3))
	f.silent(t, s)
	t.Logf("%d requests in %s without a valid token; %s until a new one is used; %d answers meanwhile", rejected, seen, round(took), l.answered())
	if took > 10*time.Second {
		t.Errorf("it took %s until the new token is used", round(took))
	}
}

func TestInsecureMemberIsSeen(t *testing.T) {
	config, err := clientcmd.LoadFromFile(north.Kubeconfig())
	must(t, err)
	for _, c := range config.Clusters {
		c.CertificateAuthorityData, c.InsecureSkipTLSVerify = nil, true
	}
	f := &folder{dir: t.TempDir()}
	must(t, clientcmd.WriteToFile(*config, f.path("kubeconfig")))
	s := run(t, corefile(f.stanza()))
	ready(t, s)
	now(t, once(s, `WARNING.*north.*insecure-skip-tls-verify`))
	now(t, shows(s, 1, "coredns_clusterset_tls_verification_disabled", "source", "exports"))
	must(t, s.Reload(t.Context(), corefile(f.stanza(), "# changed")))
	if got := strings.Count(s.Log(), "insecure-skip-tls-verify"); got != 2 {
		t.Errorf("it was said %d times after a start and a reload, want 2", got)
	}
}
