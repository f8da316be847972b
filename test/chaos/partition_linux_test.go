package chaos

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The two ends of the cable. 198.18.0.0/15 is for tests of networks (RFC 2544).
const (
	addressHere  = "198.18.77.1"
	addressThere = "198.18.77.2"
)

// cable leads into a network namespace, in which north is reached. Its far end can be pulled out: packets then vanish, and
// nobody is told.
type cable struct {
	namespace, here, there string
	laid                   bool
	forwarder              *forwarder
}

// partition is the row in which that happens.
func partition() row {
	var c *cable
	return row{
		name: "The cable to a cluster is pulled out, and put in again", gap: noGap, recovery: late,
		possible: func() string {
			c, err := layCable()
			if err == nil {
				err = c.remove()
			}
			if err != nil {
				return "skipped, since network namespaces cannot be made here: " + err.Error()
			}
			return ""
		},
		begin: func(t *testing.T) func(*clientcmdapi.Config) {
			t.Helper()
			var err error
			c, err = layCable()
			must(t, err)
			t.Cleanup(func() { must(t, c.remove()) })
			l, err := c.listen()
			must(t, err)
			c.forwarder = forward(l, hostOf(t, north))
			return func(config *clientcmdapi.Config) {
				for _, to := range config.Clusters {
					to.Server, to.TLSServerName = "https://"+l.Addr().String(), "localhost"
				}
			}
		},
		happen: func(t *testing.T, x *scene) {
			t.Helper()
			must(t, c.inside("ip", "link", "set", c.there, "down"))
			x.change(t, north)
			x.becomesStale(t, north)
			must(t, c.inside("ip", "link", "set", c.there, "up"))
			x.undone()
			x.change(t, north)
		},
	}
}

// layCable makes the namespace and the pair of interfaces. After an error nothing is left.
func layCable() (*cable, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may do that")
	}
	id := fmt.Sprint(os.Getpid())
	c := &cable{namespace: "chaos-" + id, here: "ch" + id, there: "ct" + id}
	if err := command("ip", "netns", "add", c.namespace); err != nil {
		return nil, err
	}
	err := command("ip", "link", "add", c.here, "type", "veth", "peer", "name", c.there, "netns", c.namespace)
	c.laid = err == nil
	for _, step := range []func() error{
		func() error { return command("ip", "address", "add", addressHere+"/30", "dev", c.here) },
		func() error { return command("ip", "link", "set", c.here, "up") },
		func() error { return c.inside("ip", "address", "add", addressThere+"/30", "dev", c.there) },
		func() error { return c.inside("ip", "link", "set", c.there, "up") },
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

// remove takes the interfaces and the namespace away.
func (c *cable) remove() error {
	if c.forwarder != nil {
		c.forwarder.close()
	}
	var err error
	if c.laid {
		err = command("ip", "link", "delete", c.here) // both; the end of the namespace would do that too, but later
	}
	return errors.Join(err, command("ip", "netns", "delete", c.namespace))
}

func (c *cable) path() string { return "/run/netns/" + c.namespace }

// inside runs a command in the namespace.
func (c *cable) inside(args ...string) error {
	return command("nsenter", append([]string{"--net=" + c.path()}, args...)...)
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// listen opens a port in the namespace: a socket stays where it was made.
func (c *cable) listen() (net.Listener, error) {
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, err
	}
	defer home.Close()
	away, err := os.Open(c.path())
	if err != nil {
		return nil, err
	}
	defer away.Close()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addressThere+":0")
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return l, err
}

// forwarder passes on what comes to a listener.
type forwarder struct {
	listener net.Listener
	to       string
	done     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	conns  []net.Conn
}

func forward(l net.Listener, to string) *forwarder {
	f := &forwarder{listener: l, to: to}
	f.done.Go(f.accept)
	return f
}

func (f *forwarder) accept() {
	for {
		from, err := f.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", f.to)
		if err != nil {
			from.Close()
			continue
		}
		if !f.keep(from, to) {
			return
		}
		f.done.Go(func() { pass(from, to) })
		f.done.Go(func() { pass(to, from) })
	}
}

// keep remembers connections for close, which may have been faster.
func (f *forwarder) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, conns...)
	if f.closed {
		for _, c := range conns {
			c.Close()
		}
	}
	return !f.closed
}

func pass(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	from.Close()
	to.Close()
}

func (f *forwarder) close() {
	f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for _, c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
}
