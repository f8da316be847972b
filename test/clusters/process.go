package clusters

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// process is a running program of a control plane.
type process struct {
	name string
	os   *os.Process
	log  string
	done chan struct{} // closed when the program has exited and was waited for
	how  string        // how it exited; to be read after done
}

// startProcess runs a program with its log and working directory in dir.
//
// The kernel kills the program when the thread that started it ends, so that nothing outlives a crashed test. The
// goroutine that starts it therefore keeps its thread until the program has exited: on a thread of the pool the signal
// could come at any time.
func startProcess(dir, path string, args []string) (*process, error) {
	name := filepath.Base(path)
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir} // no ETCD_* or proxy settings of whoever runs this
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()

	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if err := cmd.Wait(); cmd.ProcessState == nil {
			p.how = err.Error()
		} else {
			p.how = cmd.ProcessState.String()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.os = cmd.Process
	return p, nil
}

// running tells whether the program has not exited yet. A nil process is not running.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the program at once, also a paused one, and waits until it is gone. Nothing happens when it already is.
func (p *process) kill() error {
	if !p.running() {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.os.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", s, p.name, err)
	}
	return nil
}

// pause stops every thread of the program where it stands, and returns once they do.
func (p *process) pause(ctx context.Context) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func(context.Context) error { return stopped(p.os.Pid) })
}

// until calls ready until it returns nil. It fails with the end of the log when the program exits or ctx ends first.
func (p *process) until(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := poll(ctx, ready)
	switch {
	case err == nil:
		return nil
	case !p.running():
		return fmt.Errorf("%s ended (%s); its log ends with:\n%s", p.name, p.how, p.logTail())
	default:
		return fmt.Errorf("%s is not ready: %w; its log ends with:\n%s", p.name, err, p.logTail())
	}
}

// logTail returns the last lines of the program's log.
func (p *process) logTail() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return tail(text, 20)
}
