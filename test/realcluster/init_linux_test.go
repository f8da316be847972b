package realcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spec is what the first process of a node does.
type spec struct {
	Name string
	// Dir is the folder of the node; Path are folders of programs.
	Dir, Path string
	// Kernel are settings of the whole machine that a kubelet wants. It finds them as it wants them and leaves them alone.
	Kernel map[string]string
	// Runtime is the command of containerd, Socket where it listens, Imports what is run then, one after the other.
	Runtime []string
	Socket  string
	Imports [][]string
	// Programs are started at last.
	Programs [][]string
}

// beNode is the first process of a node. It starts when its standard input ends, and stays until it is killed, with all others.
func beNode(text string) int {
	var s spec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = s.furnish()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	if err == nil {
		err = s.boot()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// furnish gives the node folders and kernel settings of its own.
func (s spec) furnish() error {
	mounts := []mount{{"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/var/lib", "tmpfs"}, {"tmpfs", "/var/log", "tmpfs"}}
	masks := filepath.Join(s.Dir, "kernel")
	if err := os.Mkdir(masks, 0o755); err != nil {
		return err
	}
	for name, value := range s.Kernel {
		mask := filepath.Join(masks, name)
		if err := os.WriteFile(mask, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		setting := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		mounts = append(mounts, mount{source: mask, target: setting})
	}
	return errors.Join(furnish(mounts...), syscall.Sethostname([]byte(s.Name)))
}

// boot starts everything, and returns only an error.
func (s spec) boot() error {
	r := &reaper{ended: map[int]chan int{}}
	errs := make(chan error, 1+len(s.Programs))
	go r.reap()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	if err := s.run(r, errs, s.Runtime); err != nil {
		return err
	}
	if err := listens(s.Socket, time.Now().Add(startLimit)); err != nil {
		return err
	}
	for _, command := range s.Imports {
		ended, err := s.start(r, command)
		if err == nil {
			if code := <-ended; code != 0 {
				err = fmt.Errorf("%q ended with %d", command, code)
			}
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "the images are here")
	for _, command := range s.Programs {
		if err := s.run(r, errs, command); err != nil {
			return err
		}
	}
	return <-errs
}

// run starts a program that must not end.
func (s spec) run(r *reaper, errs chan<- error, command []string) error {
	ended, err := s.start(r, command)
	if err != nil {
		return err
	}
	go func() { errs <- fmt.Errorf("%s ended with %d", command[0], <-ended) }()
	return nil
}

// start starts a program with a log in the folder of the node.
func (s spec) start(r *reaper, command []string) (<-chan int, error) {
	log, err := os.OpenFile(filepath.Join(s.Dir, filepath.Base(command[0])+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return r.start(command, &os.ProcAttr{Dir: s.Dir, Env: []string{"PATH=" + s.Path, "HOME=" + s.Dir}, Files: []*os.File{nil, log, log}})
}

// listens waits until somebody listens at a socket.
func listens(socket string, deadline time.Time) error {
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// reaper waits for every process that ends, as the first process has to: whose parent has ended is its child.
type reaper struct {
	mu    sync.Mutex
	ended map[int]chan int // by process id; for those that it has started itself
}

func (r *reaper) start(command []string, attributes *os.ProcAttr) (<-chan int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := os.StartProcess(command[0], command, attributes)
	if err != nil {
		return nil, err
	}
	ended := make(chan int, 1)
	r.ended[p.Pid] = ended
	return ended, p.Release()
}

func (r *reaper) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil {
			time.Sleep(20 * time.Millisecond) // there are none now
			continue
		}
		r.mu.Lock()
		if ended, ok := r.ended[pid]; ok {
			ended <- status.ExitStatus()
			delete(r.ended, pid)
		}
		r.mu.Unlock()
	}
}
