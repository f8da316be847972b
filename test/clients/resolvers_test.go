package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// resolver is a way in which programs look names up.
type resolver struct {
	name string
	// needs are programs and files, and the Debian packages that have them.
	needs, packages string
	// version returns the version; "" where it is not known.
	version func() string
	// prepare returns what looks names up: see lookup/main.go for the arguments and for what it prints.
	prepare func(*testing.T) func(t *testing.T, args ...string) []string
	// incomplete is true for one that gives a part of a long answer, all of which the others must give.
	incomplete bool
	// addressesOnly is true for one that has no SRV records.
	addressesOnly bool
}

var resolvers = []resolver{
	{
		name: "glibc, getaddrinfo", needs: "gcc", packages: "gcc libc6-dev", version: version("libc6"),
		prepare: compiled("gcc", "libc.c", "-lresolv"),
	},
	// musl asks over TCP since 1.2.4, and keeps 48 addresses at most.
	{
		name: "musl, getaddrinfo", needs: "musl-gcc", packages: "gcc musl-tools", version: version("musl"),
		prepare: compiled("musl-gcc", "libc.c", "-static"), incomplete: true,
	},
	{name: "Go without cgo", needs: "go", packages: "golang", version: func() string { return strings.TrimPrefix(runtime.Version(), "go") }, prepare: inGo},
	{
		name: "c-ares", needs: "gcc /usr/include/ares.h", packages: "gcc libc6-dev libc-ares-dev", version: version("libc-ares2"),
		prepare: compiled("gcc", "cares.c", "-lcares"),
	},
	{name: "Java, InetAddress", needs: "java javac", packages: "default-jdk-headless", version: ofJava, prepare: inJava(), addressesOnly: true},
	{
		name: "the same, networkaddress.cache.ttl=1", needs: "java javac", packages: "default-jdk-headless", version: ofJava,
		prepare: inJavaThatForgets, addressesOnly: true,
	},
	{name: "Java, JNDI", needs: "java javac", packages: "default-jdk-headless", version: ofJava, prepare: inJava("-Djndi=" + here)},
	{name: "dig", needs: "dig", packages: "bind9-dnsutils", version: version("bind9-dnsutils"), prepare: digging("dig")},
	{name: "kdig", needs: "kdig", packages: "knot-dnsutils", version: version("knot-dnsutils"), prepare: digging("kdig")},
	{
		name: "unbound, forwarding; asked by dig", needs: "unbound dig", packages: "unbound bind9-dnsutils", version: version("unbound"),
		prepare: throughUnbound,
	},
}

// missing says what is not there; "" if all is.
func (r resolver) missing() string {
	for need := range strings.FieldsSeq(r.needs) {
		if _, err := exec.LookPath(need); err != nil && (!filepath.IsAbs(need) || !exists(need)) {
			return fmt.Sprintf("%s is not here: install the packages %s", need, r.packages)
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// upstream is the version within that of a Debian package.
var upstream = regexp.MustCompile(`^(?:\d+:)?(\d[\d.]*\d)`)

func version(debianPackage string) func() string {
	return func() string {
		out, err := exec.Command("dpkg-query", "--show", "--showformat", "${Version}", debianPackage).Output()
		if m := upstream.FindSubmatch(out); err == nil && m != nil {
			return string(m[1])
		}
		return ""
	}
}

func ofJava() string {
	out, err := exec.Command("java", "-version").CombinedOutput()
	if _, after, found := strings.Cut(string(out), `version "`); err == nil && found {
		before, _, _ := strings.Cut(after, `"`)
		return before
	}
	return ""
}

// compiled makes a program of a file in testdata. The sources end before what else the compiler needs.
func compiled(compiler, source string, flags ...string) func(*testing.T) func(*testing.T, ...string) []string {
	return func(t *testing.T) func(*testing.T, ...string) []string {
		t.Helper()
		program := filepath.Join(t.TempDir(), "program")
		build(t, append([]string{compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, filepath.Join("testdata", source)}, flags...)...)
		return running(program)
	}
}

func inGo(t *testing.T) func(*testing.T, ...string) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	build(t, "go", "build", "-trimpath", "-o", program, "./lookup")
	return running(program)
}

func inJava(flags ...string) func(t *testing.T) func(*testing.T, ...string) []string {
	return func(t *testing.T) func(*testing.T, ...string) []string {
		t.Helper()
		dir := t.TempDir()
		build(t, "javac", "-d", dir, filepath.Join("testdata", "Lookup.java"))
		return running(append(append([]string{"java", "-cp", dir}, flags...), "Lookup")...)
	}
}

// inJavaThatForgets keeps addresses for a second. That is a security property, so the command line can only name a file.
func inJavaThatForgets(t *testing.T) func(*testing.T, ...string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "security")
	must(t, os.WriteFile(file, []byte("networkaddress.cache.ttl=1\nnetworkaddress.cache.negative.ttl=1\n"), 0o644))
	return inJava("-Djava.security.properties=" + file)(t)
}

func build(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

func running(program ...string) func(*testing.T, ...string) []string {
	return func(t *testing.T, args ...string) []string {
		t.Helper()
		return lookUp(t, append(append([]string{}, program...), args...)...)
	}
}

// digging looks up with dig or kdig, which are started for each lookup. flags are further ones.
func digging(program string, flags ...string) func(*testing.T) func(*testing.T, ...string) []string {
	return func(*testing.T) func(*testing.T, ...string) []string {
		once := func(t *testing.T, what, name string) []string {
			t.Helper()
			var all []string
			for _, qtype := range types(what) {
				for _, line := range lookUp(t, append(append([]string{program}, flags...), "+short", name, qtype)...) {
					if words := strings.Fields(line); len(words) == 4 {
						line = words[3] + ":" + words[2]
					}
					if line != "" {
						all = append(all, line)
					}
				}
			}
			if len(all) == 0 {
				all = []string{"error nothing"}
			}
			return all
		}
		return func(t *testing.T, args ...string) []string {
			t.Helper()
			all := once(t, args[0], args[1])
			for _, pause := range args[2:] {
				ms, err := strconv.Atoi(pause)
				must(t, err)
				time.Sleep(time.Duration(ms) * time.Millisecond) // what is measured is what happens after such a pause
				all = append(append(all, "again"), once(t, args[0], args[1])...)
			}
			return all
		}
	}
}

// types are those of the queries that make up a lookup.
func types(what string) []string {
	if what == "any" {
		return []string{"A", "AAAA"}
	}
	return []string{strings.ToUpper(what)}
}

// unboundConfig makes unbound a forwarder of everything, on the machine that asks.
var unboundConfig = `server:
    interface: 127.0.0.1
    port: 53
    username: ""
    chroot: ""
    directory: "DIR"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-not-query-localhost: no
    module-config: "iterator"
forward-zone:
    name: "."
    forward-addr: ` + here + "\n"

func throughUnbound(t *testing.T) func(*testing.T, ...string) []string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "unbound.conf")
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(unboundConfig, "DIR", dir)), 0o644))
	cmd := onMachine(context.WithoutCancel(t.Context()), t, "unbound", "-d", "-c", file) // the cleanup ends it
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Logf("unbound: %v\n%s", err, said.String())
		}
	})
	dig := digging("dig", "@127.0.0.1")(t)
	suite.Within(t, limit, "unbound answers", func(context.Context) error {
		probe := onMachine(t.Context(), t, "dig", "@127.0.0.1", "+short", "+time=1", "+tries=1", "dns-version.clusterset.local", "TXT")
		out, err := probe.Output()
		if err == nil && !strings.Contains(string(out), "1.0.0") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	return dig
}
