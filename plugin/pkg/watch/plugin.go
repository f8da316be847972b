package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientauthenticationv1 "k8s.io/client-go/pkg/apis/clientauthentication/v1"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// credentials are what an exec plugin gave. The zero value is none.
type credentials struct {
	token            string
	certificate, key []byte
	// expiry is when the plugin wants to be asked again, the zero time when it does not say.
	expiry time.Time
}

// in returns a configuration with these credentials in it.
func (c credentials) in(config *rest.Config) *rest.Config {
	if c.token == "" && c.certificate == nil {
		return config
	}
	config = rest.CopyConfig(config)
	config.BearerToken, config.CertData, config.KeyData = c.token, c.certificate, c.key
	return config
}

func (c credentials) equal(o credentials) bool {
	return c.token == o.token && bytes.Equal(c.certificate, o.certificate) && bytes.Equal(c.key, o.key)
}

// Limits of an exec plugin.
const (
	pluginTimeout = 30 * time.Second
	pluginOutput  = 1 << 20 // bytes
)

// pluginVersions are the forms of ExecCredential that we speak. They differ in nothing that matters here.
var pluginVersions = []string{clientauthenticationv1.SchemeGroupVersion.String(), "client.authentication.k8s.io/v1beta1"}

// checkPlugin finds what would not work, before anything is run.
func checkPlugin(p *clientcmdapi.ExecConfig) error {
	switch {
	case !slices.Contains(pluginVersions, p.APIVersion):
		return fmt.Errorf("exec: apiVersion %q is not known: use %s", p.APIVersion, pluginVersions[0])
	case p.InteractiveMode == clientcmdapi.AlwaysExecInteractiveMode:
		return errors.New("exec: the plugin wants to talk to somebody, and here is nobody: use one with interactiveMode Never")
	default:
		return nil
	}
}

// runPlugin asks the exec plugin of the settings for credentials. client-go would do so within a request, would wait for
// ever for a program that hangs, and would hand on to our log whatever the program says. Here it has a time limit, what it
// writes to its standard error is dropped, and what it writes to its standard output is shown to nobody.
func runPlugin(ctx context.Context, s settings) (credentials, error) {
	p := s.plugin
	input, err := pluginInput(s)
	if err != nil {
		return credentials{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Command, p.Args...) //nolint:gosec // the operator's own kubeconfig names it
	cmd.Env = append(os.Environ(), input)
	for _, e := range p.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.WaitDelay = time.Second // its children may keep the pipe
	out := &bounded{}
	cmd.Stdout = out
	err = cmd.Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return credentials{}, fmt.Errorf("exec plugin %s: no answer within %s", p.Command, pluginTimeout)
	case errors.Is(err, exec.ErrWaitDelay):
		// It has ended well, and left something behind that has not.
	case failed:
		return credentials{}, fmt.Errorf("exec plugin %s: exit code %d; run it by hand to see what it says, which is not shown here because it may be secret", p.Command, exit.ExitCode())
	case err != nil:
		return credentials{}, fmt.Errorf("exec plugin %s: %w", p.Command, err)
	}
	c, err := parseCredential(out.Bytes(), p.APIVersion)
	if err != nil {
		return credentials{}, fmt.Errorf("exec plugin %s: %w", p.Command, err)
	}
	return c, nil
}

// bounded keeps a limited part of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len() <= pluginOutput {
		b.Buffer.Write(p)
	}
	return len(p), nil
}

// pluginInput is the environment variable that tells a plugin what is wanted.
func pluginInput(s settings) (string, error) {
	ask := clientauthenticationv1.ExecCredential{TypeMeta: metav1.TypeMeta{APIVersion: s.plugin.APIVersion, Kind: "ExecCredential"}}
	if s.plugin.ProvideClusterInfo {
		config := rest.CopyConfig(s.config)
		config.ExecProvider = s.plugin
		info, err := rest.ConfigToExecCluster(config)
		if err != nil {
			return "", fmt.Errorf("exec plugin %s: cluster information: %w", s.plugin.Command, err)
		}
		ask.Spec.Cluster = &clientauthenticationv1.Cluster{
			Server: info.Server, TLSServerName: info.TLSServerName, InsecureSkipTLSVerify: info.InsecureSkipTLSVerify,
			CertificateAuthorityData: info.CertificateAuthorityData, ProxyURL: info.ProxyURL,
			DisableCompression: info.DisableCompression, Config: runtime.RawExtension{Object: info.Config},
		}
	}
	text, err := json.Marshal(ask)
	return "KUBERNETES_EXEC_INFO=" + string(text), err
}

// parseCredential reads what a plugin has written. Errors show nothing of it.
func parseCredential(text []byte, version string) (credentials, error) {
	var got clientauthenticationv1.ExecCredential
	switch err := json.Unmarshal(text, &got); {
	case err != nil:
		return credentials{}, errors.New("what it writes is no ExecCredential in JSON")
	case got.APIVersion != version || got.Kind != "ExecCredential":
		return credentials{}, fmt.Errorf("it does not write an ExecCredential of %s, which the kubeconfig asks for", version)
	case got.Status == nil || got.Status.Token == "" && got.Status.ClientCertificateData == "":
		return credentials{}, errors.New("it gives neither a token nor a client certificate")
	}
	out := credentials{token: got.Status.Token}
	if got.Status.ClientCertificateData != "" || got.Status.ClientKeyData != "" {
		out.certificate, out.key = []byte(got.Status.ClientCertificateData), []byte(got.Status.ClientKeyData)
		if err := checkKeyPair(out.certificate, out.key); err != nil {
			return credentials{}, err
		}
	}
	if got.Status.ExpirationTimestamp != nil {
		out.expiry = got.Status.ExpirationTimestamp.Time
	}
	return out, nil
}
