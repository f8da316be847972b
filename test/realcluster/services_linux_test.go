package realcluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterset-dns/clusterset-dns/test/suite"
)

// testServices follows clients of a Deployment that fails in east, and peers of a StatefulSet.
func (w *world) testServices(t *testing.T) {
	t.Helper()
	client := w.east.nodes[0]
	w.row(t, "Clients connect to the nearest cluster", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		for _, n := range w.nodes() {
			w.answers(t, n, n.cluster)
		}
		w.untilAsked(t, setName, enough)
		return ""
	})
	w.row(t, "A Deployment is scaled to 0, until clients are in the other cluster", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		w.kubectl(t, w.east, "-n shop scale deployment web --replicas=0")
		w.answers(t, client, w.west)
		return seconds(time.Since(begin))
	})
	w.row(t, "It is scaled back, until they are back", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		w.kubectl(t, w.east, "-n shop scale deployment web --replicas=1")
		w.answers(t, client, w.east)
		return seconds(time.Since(begin))
	})
	w.row(t, "Its processes are killed whenever they come back, until clients are in the other cluster", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		away := w.west.serviceIP(t, "web")
		suite.Within(t, limit, "clients are in west", func(ctx context.Context) error {
			w.kill(t, w.east, "web")
			got, err := w.look(ctx, client, setName)
			if err == nil && (len(got) != 1 || got[0] != away) {
				err = fmt.Errorf("%s is %q", setName, got)
			}
			return err
		})
		took := time.Since(begin)
		w.answers(t, client, w.east)
		return seconds(took)
	})
	w.row(t, "Each of four peers of a StatefulSet is reached by its name, from every node", w.all(localName, setName), func(t *testing.T) string {
		t.Helper()
		begin := time.Now()
		for _, n := range w.nodes() {
			for _, c := range w.both() {
				for _, pod := range []string{"db-0", "db-1"} {
					host := fmt.Sprintf("%s.%s.db.shop.svc.clusterset.local:8080", pod, c.name)
					suite.Within(t, limit, host+" answers on "+n.name, func(ctx context.Context) error {
						got, err := w.fetch(ctx, n, host)
						if err == nil && got != c.name+"/"+pod {
							err = fmt.Errorf("it is %q", got)
						}
						return err
					})
				}
			}
			w.looks(t, n, "db.shop.svc.clusterset.local", w.addresses(t, "app=db")...)
		}
		return seconds(time.Since(begin))
	})
}

// answers waits until a host is that of a cluster for a client, five times in a row.
func (w *world) answers(t *testing.T, client *node, want *cluster) {
	t.Helper()
	suite.Within(t, limit, fmt.Sprintf("%s answers in %s for a client on %s", setName, want.name, client.name), func(ctx context.Context) error {
		for range 5 {
			got, err := w.fetch(ctx, client, setName)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(got, want.name+"/") {
				return fmt.Errorf("it is %q", got)
			}
		}
		return nil
	})
}

// kill kills the processes of the pods of an application.
func (w *world) kill(t *testing.T, c *cluster, app string) {
	t.Helper()
	pods, err := c.podsOf(t.Context(), "shop", "app="+app)
	must(t, err)
	for _, pod := range pods {
		pids, err := processes(pod.UID, "/probe")
		must(t, err)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
	}
}

// addresses returns those of the pods with a label in both clusters.
func (w *world) addresses(t *testing.T, label string) []string {
	t.Helper()
	var found []string
	for _, c := range w.both() {
		pods, err := c.podsOf(context.WithoutCancel(t.Context()), "shop", label)
		must(t, err)
		for _, pod := range pods {
			found = append(found, pod.Status.PodIP)
		}
	}
	return found
}
