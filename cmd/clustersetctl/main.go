// Command clustersetctl asks a server what it knows and why it answers as it does, at its status address, and checks Corefiles.
// As kubectl-clusterset in the PATH it is the kubectl plugin "kubectl clusterset".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// Exit codes.
const (
	exitOK = iota
	// exitNegative: what was asked has an answer, and it is no: there is no such service or name, or the Corefile has errors.
	exitNegative
	exitUsage
	// exitUnreachable: there was no answer, or none that could be read.
	exitUnreachable
)

// version is the release of this project, such as v0.1.0. The linker sets it (-X main.version=...).
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t := &terminal{out: os.Stdout, err: os.Stderr, in: os.Stdin, getenv: os.Getenv, colour: colours(os.Stdout, os.Getenv)}
	os.Exit(t.run(ctx, os.Args))
}

// terminal is where a command is given, and what it was told there.
type terminal struct {
	out, err io.Writer
	in       io.Reader
	getenv   func(string) string
	colour   bool

	// program is how the user calls this program.
	program        string
	server, output string
	files          files
}

// command is one of the program's.
type command struct {
	name, arguments, short, long string
	// flags declares flags and returns what runs the command with its arguments.
	flags func(*pflag.FlagSet) func(ctx context.Context, t *terminal, args []string) error
	// remote commands ask a server; offline ones can ask files instead.
	remote, offline bool
}

var commands = []command{membersCommand, servicesCommand, explainCommand, checkCommand}

// failure is an error with the exit code that it ends the program with.
type failure struct {
	error
	code int
}

// Unwrap returns the error itself.
func (f failure) Unwrap() error { return f.error }

func usage(format string, args ...any) error { return failure{fmt.Errorf(format, args...), exitUsage} }

// negative ends a command that has said all there is to say.
var negative = failure{errors.New(""), exitNegative}

// run runs a command line and returns the exit code.
func (t *terminal) run(ctx context.Context, args []string) int {
	t.program = "clustersetctl"
	if strings.TrimSuffix(filepath.Base(args[0]), ".exe") == "kubectl-clusterset" {
		t.program = "kubectl clusterset"
	}
	err := t.dispatch(ctx, args[1:])
	if err == nil {
		return exitOK
	}
	code := exitUsage
	if f, ok := errors.AsType[failure](err); ok {
		code = f.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(t.err, "%s: %s\n", t.program, printable(text))
	}
	if code == exitUsage {
		fmt.Fprintf(t.err, "%s --help tells more\n", t.program)
	}
	return code
}

func (t *terminal) dispatch(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return usage("a command is needed: %s", names())
	case args[0] == "help" && len(args) == 1, args[0] == "-h", args[0] == "--help":
		t.help()
		return nil
	case args[0] == "help":
		args = []string{args[1], "--help"}
	case args[0] == "version", args[0] == "--version":
		fmt.Fprintln(t.out, release())
		return nil
	}
	at := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if at < 0 {
		return usage("there is no command %q: use one of %s", args[0], names())
	}
	return t.command(ctx, &commands[at], args[1:])
}

func names() string {
	var out []string
	for _, c := range commands {
		out = append(out, c.name)
	}
	return strings.Join(append(out, "version"), ", ")
}

// command reads the flags of a command and runs it.
func (t *terminal) command(ctx context.Context, c *command, args []string) error {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.SortFlags = false
	run := c.flags(flags)
	flags.StringVarP(&t.output, "output", "o", "table", "`FORMAT`: table, json or yaml")
	if c.remote {
		flags.StringVar(&t.server, "server", t.defaultServer(), "the status address, a `URL`")
	}
	if c.offline {
		t.files.flags(flags)
	}
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		t.commandHelp(c, flags)
		return nil
	}
	if err != nil {
		return usage("%s: %w", c.name, err)
	}
	if !slices.Contains([]string{"table", "json", "yaml"}, t.output) {
		return usage("-o %s: use table, json or yaml", t.output)
	}
	return run(ctx, t, flags.Args())
}

// serverVariable is the environment variable with the status address.
const serverVariable = "CLUSTERSET_SERVER"

// usualServer is the status address in the examples, of this machine.
const usualServer = "http://127.0.0.1:9154"

func (t *terminal) defaultServer() string {
	if s := t.getenv(serverVariable); s != "" {
		return s
	}
	return usualServer
}

func (t *terminal) help() {
	fmt.Fprintf(t.out, `%[1]s tells what a clusterset-dns server knows, and why it answers as it does.

Usage:
  %[1]s COMMAND [ARGUMENTS] [FLAGS]

Commands:
`, t.program)
	for _, c := range commands {
		fmt.Fprintf(t.out, "  %-32s %s\n", strings.TrimSpace(c.name+" "+c.arguments), c.short)
	}
	fmt.Fprintf(t.out, `  %-32s Print the version

It asks the status address of the server, which is off by default: 'status localhost:9154' in
the stanza of clusterset turns it on. From outside of the cluster, in another terminal:

  kubectl --namespace kube-system port-forward deployment/coredns 9154

Exit codes:
  0  all is well
  1  the answer is no: there is no such service or name, or the Corefile has errors
  2  the command line makes no sense
  3  no server answered

Environment:
  %-17s  the status address, instead of --server (%s)
  %-17s  when not empty, no colours; there are none outside of a terminal anyway

%s COMMAND --help tells more about a command.
`, "version", serverVariable, usualServer, "NO_COLOR", t.program)
}

func (t *terminal) commandHelp(c *command, flags *pflag.FlagSet) {
	fmt.Fprintf(t.out, "%s.\n\nUsage:\n  %s %s [FLAGS]\n\n%s\n\nFlags:\n%s", c.short, t.program, strings.TrimSpace(c.name+" "+c.arguments),
		strings.ReplaceAll(strings.TrimSpace(c.long), "PROGRAM", t.program), flags.FlagUsages())
}

// release names this program and its version.
func release() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	return "clustersetctl " + v
}

// encode prints a JSON document as the user wants it. It reports false when that is a table.
func (t *terminal) encode(document []byte) (bool, error) {
	switch t.output {
	case "json":
		return true, printJSON(t.out, document)
	case "yaml":
		text, err := yaml.JSONToYAML(document)
		if err != nil {
			return true, failure{fmt.Errorf("the answer is no JSON: %w", err), exitUnreachable}
		}
		_, err = t.out.Write(text)
		return true, err
	default:
		return false, nil
	}
}
