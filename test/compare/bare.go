//go:build linux

package compare

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clusterset-dns/clusterset-dns/test/kube"
)

// bareWatch reads the events of all EndpointSlices and does nothing with them: sooner than that, no server can know of a change.
const bareWatch = "a bare watch"

const (
	bareNamespace = "bare"
	// arrivesWithin bounds the wait for an event.
	arrivesWithin = 10 * time.Second
)

// bareChange measures how long it takes from the API server's reply to a change of an endpoint until its event has arrived.
func (c *comparison) bareChange(ctx context.Context, round Round) error {
	client, err := kube.New(c.planes[everything.name])
	if err != nil {
		return err
	}
	s := kube.Simple{Namespace: bareNamespace, Name: fmt.Sprintf("s%x", time.Now().UnixNano()), Headless: true, Addresses: []string{"10.1.0.1", "10.1.0.2"}}
	if err := client.Namespace(ctx, s.Namespace); err != nil {
		return err
	}
	if _, err := client.Create(ctx, s); err != nil {
		return err
	}
	w, err := watchBare(ctx, client, s.Name)
	if err != nil {
		return err
	}
	err = c.quietAndUpdating(ctx, bareWatch, round, func() ([]time.Duration, error) { return w.changes(ctx, client, s, 4*min(changes, c.Services/10)) })
	return errors.Join(err, w.close(), client.Core.CoreV1().Services(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}),
		client.Core.DiscoveryV1().EndpointSlices(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}))
}

// bare is a watch, and when the events of one object have arrived.
type bare struct {
	body    io.Closer
	cancel  context.CancelFunc
	arrived chan time.Time
	over    chan struct{}
}

func watchBare(ctx context.Context, client kube.Client, name string) (*bare, error) {
	api := client.Core.DiscoveryV1()
	list, err := api.EndpointSlices("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	body, err := api.RESTClient().Get().Resource("endpointslices").Param("watch", "true").Param("resourceVersion", list.ResourceVersion).
		SetHeader("Accept", "application/json").Stream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &bare{body, cancel, make(chan time.Time), make(chan struct{})}
	go func() {
		defer close(w.over)
		in := bufio.NewReader(body)
		for {
			event, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			if !bytes.Contains(event, []byte(name)) {
				continue
			}
			select {
			case w.arrived <- time.Now():
			case <-ctx.Done():
				return
			}
		}
	}()
	return w, nil
}

func (w *bare) close() error {
	w.cancel()
	err := w.body.Close()
	<-w.over
	return err
}

// changes makes as many, one after the other, and returns how long their events took, sorted.
func (w *bare) changes(ctx context.Context, client kube.Client, s kube.Simple, n int) (took []time.Duration, err error) {
	for i := range n {
		s.NotReady = map[string]bool{s.Addresses[0]: i%2 == 0}
		if err := client.UpdateSlice(ctx, s.Slice()); err != nil {
			return nil, err
		}
		replied := time.Now()
		select {
		case at := <-w.arrived:
			took = append(took, max(0, at.Sub(replied))) // it may come before the reply
		case <-time.After(arrivesWithin):
			return nil, fmt.Errorf("no event within %s", arrivesWithin)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	slices.Sort(took)
	return took, nil
}
