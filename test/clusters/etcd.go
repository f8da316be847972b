package clusters

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// etcdHealthy asks etcd for its health. Each call has a connection of its own, so that none is left idle.
func etcdHealthy(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/health", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answers %s", response.Status)
	}
	return nil
}

// CopyData copies the data of the cluster, as they are at one moment, into a folder that does not exist yet: a backup
// for RestoreData. etcd stands still meanwhile.
func (c *Cluster) CopyData(ctx context.Context, dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := errors.New("etcd is not running")
	if c.etcd.running() {
		err = c.etcd.pause(ctx)
		if err == nil {
			// What a stopped etcd has written is what it would find after a crash.
			err = errors.Join(os.CopyFS(dir, os.DirFS(c.etcdDir())), c.etcd.signal(syscall.SIGCONT))
		}
	}
	if err != nil {
		return fmt.Errorf("copy the data of cluster %s: %w", c.name, err)
	}
	return nil
}

// RestoreData ends the API server and etcd as a crash would, puts the data of a CopyData in place of those of now, and
// starts both. Resource versions go back with the data, and whatever was made since is gone.
func (c *Cluster) RestoreData(ctx context.Context, dir string) error {
	err := c.replaceData(ctx, func() error { return os.CopyFS(c.etcdDir(), os.DirFS(dir)) })
	if err != nil {
		return fmt.Errorf("restore the data of cluster %s: %w", c.name, err)
	}
	return nil
}

// Wipe ends the API server and etcd as a crash would, removes all data, and starts anew on the same ports, with CRDs and
// RBAC as after Start. The server's old token is worth nothing then; Kubeconfig holds a new one.
func (c *Cluster) Wipe(ctx context.Context) error {
	err := c.replaceData(ctx, func() error { return nil })
	if err == nil {
		err = c.untilUsable(ctx)
	}
	if err == nil {
		err = c.install(ctx)
	}
	if err != nil {
		return fmt.Errorf("wipe cluster %s: %w", c.name, err)
	}
	return nil
}

// replaceData removes the data of etcd and puts others in their place while nothing runs.
func (c *Cluster) replaceData(ctx context.Context, put func() error) error {
	c.mu.Lock()
	err := errors.New("the cluster is stopped")
	if !c.stopped {
		err = errors.Join(c.api.kill(), c.etcd.kill())
	}
	if err == nil {
		err = os.RemoveAll(c.etcdDir())
	}
	if err == nil {
		err = put()
	}
	c.mu.Unlock()
	if err == nil {
		err = c.startEtcd(ctx)
	}
	if err == nil {
		err = c.startAPIServer(ctx)
	}
	return err
}

func (c *Cluster) etcdDir() string { return filepath.Join(c.dir, "etcd") }
