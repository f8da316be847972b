package watch

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
)

// TestNobodyKnocksAgainEverySecond asks an API server that closes each connection.
func TestNobodyKnocksAgainEverySecond(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var knocked atomic.Int32
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			knocked.Add(1)
			_ = c.(*net.TCPConn).SetLinger(0) // so that it is reset
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			connection, err := NewConnection(&rest.Config{Host: scheme + "://" + listener.Addr().String(), TLSClientConfig: rest.TLSClientConfig{Insecure: scheme == "https"}})
			if err != nil {
				t.Fatal(err)
			}
			c, done, err := connection.once()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			knocked.Store(0)
			if err := c.core.Discovery().RESTClient().Get().AbsPath("/apis").Do(t.Context()).Error(); !errors.Is(err, errEnded) {
				t.Errorf("Asked: %v", err)
			}
			if _, err := c.core.Discovery().RESTClient().Get().AbsPath("/apis").Watch(t.Context()); !errors.Is(err, errEnded) {
				t.Errorf("Watched: %v", err)
			}
			if n := knocked.Load(); n != 2 {
				t.Errorf("Knocked %d times for two requests", n)
			}
		})
	}
}
