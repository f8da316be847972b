package watch

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clientcmdapiv1 "k8s.io/client-go/tools/clientcmd/api/v1"
)

// readKubeconfig reads a kubeconfig of the operator's own and the files that it names.
func readKubeconfig(path, contextName string) (settings, error) {
	r := newReading()
	text, err := r.file(path)
	if err != nil {
		return settings{}, fmt.Errorf("kubeconfig: %w", err)
	}
	raw, err := clientcmd.Load(text)
	if err != nil {
		return settings{}, fmt.Errorf("kubeconfig %s %w", path, misshapen(err))
	}
	if contextName == "" {
		contextName = raw.CurrentContext
	}
	chosen, ok := raw.Contexts[contextName]
	switch {
	case contextName == "":
		return settings{}, fmt.Errorf("kubeconfig %s has no current-context: name the context after the file", path)
	case !ok:
		return settings{}, fmt.Errorf("kubeconfig %s has no context %q", path, contextName)
	}
	out, err := r.kubeconfig(raw, chosen, filepath.Dir(path))
	if err != nil {
		return settings{}, fmt.Errorf("kubeconfig %s, context %q: %w", path, contextName, err)
	}
	return out, nil
}

// kubeconfig makes settings of the chosen context. Paths are relative to dir.
func (r *reading) kubeconfig(raw *clientcmdapi.Config, chosen *clientcmdapi.Context, dir string) (settings, error) {
	cluster, user := raw.Clusters[chosen.Cluster], raw.AuthInfos[chosen.AuthInfo]
	switch {
	case cluster == nil:
		return settings{}, fmt.Errorf("there is no cluster %q", chosen.Cluster)
	case user == nil:
		return settings{}, fmt.Errorf("there is no user %q", chosen.AuthInfo)
	case user.AuthProvider != nil:
		return settings{}, fmt.Errorf("auth-provider %q is not supported: use exec or tokenFile", user.AuthProvider.Name)
	}
	if err := errors.Join(checkServer(cluster.Server), checkProxy(cluster.ProxyURL)); err != nil {
		return settings{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return settings{}, err
	}
	names := append(clientcmd.GetClusterFileReferences(cluster), clientcmd.GetAuthInfoFileReferences(user)...)
	if err := clientcmd.ResolvePaths(names, dir); err != nil {
		return settings{}, err
	}
	err = errors.Join(
		r.token(&user.Token, &user.TokenFile),
		r.inline(&cluster.CertificateAuthorityData, &cluster.CertificateAuthority),
		r.inline(&user.ClientCertificateData, &user.ClientCertificate),
		r.inline(&user.ClientKeyData, &user.ClientKey),
	)
	if err != nil {
		return settings{}, err
	}
	only := clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"it": cluster}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"it": user},
		Contexts: map[string]*clientcmdapi.Context{"it": {Cluster: "it", AuthInfo: "it"}}, CurrentContext: "it",
	}
	config, err := clientcmd.NewDefaultClientConfig(only, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return settings{}, err
	}
	out := settings{config: tuned(config), proxy: cluster.ProxyURL, files: r.files, sum: r.digest()}
	if p := config.ExecProvider; p != nil && config.BearerToken == "" && config.Username == "" && len(config.CertData) == 0 {
		if err := checkPlugin(p); err != nil {
			return settings{}, err
		}
		out.plugin = p
	}
	out.config.ExecProvider = nil
	return out, out.check()
}

// checkServer looks at the address of an API server without showing it: it may hold what it should not.
func checkServer(server string) error {
	_, err := url.Parse(server)
	switch {
	case server == "":
		return errors.New("the cluster has no server")
	case strings.ContainsAny(server, "@?#"):
		return errors.New("the address of the server holds more than scheme, host, port and path: credentials belong to the user")
	case err != nil && strings.Contains(server, "://"):
		return errors.New("the address of the server is no URL: use https://HOST:PORT")
	default:
		return nil
	}
}

