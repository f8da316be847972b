package clients

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
)

// The network between the server and the machine that asks it, another one for each run; 198.18.0.0/15 is for tests of networks
// (RFC 2544). The machine is a network namespace, so that nothing else has its port 53 and its routes.
var (
	here  = fmt.Sprintf("198.18.78.%d", os.Getpid()%60*4+1)
	there = fmt.Sprintf("198.18.78.%d", os.Getpid()%60*4+2)
)

var (
	machine        = fmt.Sprintf("clients-%d", os.Getpid())
	nearEnd        = fmt.Sprintf("cl%d", os.Getpid())
	farEnd         = fmt.Sprintf("cm%d", os.Getpid())
	withNetwork    = []string{"ip", "netns", "exec", machine}
	namesOfMachine = "nameserver " + here + "\nsearch clients.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
)

// impossible says why a machine cannot be made here; "" if it can.
func impossible() string {
	if os.Geteuid() != 0 {
		return "making a network namespace needs root: run this test as root on Linux"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "ip is not installed: install the package iproute2"
	}
	for _, try := range [][]string{{"netns", "add", machine}, {"netns", "delete", machine}} {
		if err := command("ip", try...); err != nil {
			return "network namespaces cannot be made here: " + err.Error()
		}
	}
	return ""
}

// layCable makes the machine and its network: beside the way to the server it has an address in the networks of some endpoints,
// 10.9.0.0/24 and fd00:10:9::/64, and a way to all others. After an error nothing is left.
func layCable() error {
	if err := command("ip", "netns", "add", machine); err != nil {
		return err
	}
	for _, step := range [][]string{
		{"ip", "link", "add", nearEnd, "type", "veth", "peer", "name", farEnd, "netns", machine},
		{"ip", "address", "add", here + "/30", "dev", nearEnd},
		{"ip", "link", "set", nearEnd, "up"},
		inside("ip", "link", "set", "lo", "up"),
		inside("ip", "address", "add", there+"/30", "dev", farEnd),
		inside("ip", "address", "add", "10.9.0.7/24", "dev", farEnd),
		inside("ip", "address", "add", "fd00:10:9::7/64", "dev", farEnd, "nodad"),
		inside("ip", "link", "set", farEnd, "up"),
		inside("ip", "route", "add", "default", "via", here),
		inside("ip", "-6", "route", "add", "default", "dev", farEnd),
	} {
		if err := command(step[0], step[1:]...); err != nil {
			return errors.Join(err, removeCable())
		}
	}
	return nil
}

// removeCable takes the machine away, and its network with it.
func removeCable() error {
	err := command("ip", "link", "show", nearEnd)
	if err == nil {
		err = command("ip", "link", "delete", nearEnd) // the end of the namespace would do that too, but later
	} else {
		err = nil // it was never laid
	}
	return errors.Join(err, command("ip", "netns", "delete", machine))
}

func inside(args ...string) []string { return append(append([]string{}, withNetwork...), args...) }

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// onMachine returns a command that runs on the machine, with files of its own in /etc. `ip netns exec` gives it mounts of its own.
func onMachine(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	script := "set -e\n"
	for name, text := range map[string]string{"resolv.conf": namesOfMachine, "nsswitch.conf": "hosts: dns\n"} {
		file := filepath.Join(dir, name)
		must(t, os.WriteFile(file, []byte(text), 0o644))
		script += fmt.Sprintf("if [ -e /etc/%s ]; then mount --bind '%s' /etc/%s; fi\n", name, file, name)
	}
	args = inside(append([]string{"sh", "-c", script + `exec "$@"`, "sh"}, args...)...)
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// lookUp runs a program on the machine and returns the lines that it prints.
func lookUp(t *testing.T, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := onMachine(ctx, t, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out.String(), complaints.String())
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}
