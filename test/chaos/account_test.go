package chaos

import (
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// account is a ServiceAccount of north that may read what the server reads, and can be taken away without harm to others.
const account = "revocable"

// newToken makes the account if it is not there, and returns a token.
func newToken(t *testing.T) string {
	t.Helper()
	must(t, north.Apply(t.Context(), fmt.Appendf(nil, `apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: chaos-%[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: clusterset-dns-member}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: %[2]s}]
`, account, namespace)))
	made, err := north.Core.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return made.Status.Token
}

// revokeTokens makes every token of the account worthless.
func revokeTokens(t *testing.T) {
	t.Helper()
	must(t, north.Core.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), account, metav1.DeleteOptions{}))
}

// with returns a change of a kubeconfig that gives it a token.
func with(token string) func(*clientcmdapi.Config) {
	return func(config *clientcmdapi.Config) {
		for _, user := range config.AuthInfos {
			user.Token = token
		}
	}
}