func checkProxy(proxy string) error {
	if proxy == "" {
		return nil
	}
	if u, err := url.Parse(proxy); err != nil || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme) || u.Host == "" {
		return errors.New("proxy-url is no URL: use http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
	}
	return nil
}

// inLine finds where a YAML parser stumbled. The rest of what it says may be a part of the text.
var inLine = regexp.MustCompile(`\bline \d+`)

// misshapen replaces a parser's error by one that shows nothing of the text.
func misshapen(err error) error {
	if at := inLine.FindString(err.Error()); at != "" {
		return fmt.Errorf("is no kubeconfig: it cannot be parsed, %s", at)
	}
	return errors.New("is no kubeconfig: it cannot be parsed, or a field has the wrong type")
}

// maxKubeconfig is how large the kubeconfig of a dynamic member may be, in bytes: as much as a Secret can hold.
const maxKubeconfig = 1 << 20

// ParseKubeconfig takes the kubeconfig of a member that comes and goes while the server runs. Whoever may add members
// must not thereby gain what this process can do, so it may hold nothing but the address of a server that speaks TLS,
// its certificate authority, and credentials that are written in it: no file is read, no program is run, no proxy is
// used, and the server's certificate is always verified. The context is the current one, or the only one there is.
//
// name says whose it is, for the error, which names what is wrong and what would be right, and shows nothing secret.
func ParseKubeconfig(name string, text []byte) (Connection, error) {
	config, err := parseInline(text)
	if err != nil {
		return Connection{}, fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	key, err := keyOf("inline", config.Host, config.ServerName, config.CAData, config.DisableCompression,
		config.BearerToken, config.Username, config.Password, config.CertData, config.KeyData)
	if err != nil {
		return Connection{}, err
	}
	return Connection{access: newAccess("kubeconfig of "+name, settings{config: config}, nil), Key: key}, nil
}

func parseInline(text []byte) (*rest.Config, error) {
	if len(text) > maxKubeconfig {
		return nil, fmt.Errorf("it has more than %d bytes", maxKubeconfig)
	}
	var file clientcmdapiv1.Config
	if err := utilyaml.UnmarshalStrict(text, &file); err != nil {
		return nil, misshapenStrictly(err)
	}
	if cmp.Or(file.Kind, "Config") != "Config" || cmp.Or(file.APIVersion, "v1") != "v1" {
		return nil, errors.New("it is not of kind Config, apiVersion v1")
	}
	chosen, err := chosenContext(&file)
	if err != nil {
		return nil, err
	}
	cluster, err := the("cluster", chosen.Cluster, file.Clusters, func(c clientcmdapiv1.NamedCluster) (string, clientcmdapiv1.Cluster) { return c.Name, c.Cluster })
	if err != nil {
		return nil, err
	}
	user, err := the("user", chosen.AuthInfo, file.AuthInfos, func(u clientcmdapiv1.NamedAuthInfo) (string, clientcmdapiv1.AuthInfo) { return u.Name, u.AuthInfo })
	if err != nil {
		return nil, err
	}
	if err := errors.Join(inlineCluster(cluster), inlineUser(user)); err != nil {
		return nil, err
	}
	config := tuned(&rest.Config{
		Host: cluster.Server, DisableCompression: cluster.DisableCompression,
		BearerToken: strings.TrimSpace(user.Token), Username: user.Username, Password: user.Password,
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: cluster.TLSServerName, CAData: cluster.CertificateAuthorityData,
			CertData: user.ClientCertificateData, KeyData: user.ClientKeyData,
		},
	})
	return config, settings{config: config}.check()
}

// misshapenStrictly says more than misshapen where it can. Which field is not known it does not say: where a file is
// broken, anything can stand in the place of a name.
func misshapenStrictly(err error) error {
	if strings.Contains(err.Error(), "unknown field") {
		return errors.New("it has a field that is not known here: remove it, or correct its name")
	}
	return fmt.Errorf("it %w", misshapen(err))
}

