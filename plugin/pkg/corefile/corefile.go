// Package corefile reads what our plugins' stanzas have in common: blocks, properties with one argument, connections to
// API servers. It owns the traps of the Caddyfile parser and refuses to know any property.
package corefile

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/clusterset-dns/clusterset-dns/plugin/pkg/watch"
)

// Block reads `{`, lines and `}` behind the current token; without a `{` on the same line there is no block. line is
// called at the first token of each line and must take all of the line that it understands. The loops of the Caddyfile
// parser itself would let a property without a block swallow the lines that follow.
func Block(c *caddy.Controller, line func(name string) error) error {
	if !c.NextArg() {
		return nil
	}
	if c.Val() != "{" {
		return c.Errf("unexpected %q: only '{' may follow here", c.Val())
	}
	opened := c.Line()
	if c.NextArg() {
		return c.Errf("unexpected %q after '{': begin a new line", c.Val())
	}
	for c.Next() {
		switch c.Val() {
		case "}":
			return nil
		case "{":
			return c.Err("'{' at the beginning of a line: it belongs at the end of the line before")
		}
		name := c.Val()
		if err := line(name); err != nil {
			return err
		}
		if c.NextArg() {
			return c.Errf("unexpected %q after '%s'", c.Val(), name)
		}
	}
	return c.Errf("the block that begins in line %d is not closed: '}' is missing", opened)
}

// One takes the single argument of a property; what says what it is, for the error.
func One(c *caddy.Controller, property, what string) (string, error) {
	args := c.RemainingArgs()
	if len(args) != 1 {
		return "", c.Errf("'%s' takes %s, and nothing else: got %d arguments", property, what, len(args))
	}
	return args[0], nil
}

// OneOf takes the single argument of a property that must be one of those allowed.
func OneOf(c *caddy.Controller, property string, allowed ...string) (string, error) {
	got, err := One(c, property, strings.Join(allowed, " or "))
	if err != nil {
		return "", err
	}
	if !slices.Contains(allowed, got) {
		return "", c.Errf("'%s %s': use %s", property, got, strings.Join(allowed, " or "))
	}
	return got, nil
}

// offlineKey is under which the storage of an instance keeps that it will never run.
type offlineKey struct{}

// errOffline is why no API server is asked.
var errOffline = errors.New("what the cluster says is read from files")

// SetOffline says that a Corefile is read only to see what it means: neither kubeconfigs nor folders need to be there.
func SetOffline(c *caddy.Controller) { c.Set(offlineKey{}, true) }

// Offline reports whether that is so.
func Offline(c *caddy.Controller) bool { return c.Get(offlineKey{}) != nil }

// InCluster makes the connection to the API server of the cluster that this process runs in.
func InCluster(c *caddy.Controller) (watch.Connection, error) {
	if Offline(c) {
		return offline(nil)
	}
	return watch.InCluster()
}

// offline makes a connection that is never used, different for different arguments.
func offline(args []string) (watch.Connection, error) {
	connection, err := watch.Absent(errOffline)
	connection.Key = "offline " + strings.Join(args, " ")
	return connection, err
}

// Connection makes a connection of [KUBECONFIG [CONTEXT]]. A relative path is relative to the *root* plugin's folder, as
// elsewhere in CoreDNS.
func Connection(c *caddy.Controller, property string, args []string) (watch.Connection, error) {
	var connection watch.Connection
	var err error
	switch n := len(args); {
	case n <= 2 && Offline(c):
		connection, err = offline(args)
	case n == 0:
		connection, err = watch.InCluster()
	case n <= 2:
		path := args[0]
		if !filepath.IsAbs(path) {
			path = filepath.Join(dnsserver.GetConfig(c).Root, path)
		}
		connection, err = watch.LoadKubeconfig(path, strings.Join(args[1:], ""))
	default:
		return connection, c.Errf("'%s' takes KUBECONFIG and CONTEXT at most: got %q in addition", property, args[2])
	}
	if err != nil {
		return connection, c.Errf("'%s': %v", property, err)
	}
	return connection, nil
}
