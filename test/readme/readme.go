// Package readme types the commands that deploy/README.md and other documents print, as an operator would: from the root of the
// repository, with a kubectl that has the contexts east and west. So tests do what a document says, and not something like it.
package readme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/clusters"
	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// Operator types commands in a folder that has a copy of deploy in it.
type Operator struct {
	// Dir is the folder, which goes with the test.
	Dir      string
	env      []string
	document string // its path
	text     string // what is in it
	commands string // the same, one blank between words
	limit    time.Duration
	other    bool
}

// New returns an operator with deploy/README.md in hand, who has a kubeconfig and the kubectl of a folder. limit bounds each
// command.
func New(t *testing.T, kubeconfig, kubectl string, limit time.Duration) Operator {
	t.Helper()
	root, err := clusters.Root()
	suite.Must(t, err)
	dir := t.TempDir()
	suite.Must(t, os.CopyFS(filepath.Join(dir, "deploy"), os.DirFS(filepath.Join(root, "deploy"))))
	o := Operator{
		Dir: dir, limit: limit,
		env: []string{"HOME=" + dir, "KUBECONFIG=" + kubeconfig, "PATH=" + kubectl + string(filepath.ListSeparator) + os.Getenv("PATH")},
	}
	return o.Reads(t, "deploy/README.md")
}

// Reads puts another document of the repository into the operator's hands.
func (o Operator) Reads(t *testing.T, document string) Operator {
	t.Helper()
	root, err := clusters.Root()
	suite.Must(t, err)
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(document)))
	suite.Must(t, err)
	o.document, o.text = document, string(text)
	o.commands = Words(strings.ReplaceAll(o.text, "\\\n", " "))
	return o
}

// Script returns the printed block that has a line which begins with these words, as it is typed.
func (o Operator) Script(t *testing.T, beginning string) string {
	t.Helper()
	const indent = "    "
	for block := range strings.SplitSeq(o.text, "\n\n") {
		if !strings.HasPrefix(block, indent) || !strings.Contains(block, "\n"+indent+beginning) && !strings.HasPrefix(block, indent+beginning) {
			continue
		}
		return strings.TrimPrefix(strings.ReplaceAll(block, "\n"+indent, "\n"), indent)
	}
	t.Fatalf("%s prints no block with %q", o.document, beginning)
	return ""
}

// exchange has each cluster take the place of the other.
var exchange = strings.NewReplacer("east", "west", "west", "east")

// OfWest returns one who types the same commands for west, with a copy of deploy in which west is the cluster at hand.
func (o Operator) OfWest(t *testing.T) Operator {
	t.Helper()
	from := os.DirFS(o.Dir)
	o.Dir, o.other = t.TempDir(), true
	suite.Must(t, os.CopyFS(o.Dir, from))
	o.EditsCorefile(t, exchange)
	return o
}

// EditsCorefile changes the copy of drop-in/Corefile.
func (o Operator) EditsCorefile(t *testing.T, changes *strings.Replacer) {
	t.Helper()
	path := filepath.Join(o.Dir, "deploy", "drop-in", "Corefile")
	text, err := os.ReadFile(path)
	suite.Must(t, err)
	changed := changes.Replace(string(text))
	if changed == string(text) {
		t.Fatal("Nothing in the Corefile is changed")
	}
	suite.Must(t, os.WriteFile(path, []byte(changed), 0o600))
}

// Words returns a text with one blank between words and none around it.
func Words(text string) string { return strings.Join(strings.Fields(text), " ") }

// Does runs a command that the document prints and returns what it prints. more is what is added at its end.
func (o Operator) Does(t *testing.T, command string, more ...string) string {
	t.Helper()
	command = Words(command)
	o.Prints(t, command)
	return o.Run(t, strings.Join(append([]string{command}, more...), " "))
}

// Prints checks that the document has a command.
func (o Operator) Prints(t *testing.T, command string) {
	t.Helper()
	if !strings.Contains(o.commands, command) {
		t.Errorf("%s does not print %q", o.document, command)
	}
}

// Run runs a command, which must succeed and have nothing to say on standard error.
func (o Operator) Run(t *testing.T, command string) string {
	t.Helper()
	out, err := o.Try(t, command)
	suite.Must(t, err)
	return out
}

// Try runs a command and returns what it prints. That it complains is an error too.
func (o Operator) Try(t *testing.T, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), o.limit) // also while a test cleans up
	defer cancel()
	if o.other {
		command = exchange.Replace(command)
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = o.Dir, o.env
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if err == nil && complaints.Len() > 0 {
		err = errors.New("it complains")
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", command, err, out.String(), complaints.String())
	}
	return out.String(), err
}

// memberAddress stands for the address of an API server in the commands.
const memberAddress = "https://west.example.org:6443"

// MakesKubeconfig makes west.kubeconfig of what deploy/member has made in west, whose API server is reached at url.
func (o Operator) MakesKubeconfig(t *testing.T, url string) {
	t.Helper()
	suite.Within(t, o.limit, "the token is there", func(context.Context) error {
		_, err := o.Try(t, `test -n "$(kubectl --context west -n clusterset-dns get secret clusterset-dns-token -o jsonpath={.data.token})"`)
		return err
	})
	o.Does(t, `kubectl --context west -n clusterset-dns get secret clusterset-dns-token
		-o go-template-file=deploy/member/kubeconfig.gotemplate`, "> west.kubeconfig")
	set := "kubectl config --kubeconfig=west.kubeconfig set-cluster member --server=" + memberAddress
	o.Prints(t, set)
	o.Run(t, strings.ReplaceAll(set, memberAddress, url))
}

// IsTold gives east the Secret about west.
func (o Operator) IsTold(t *testing.T) {
	t.Helper()
	o.Does(t, `kubectl --context east -n clusterset-members create secret generic west
		--from-file=kubeconfig=west.kubeconfig --from-literal=address=clusterip`)
}