func chosenContext(file *clientcmdapiv1.Config) (clientcmdapiv1.Context, error) {
	name := file.CurrentContext
	if name == "" {
		if len(file.Contexts) != 1 {
			return clientcmdapiv1.Context{}, fmt.Errorf("it has no current-context and %d contexts: set current-context", len(file.Contexts))
		}
		name = file.Contexts[0].Name
	}
	return the("context", name, file.Contexts, func(c clientcmdapiv1.NamedContext) (string, clientcmdapiv1.Context) { return c.Name, c.Context })
}

// the returns the one entry of that name.
func the[N, T any](what, name string, entries []N, split func(N) (string, T)) (found T, err error) {
	count := 0
	for _, e := range entries {
		if n, value := split(e); n == name {
			found = value
			count++
		}
	}
	switch count {
	case 0:
		return found, fmt.Errorf("there is no %s %q", what, name)
	case 1:
		return found, nil
	default:
		return found, fmt.Errorf("there are %d entries for %s %q: remove all but one", count, what, name)
	}
}

// refusal is one thing that the kubeconfig of a dynamic member must not hold.
type refusal struct {
	is       bool
	why, fix string
}

func refuse(refusals []refusal) error {
	for _, r := range refusals {
		if r.is {
			return fmt.Errorf("%s: %s", r.why, r.fix)
		}
	}
	return nil
}

func inlineCluster(c clientcmdapiv1.Cluster) error {
	u, err := url.Parse(c.Server)
	err = errors.Join(checkServer(c.Server), refuse([]refusal{
		{err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "", "the address of the server does not begin with https://", "use https://HOST:PORT, for credentials are sent there"},
		{c.InsecureSkipTLSVerify, "insecure-skip-tls-verify", "the server's certificate is always verified, so give its certificate-authority-data"},
		{c.CertificateAuthority != "", "certificate-authority is the path of a file", "put its content, in base64, into certificate-authority-data"},
		{c.ProxyURL != "", "proxy-url", "the server must be reachable directly, so remove it"},
	}))
	if err != nil {
		return err
	}
	c.Server, c.TLSServerName, c.CertificateAuthorityData, c.DisableCompression, c.Extensions = "", "", nil, false, nil
	return unknown("cluster", c)
}

const inlineFix = "put its content, in base64, into "

func inlineUser(u clientcmdapiv1.AuthInfo) error {
	err := refuse([]refusal{
		{u.Exec != nil, "exec is a program", "give a token or client-certificate-data and client-key-data"},
		{u.AuthProvider != nil, "auth-provider", "give a token or client-certificate-data and client-key-data"},
		{u.TokenFile != "", "tokenFile is the path of a file", "put its content into token"},
		{u.ClientCertificate != "", "client-certificate is the path of a file", inlineFix + "client-certificate-data"},
		{u.ClientKey != "", "client-key is the path of a file", inlineFix + "client-key-data"},
		{
			u.Impersonate != "" || u.ImpersonateUID != "" || len(u.ImpersonateGroups) > 0 || len(u.ImpersonateUserExtra) > 0,
			"impersonation", "give credentials of the account itself",
		},
		{
			u.Token == "" && u.Username == "" && len(u.ClientCertificateData) == 0, "the user has no credentials",
			"give a token or client-certificate-data and client-key-data",
		},
		{u.Token != "" && u.Username != "", "the user has a token and a password", "keep one of them"},
		{strings.ContainsFunc(strings.TrimSpace(u.Token), func(r rune) bool { return r <= ' ' || r > '~' }), "the token holds what cannot stand in a header", "give it in one line"},
	})
	if err != nil {
		return err
	}
	u.Token, u.Username, u.Password, u.ClientCertificateData, u.ClientKeyData, u.Extensions = "", "", "", nil, nil, nil
	return unknown("user", u)
}

// unknown refuses what is left when everything that we know has been taken out: a field that a later version of
// client-go brings is not trusted until somebody has thought about it.
func unknown(what string, rest any) error {
	if reflect.ValueOf(rest).IsZero() {
		return nil
	}
	return fmt.Errorf("the %s holds something that is not known here: give nothing but the address, the certificate authority and the credentials", what)
}
